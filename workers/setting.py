"""What a prediction of an adapted model depends on, and when that makes it worse than the scores say."""

from dataclasses import dataclass

from metaloom.learners.solvers.base import TRANSDUCTIVE

OF_QUERIES = ("batch", "per_step")  # the modes of batch norm in which queries meet, which --inductive replaces


@dataclass(frozen=True)
class Setting:
    """What a prediction may depend on besides its own query.

    Attributes:
        name: ``inductive``, ``semi-supervised``, or ``transductive`` if it depends on the other queries.
        batch_norm: The batch-norm mode, or ``none``.
        queries: How many queries a test episode of the bundle has, which its scores hold for; 0 where it is not known.
    """

    name: str
    batch_norm: str
    queries: int = 0

    def __str__(self) -> str:
        """Describe it in one line."""
        through = "" if self.batch_norm == "none" else f", batch norm: {self.batch_norm}"
        if self.name == TRANSDUCTIVE:
            return f"transductive: predictions depend on all queries together{through}"
        return f"{self.name}: each query is predicted on its own{through}"

    def warning(self, queries: int) -> str:
        """Return why so few queries in one batch are predicted worse than the scores say; empty if they are not."""
        if self.name != TRANSDUCTIVE or queries >= max(self.queries, 2):
            return ""
        asked = "1 query is" if queries == 1 else f"{queries} queries are"
        tested = f", and its scores are of {self.queries} queries of all classes together" if self.queries else ""
        return (
            f"{asked} predicted at once: this bundle is transductive, so predictions depend on all queries together"
            f"{tested}; fewer are predicted less well. Ask more at once"
            + (", or export the trial with --inductive" if self.batch_norm in OF_QUERIES else "")
        )
