"""Charts of a trial: each module declares one as ``CHART``."""
