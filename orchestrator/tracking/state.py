"""What the MLflow projection stores with its mark."""

from dataclasses import dataclass, field


@dataclass
class TrackingState:
    """The state that the projection stores with its mark.

    Attributes:
        runs: Trial number, as text for JSON, to run id.
        steps: Trial number to the last step sent, so that a step repeated after a resume is sent once.
        running: The trials whose run is RUNNING in MLflow.
        knobs: Each searched knob that a trial has had, to its range as text.
        scores: Trial number to its last report: the interval's ends, and each objective; null where it has none.
        best: The number of the best finished trial; empty before the first.
        finished: How many trials have finished.
        last_finish: The id of the last event of a trial that finished.
        reported: The id of the last event that the search's HTML report tells of, with its figures; 0: there is none.
    """

    tracking_uri: str = ""
    experiment_id: str = ""
    parent_run_id: str = ""
    runs: dict[str, str] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    knobs: dict[str, str] = field(default_factory=dict)
    scores: dict[str, list[float | None]] = field(default_factory=dict)
    best: str = ""
    finished: int = 0
    last_finish: int = 0
    reported: int = 0

    def forget(self) -> None:
        """Forget what was sent, of which every event is sent again; the places and what is running stay."""
        self.steps, self.scores, self.knobs = {}, {}, {}
        self.best, self.finished, self.last_finish, self.reported = "", 0, 0, 0
