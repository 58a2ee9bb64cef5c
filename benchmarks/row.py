"""What is known of one implementation on one workload."""

from dataclasses import dataclass

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Row:
    """One implementation on one workload.

    Attributes:
        error: Relative L2 error of the whole gradient against float64.
        loss_error: Relative error of the loss.
        cpu_ms: Median process CPU time of a step; wall time on a GPU.
        wall_ms: Median wall time of a step.
        times_ours: Median over turns of its time over ours, each as it comes: above 1 is slower than ours.
        peak_mb: Peak memory above the resting process; None where it is too small to see (the sine network).
        approximate: Whether it approximates the gradient and says so.
        times_ours_kept: The same where it has our allocator settings too; None where these mean nothing (a GPU).
    """

    workload: str
    implementation: str
    error: float
    loss_error: float
    cpu_ms: float
    wall_ms: float
    times_ours: float
    peak_mb: float | None
    approximate: bool = False
    times_ours_kept: float | None = None

    @property
    def judged(self) -> float:
        """The ratio that targets go by: the one with our allocator settings for all, where it was measured apart."""
        return self.times_ours if self.times_ours_kept is None else self.times_ours_kept

    @property
    def is_right(self) -> bool:
        """Whether the gradient agrees with float64; a wrong loss is marked, but raced against all the same."""
        return self.error <= TOLERANCE
