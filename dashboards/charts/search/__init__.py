"""Charts of a search: each module declares one as ``CHART``."""
