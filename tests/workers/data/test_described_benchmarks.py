"""The benchmarks of zero-shot learning, from files of their form."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaloom.workers.data import DataError, open_source

CLASSES = [f"animal+{number}" for number in range(12)]
INTENTS = sorted(f"intent_{number:02}" for number in range(12))


@pytest.fixture
def animals(tmp_path: Path) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "features": generator.normal(3, 2, (96, 5)).astype(np.float16),
        "labels": np.tile(np.arange(12), 8).astype(np.int16),
        "class_names": np.array(CLASSES),
        "seen_classes": np.array(CLASSES[:9]),
        "unseen_classes": np.array(CLASSES[9:]),
        "attribute_names": np.array(["fur", "legs"]),
        "attributes_continuous": np.stack([np.arange(12.0), np.full(12, 4.0)], 1).astype(np.float32),
        "attributes_binary": np.stack([np.arange(12) % 2, np.arange(12) < 5], 1).astype(np.uint8),
    }


def opened(tmp_path: Path, source: str, **settings: Any) -> Any:
    fields = {"source": source, "ways": 2, "queries": 3, **settings}
    return open_source(fields, seed=0, cache=tmp_path / "cache")


def saved(path: Path, arrays: dict[str, Any]) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_unseen_animals_are_the_test_and_a_class_has_its_attributes(tmp_path: Path, animals: dict[str, Any]) -> None:
    path = saved(tmp_path / "a.npz", animals)
    source = opened(tmp_path, "awa1", path=path, validation=3, standardize=False, standardize_classes=False)
    splits = source.table.splits
    assert splits["test"] == CLASSES[9:] and len(splits["train"]) == 6 and len(splits["validation"]) == 3
    assert not set(splits["train"]) & set(splits["validation"])
    sampled = source.episode("test", 0)
    numbers = [CLASSES.index(source.table.names[place]) for place in sampled.class_ids]
    assert sampled.episode.support.class_features.tolist() == [[float(number), 4.0] for number in numbers]
    assert len(sampled.episode.support_y) == 0
    rows = animals["features"][animals["labels"] == numbers[0]].astype(np.float32)
    assert all((rows == x.numpy()).all(1).any() for x in sampled.episode.query_x[:3])
    assert source.shape.class_features.features == ("fur", "legs")


def test_features_are_standardized_by_the_training_animals(tmp_path: Path, animals: dict[str, Any]) -> None:
    source = opened(tmp_path, "awa1", path=saved(tmp_path / "a.npz", animals), validation=3)
    train = np.isin(animals["labels"], [CLASSES.index(name) for name in source.table.splits["train"]])
    np.testing.assert_allclose(source.shape.mean, animals["features"][train].astype(np.float64).mean(0), rtol=1e-6)
    held = source._class_features.values[:6, 0]
    assert (held.mean(), held.std()) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=1e-6))


def test_a_missing_attribute_gets_the_mean_of_the_training_animals(tmp_path: Path, animals: dict[str, Any]) -> None:
    splits = opened(tmp_path, "awa1", path=saved(tmp_path / "a.npz", animals), validation=3).table.splits
    lacking = splits["train"][0]
    animals["attributes_continuous"][CLASSES.index(lacking), 0] = -1
    path = saved(tmp_path / "b.npz", animals)
    source = opened(tmp_path, "awa1", path=path, validation=3, standardize_classes=False)
    held = dict(zip(source.table.names, source._class_features.values[:, 0].tolist(), strict=True))
    assert held[lacking] == pytest.approx(np.mean([CLASSES.index(name) for name in splits["train"][1:]]))


def test_other_descriptions_and_examples_instead(tmp_path: Path, animals: dict[str, Any]) -> None:
    path = saved(tmp_path / "a.npz", animals)
    binary = opened(tmp_path, "awa1", path=path, validation=3, attributes="binary", standardize_classes=False)
    assert set(binary._class_features.values.ravel().tolist()) == {0.0, 1.0}
    named = opened(tmp_path, "awa1", path=path, validation=3, class_features={"names": "hashing", "width": 32})
    assert named.shape.class_features.inputs == (32,)
    plain = opened(tmp_path, "awa1", path=path, validation=3, attributes=None, shots=1)
    assert plain.shape.class_features is None and plain.episode("train", 0).episode.support.class_features is None
    with pytest.raises(DataError, match=r"tasks\.shots: got 0 shots"):
        opened(tmp_path, "awa1", path=path, validation=3, attributes=None)


@pytest.fixture
def intents(tmp_path: Path) -> Path:
    generator = np.random.default_rng(1)
    domains = {f"domain{number}": INTENTS[3 * number : 3 * number + 3] for number in range(4)}
    divided = {"train": ["domain0", "domain3"], "val": ["domain1"], "test": ["domain2"]}
    (tmp_path / "clinc150.json").write_text(json.dumps({"domains": domains, "domain_split": divided}))
    np.savez(
        tmp_path / "clinc150_embeddings.npz",
        train=generator.normal(size=(48, 4)).astype(np.float16),
        train_intent=np.arange(48) % 12,
        test=generator.normal(size=(60, 4)).astype(np.float16),
        test_intent=np.arange(60) % 12,
        intents=np.array(INTENTS),
        intent_names=np.arange(48.0).reshape(12, 4).astype(np.float16),
    )
    return tmp_path


@pytest.mark.parametrize("name", ["", "clinc150.json", "clinc150_embeddings.npz"])
def test_domains_divide_the_intents(intents: Path, name: str) -> None:
    source = opened(intents, "clinc150", path=str(intents / name), standardize_classes=False)
    assert source.table.splits == {
        "train": [*INTENTS[:3], *INTENTS[9:]],
        "validation": INTENTS[3:6],
        "test": INTENTS[6:9],
    }
    assert source.table.counts.tolist() == [9] * 6 + [5] * 6  # held-out intents have sentences of the test alone
    sampled = source.episode("validation", 2)
    rows = [INTENTS.index(source.table.names[place]) for place in sampled.class_ids]
    assert sampled.episode.support.class_features.tolist() == [[4.0 * row + n for n in range(4)] for row in rows]


def test_names_may_be_hashed(intents: Path) -> None:
    source = opened(intents, "clinc150", path=str(intents), names="hashing")
    assert source.shape.class_features.inputs == (512,)
    assert opened(intents, "clinc150", path=str(intents), names=None, shots=1).shape.class_features is None


@pytest.mark.parametrize(
    ("source", "path", "message"),
    [
        ("awa1", None, r"tasks\.path: awa1 needs an \.npz file with features"),
        ("awa1", "none.npz", r"tasks\.path: there is no file .*none\.npz"),
        ("awa1", "bad.npz", r"tasks\.path: .*bad\.npz: not a file of awa1 .*features"),
        ("awa1", "text.npz", r"tasks\.path: .*text\.npz: not a file of awa1"),
        ("clinc150", None, r"tasks\.path: clinc150 needs a folder with clinc150\.json"),
        ("clinc150", "", r"has no clinc150_embeddings\.npz and no clinc150\.json"),
    ],
)
def test_files_that_are_not_these_are_refused(tmp_path: Path, source: str, path: str | None, message: str) -> None:
    np.savez(tmp_path / "bad.npz", other=np.zeros(3))
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(DataError, match=message):
        opened(tmp_path, source, **({} if path is None else {"path": str(tmp_path / path)}))


def test_too_many_classes_for_validation_are_refused(tmp_path: Path, animals: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"tasks\.validation: 9 of 9 seen classes leave none to train on"):
        opened(tmp_path, "awa1", path=saved(tmp_path / "a.npz", animals), validation=9)
