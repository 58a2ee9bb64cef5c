"""Where a control wins: the sentences below a claim's table, made from its rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.reproductions.harness import Row


@dataclass(frozen=True)
class Comparison:
    """Which of a claim's rows are controls, and which are what it is about.

    A row belongs to a name where it is "case: name", "name, case" or the name alone. Rows of one case are compared.

    Attributes:
        methods: Names of what was learned.
        controls: Names of what does without.
        lower_is_better: Whether the rows are errors, not accuracies.
    """

    methods: tuple[str, ...]
    controls: tuple[str, ...]
    lower_is_better: bool = False


# V6 and V25 are not here: their gates are made of the best control's number. Nor is V17: its controls had the time of a
# DARTS search, which GDAS does not take.
COMPARISONS: dict[str, Comparison] = {
    "V7": Comparison(
        ("Meta-Weight-Net, last epoch", "learning to reweight, last epoch"),
        (
            "plain cross entropy, last epoch",
            "plain cross entropy, best epoch by the test set (an oracle)",
            "plain cross entropy on the noisy and the clean samples, last epoch",
            "the 50 clean samples alone",
        ),
    ),
    "V8": Comparison(
        ("learned class ratios", "Meta-Weight-Net"),
        ("plain cross entropy", "the 50 balanced samples alone", "classes weighed by their size"),
    ),
    "V9": Comparison(
        ("learning to reweight",),
        ("plain cross entropy", "the 10 balanced samples alone", "classes weighed by their size"),
    ),
    "V12": Comparison(
        (
            "10 learned digits, gradient matching (DC), 200 outer steps",
            "10 learned digits, distribution matching (DM), 200 outer steps",
        ),
        ("10 digits, ten real digits at random", "10 digits, ten by herding (with one a class k-center's too)"),
    ),
    "V20": Comparison(("hypergradient",), ("TPE", "random"), lower_is_better=True),
    "V21": Comparison(
        ("learned policy (dada), the best of 2 outer rates",),
        (
            "no augmentation",
            "no augmentation, trained on the 200 meta samples too",
            "a random policy, the best of 2",
            "RandAugment, the best of 2",
        ),
    ),
    "V24": Comparison(
        ("loss learned by ML3, last epoch",),
        (
            "cross entropy, last epoch",
            "cross entropy, best epoch by the test set (an oracle)",
            "generalized cross entropy, q = 0.7, last epoch",
            "the 50 clean samples alone",
        ),
    ),
    "P5": Comparison(
        ("language model, fine-tuned",),
        (
            "random weights, fine-tuned",
            "class means",
            "random bag of words, fine-tuned",
            "prototypes learned from the training domains' labels",
        ),
    ),
    "S1": Comparison(
        ("learned section", "a portfolio of 30, then TPE"),
        ("Optuna's TPE", "tpe, our defaults", "random, our defaults"),
        lower_is_better=True,
    ),
    "P3": Comparison(("TimeNet",), ("the same network untrained", "1-NN Euclidean")),
    "P4": Comparison(("fine-tuned from ConvTimeNet",), ("from scratch",)),
    "P1": Comparison(("denoising autoencoder",), ("autoencoder without noise", "random start")),
    "P2": Comparison(
        tuple(f"first {layers} layers {moves}" for layers in (1, 2, 3, 4) for moves in ("frozen", "fine-tuned")),
        ("random start",),
    ),
    "P8": Comparison(
        tuple(
            f"{name} over 18 sets"
            for name in ("pre-training", "pre-training by heads", "prototypical networks", "MAML")
        ),
        ("random start", "nearest neighbour"),
    ),
    "P6": Comparison(("weights by the target",), ("all classes alike", "the top 16 classes alone")),
    "P7": Comparison(
        ("MAML trained with 1 inner step, after 1 inner step",),
        (
            "pre-trained, after 0 inner steps",
            "pre-trained, after 1 inner step",
            "random start, after 0 inner steps",
            "random start, after 1 inner step",
        ),
    ),
    "M10": Comparison(
        ("pt_map", "ilpc", "epnet", "soft_k_means", "laplacian_shot", "ptn", "ica_msp", "oblique_manifold"),
        ("nearest class mean",),
    ),
}


def wins(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each learned method's row that a control beats; none for a claim that names no controls."""
    comparison = COMPARISONS.get(rows[0].claim) if rows else None
    if comparison is None:
        return []
    sentences = []
    for name, case, ours in _named(rows, comparison.methods):
        better = [
            f"{control} ({number(theirs.mean)}{', intervals overlap' if _overlap(ours, theirs) else ''})"
            for control, where, theirs in _named(rows, comparison.controls)
            if where == case and _beats(theirs.mean, ours.mean, lower=comparison.lower_is_better)
        ]
        if better:
            told = f"{case}: " if case else ""
            sentences.append(f"{told}{name} ({number(ours.mean)}) is beaten by {'; by '.join(better)}.")
    return sentences


def number(value: float) -> str:
    """Four decimals; what is below them in scientific notation."""
    return f"{value:.4f}" if abs(value) >= 1e-4 or value == 0 else f"{value:.1e}"


def _named(rows: Sequence[Row], names: Sequence[str]) -> list[tuple[str, str, Row]]:
    """Return (name, case, row) of the rows that belong to one of the names, in the rows' order."""
    found = [(name, case_of(row.what, name), row) for row in rows for name in names]
    return [(name, case, row) for name, case, row in found if case is not None]


def case_of(what: str, name: str) -> str | None:
    """Return the case that a named row was measured in; None if the row is not of that name."""
    if what == name:
        return ""
    if what.endswith(f": {name}"):
        return what.removesuffix(f": {name}")
    return what.removeprefix(f"{name}, ") if what.startswith(f"{name}, ") else None


def _beats(theirs: float, ours: float, *, lower: bool) -> bool:
    # means of equal scores in another order may differ by rounding
    return (theirs < ours if lower else theirs > ours) and not math.isclose(theirs, ours, rel_tol=1e-9)


def _overlap(one: Row, other: Row) -> bool:
    mine, theirs = one.interval or one.seeds_interval, other.interval or other.seeds_interval
    return mine is not None and theirs is not None and mine[0] <= theirs[1] and theirs[0] <= mine[1]
