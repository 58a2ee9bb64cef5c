"""The short sets of the UCR archive: where they are, which are pre-trained on, and the classifiers on their features.

24 of the 50 sets are for pre-training, 18 to train on and 6 to validate; the other 26 are held out. The division is
drawn once, by whole families, so that no held-out set has relatives among those that were trained on, such as GunPoint
and its three later versions.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache as remember
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor

from benchmarks.reproductions.harness import ROOT
from metaloom.workers.data.base import DataError
from metaloom.workers.data.series_sets import Archive

FAMILIES = (
    "CricketX CricketY CricketZ",
    "DistalPhalanxOutlineAgeGroup DistalPhalanxOutlineCorrect DistalPhalanxTW MiddlePhalanxOutlineAgeGroup "
    "MiddlePhalanxOutlineCorrect MiddlePhalanxTW PhalangesOutlinesCorrect ProximalPhalanxOutlineAgeGroup "
    "ProximalPhalanxOutlineCorrect ProximalPhalanxTW",
    "DodgerLoopDay DodgerLoopGame DodgerLoopWeekend",
    "FaceAll FacesUCR",
    "FiftyWords WordSynonyms",
    "GunPoint GunPointAgeSpan GunPointMaleVersusFemale GunPointOldVersusYoung",
    "SonyAIBORobotSurface1 SonyAIBORobotSurface2",
    "ECG200 ECGFiveDays TwoLeadECG",
    "BME UMD",
)
TRAINED, VALIDATED, HELD_OUT = 18, 6, 26
DIVISION_SEED = 0
COSTS = [10.0**power for power in range(-3, 3)]


def archive_path() -> str:
    """Return $METALOOM_UCR, or the file beside the checkout; raises DataError if neither is there."""
    path = os.environ.get("METALOOM_UCR", str(ROOT.parent / "shared" / "data" / "ucr_len300.npz"))
    if not Path(path).exists():
        raise DataError(
            f"no data at {path}: set METALOOM_UCR to an .npz file of the UCR archive's sets up to length 300"
        )
    return path


@dataclass(frozen=True)
class Division:
    """The names of the data sets to train on, to validate, and those that are held out."""

    train: list[str]
    validation: list[str]
    held_out: list[str]


def divided(names: Sequence[str]) -> Division:
    """Divide the 50 sets: families in a random order, then sets alone, each to the part with most of its room left."""
    related = {name: place for place, family in enumerate(FAMILIES) for name in family.split()}
    groups: dict[Any, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(related.get(name, name), []).append(name)
    families = list(groups.values())
    order = np.random.default_rng(DIVISION_SEED).permutation(len(families)).tolist()
    parts: dict[int, list[str]] = {size: [] for size in (TRAINED, HELD_OUT, VALIDATED)}
    for family in sorted((families[place] for place in order), key=lambda one: len(one) == 1):  # sets alone fill up
        room = {size: size - len(part) for size, part in parts.items() if size - len(part) >= len(family)}
        parts[max(room, key=lambda size: room[size] / size)].extend(family)
    train, held_out, validation = (sorted(parts[size]) for size in (TRAINED, HELD_OUT, VALIDATED))
    return Division(train, validation, held_out)


@dataclass(frozen=True)
class OneSet:
    """One data set: series float32 [n, 1, length] and labels [n] of the archive's two parts."""

    x: Tensor
    y: NDArray[np.int64]
    test_x: Tensor
    test_y: NDArray[np.int64]


@remember
def one_set(name: str) -> OneSet:
    """Read a data set."""
    found = Archive.at(archive_path()).read(name)
    x, tested = torch.from_numpy(np.stack(list(found.series)).astype(np.float32)), found.tested
    return OneSet(x[~tested], found.labels[~tested], x[tested], found.labels[tested])


def nearest(data: OneSet) -> list[float]:
    """Return whether each test series is classified rightly by its nearest neighbour, by Euclidean distance: [n]."""
    x, queries = data.x.flatten(1).double(), data.test_x.flatten(1).double()
    distances = queries.square().sum(1)[:, None] - 2 * queries @ x.T + x.square().sum(1)
    return (data.y[distances.argmin(1).numpy()] == data.test_y).astype(float).tolist()


def linear_machine(data: OneSet, embed: Callable[[Tensor], Tensor]) -> list[float]:
    """Return whether a linear SVM on the features classifies each test series rightly: [n].

    Its cost is chosen by cross-validation on the training series, of at most five folds; 1 where a class has one.
    """
    train, test = (embed(x).numpy() for x in (data.x, data.test_x))
    folds = min(5, int(np.bincount(data.y)[np.unique(data.y)].min()))
    machine = make_pipeline(StandardScaler(), SVC(kernel="linear"))
    if folds > 1:
        machine = GridSearchCV(machine, {"svc__C": COSTS}, cv=folds)
    return (machine.fit(train, data.y).predict(test) == data.test_y).astype(float).tolist()


@dataclass(frozen=True)
class SignTest:
    """On how many sets one method is better than another, and worse; ties count as neither."""

    wins: int
    losses: int

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> "SignTest":
        """Compare the accuracies of two methods, one of each set."""
        pairs = list(zip(ours, theirs, strict=True))
        return cls(sum(a > b for a, b in pairs), sum(a < b for a, b in pairs))

    @property
    def p(self) -> float:
        """The chance of as uneven a count if both were equally good (two-sided)."""
        return float(binomtest(self.wins, self.wins + self.losses).pvalue) if self.wins + self.losses else 1.0
