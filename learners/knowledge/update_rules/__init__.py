"""How the inner loop moves: optimizers as pure functions, each a file; their shared part is ``base``."""

from metaloom.learners.knowledge.update_rules.base import GRANULARITIES, NETWORK, UPDATE_RULES, UpdateConfig, UpdateRule

__all__ = ["GRANULARITIES", "NETWORK", "UPDATE_RULES", "UpdateConfig", "UpdateRule"]
