"""Charts of what a trial has learned: each module declares one as ``CHART``."""
