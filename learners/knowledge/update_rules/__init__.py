"""How the inner loop moves: optimizers as pure functions; their shared part is ``base``."""

from metaloom.learners.knowledge.update_rules.base import NETWORK, UPDATE_RULES, UpdateConfig, UpdateRule

__all__ = ["NETWORK", "UPDATE_RULES", "UpdateConfig", "UpdateRule"]
