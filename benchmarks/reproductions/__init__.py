"""The published claims, measured again: one function a claim, one row a measurement."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.reproductions import (
    augmentation,
    cells,
    closed_form,
    condensation,
    digits,
    easy,
    exactness,
    families,
    language,
    memory,
    metric_learners,
    model_based_learners,
    omniglot,
    penalties,
    quadratics,
    rare_class,
    relational_learners,
    searches,
    sinusoid,
    taught,
    transductive,
    weights,
    zero_shot,
)
from benchmarks.reproductions.harness import Row

Claim = Callable[[Sequence[int], Path], list[Row]]

CLAIMS: dict[str, Claim] = {
    "V1": exactness.v1,
    "V2": sinusoid.v2,
    "V3": sinusoid.v3,
    "V4": sinusoid.v4,
    "V5": sinusoid.v5,
    "V6": quadratics.v6,
    "V7": weights.v7,
    "V8": weights.v8,
    "V9": rare_class.v9,
    "V10": digits.v10,
    "V12": condensation.v12,
    "V13": omniglot.v13,
    "V14": omniglot.v14,
    "V15": omniglot.v15,
    "V17": cells.v17,
    "V20": penalties.v20,
    "V21": augmentation.v21,
    "V24": taught.v24,
    "V25": taught.v25,
    "M1": metric_learners.m1,
    "M2": relational_learners.m2,
    "M3": metric_learners.m3,
    "M4": relational_learners.m4,
    "M5": memory.m5,
    "M6": model_based_learners.m6,
    "M7": model_based_learners.m7,
    "M8": closed_form.m8,
    "M9": zero_shot.m9,
    "M10": transductive.m10,
    "M11": easy.m11,
    "M12": families.m12,
    "P5": language.p5,
    "S1": searches.s1,
}
