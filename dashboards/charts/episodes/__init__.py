"""Charts of episodes: each module declares one as ``CHART``."""
