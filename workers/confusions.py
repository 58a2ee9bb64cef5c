"""Which classes are taken for which, over episodes that were played with the prediction of every query."""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from torch import Tensor

from metaloom.workers.data.base import SampledEpisode
from metaloom.workers.records.results import ACCURACY, mean_interval

LISTED = 20  # classes, and pairs


class Confusions:
    """Counts of true and predicted classes, by their ids in the source."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[int, int]] = Counter()  # of each true and predicted class
        self.together: Counter[tuple[int, int]] = Counter()  # queries of the one class in episodes with the other
        self.scores: dict[int, list[float]] = defaultdict(list)  # of each class: its accuracy in each episode
        self.episodes = 0

    def add(self, sampled: SampledEpisode, answer: Tensor) -> None:
        """Count the queries of an episode, given the probabilities of its classes [queries, ways]."""
        ids, labels = sampled.class_ids, sampled.episode.query_y.tolist()
        chosen = answer.argmax(1).tolist()
        for label, own in enumerate(ids):
            picked = [one for one, wanted in zip(chosen, labels, strict=True) if wanted == label]
            if picked:
                self.scores[own].append(sum(one == label for one in picked) / len(picked))
            for other in picked:
                self.counts[own, ids[other]] += 1
            for other_id in ids:
                self.together[own, other_id] += len(picked)
        self.episodes += 1

    def document(self, name: Callable[[int], str]) -> dict[str, Any]:
        """Return the hardest classes, with the 95% interval of their mean over episodes, and the pairs most confused.

        A pair's share is that of the queries of its true class, in the episodes that hold both, that are taken for the
        other one.
        """
        classes = [(*mean_interval(scores, metric=ACCURACY), own, len(scores)) for own, scores in self.scores.items()]
        pairs = [
            (count, count / self.together[pair], pair) for pair, count in self.counts.items() if pair[0] != pair[1]
        ]
        return {
            "episodes": self.episodes,
            "of_classes": len(classes),
            "classes": [
                {"id": own, "name": name(own), "mean": mean, "low": low, "high": high, "episodes": episodes}
                for mean, low, high, own, episodes in sorted(classes)[:LISTED]
            ],
            "pairs": [
                {"true": name(true), "predicted": name(other), "ids": [true, other], "count": count, "share": share}
                for count, share, (true, other) in sorted(pairs, key=lambda one: (-one[1], -one[0], one[2]))[:LISTED]
            ],
        }
