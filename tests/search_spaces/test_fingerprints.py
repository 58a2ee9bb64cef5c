"""The experiments that version 0.1.0 stored mean the same now: their digests are those that it computed."""

import pytest

from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.experiment import FIRST_FINGERPRINT_VERSION
from metaloom.search_spaces.loading import load_experiment, preset_names


def test_every_preset_of_then_is_here() -> None:
    assert set(PRESETS) <= set(preset_names())


def test_a_preset_has_its_digest_of_version_0_1() -> None:
    found = {name: load_experiment(name, fingerprint_version=FIRST_FINGERPRINT_VERSION) for name in PRESETS}
    assert {name: experiment.fingerprint() for name, experiment in found.items()} == PRESETS


def test_a_method_has_its_digest_of_version_0_1() -> None:
    found = {
        method: load_experiment({"tasks": "glyphs", "learner": method}, fingerprint_version=FIRST_FINGERPRINT_VERSION)
        for method in METHODS
    }
    assert {method: experiment.fingerprint() for method, experiment in found.items()} == METHODS


@pytest.mark.parametrize("slot", ["loss", "data", "weighting", "augmentation"])
def test_only_an_experiment_of_version_0_1_may_give_a_slot_that_its_solver_does_not_use(slot: str) -> None:
    kinds = {"loss": "cross_entropy", "data": "support", "weighting": "uniform", "augmentation": "none"}
    document = {"tasks": "glyphs", "learner": {"method": "prototypical", slot: kinds[slot]}}
    stored = load_experiment(document, fingerprint_version=FIRST_FINGERPRINT_VERSION)
    assert stored.fingerprint() == METHODS["prototypical"]
    with pytest.raises(ExperimentError, match=rf"learner\.{slot}: prototypical does not use {slot}"):
        load_experiment(document)


# as `metaloom` 0.1.0 computed them
PRESETS = {
    "class-imbalance": "f823e1a476c95d5807d1e5d54d2b0ce521b1f83c56a4d9fa262db891bd59d7b8",
    "core-set": "bcf7145bcd76110f4dd3bd1a81deb784fed5a36cb098002803517374907e0619",
    "default": "41ab7361b2edd59b346c039a90fcc6d051b1f6acb5eb772ef3cf68d9280ca7b8",
    "digits-darts": "a13a7ca3bec2c456912aeded2aac71597b1309a8c8215771ca5d46debd86b400",
    "distilled-digits": "6d314afd121eb364a682c51b8d6e716a2bab4cf170bff6379e5ed0fe74c6fa80",
    "five-kinds": "a5e5794eaee6407c952735a0a47842ff5d3f3774a5526d4ba48548d5d7c007a9",
    "gdas": "8143e9087b71ea1a19759b93fa3073feaf1e02761c2887074dddcfd790cadbdf",
    "genotype-search": "6a22611b474fdde9cb1dae45d46e83efa722cbb4ec3d219cd68a3bbc040bf4f2",
    "gradient-matching": "a5b0b608605ec29cb96033fdb985e7fd15f03455c3f32a3c70c1612c5e6dd486",
    "learned-augmentation": "76089253bfe924ab78a7b68190714501c15462f66586fbde7b912b8a52a3efe0",
    "learned-loss": "3cb04e0bdaf1fd4fc271390e41d8589e6d520cda48a795647f1ca2bc9f86345f",
    "learned-optimizer": "86616d683bbbb0a88d5ac29b80209faab0c2714c1bb553ddd20f2f147a618ea9",
    "learned-reward": "b3218866f5ec3d1fd9f7f65f09b607435df449d0660eb45166e0b9b2cfeafa12",
    "multi-objective": "0ddb4c82a9c2885d293269927d602905cb48408b48c994402aff08bdf1ef495b",
    "noisy-digits": "8e55450e75e26272f143b5ebdcb42be4bcafd9d9cfc61db6e9f99689622443cd",
    "omniglot-maml": "046df89d86a242a9a39a2e63838a4d4f46af5cdcb9397f4673add40a15a37794",
    "omniglot-prototypical": "8029c5cfc7069bf14c7212c64af5dc16a59998c7f4cbe21c6d5b4e7586464949",
    "quick": "906ec0aed32f13f09136e544940bbbaeae0f820b09e05eacd96d9f52c0995eaa",
    "rand-augment": "9321f2b6987d155a92d29f97d943f89325915d5bcb07e6039e4b7099fd4f2d26",
    "reweighting": "788b687ae384948f7a3dae532d9ac49ac27b71364dcbd901358c0be41200c00a",
    "sinusoid-knob-modes": "1609a147a20c8d07becbb38f38b32d379206acc48bb7452b86c3407c3ce2d9b3",
    "sinusoid-maml": "75d9263b02338b33e15ce8d03ec7b21f040072b33d6150d41795d8a2b36caceb",
    "sinusoid-meta-lstm": "ccfe9677e40ef419b64a91efc8d13fcdcf451badc8e62eae5714bce6330889cf",
    "sinusoid-meta-sgd": "2f8ac5688b42a00caf0fc4e839cdf5a7abfcdf429ad098b8ee9ac179cc750c5e",
    "sinusoid-methods": "73dd894ab6867e4c5afab620c9426a9885c5f946b9555f2ff5be220da9b19e49",
    "which-kinds": "35f677c2b80be2f309e47ac5f7896ea8e2a72643f07e9bef1d3634d461df5c56",
}
METHODS = {
    "anil": "8d5358e2c6c219a3332c158ff9af4e80e062ea2151ffaa6cf96d3aafbdcb8c4a",
    "imaml": "e3dc3cc779335599353d0473f909abd98870e505e2f7ba3fedee77cf5ff18b6a",
    "maml": "ee4f88cb0e34bc5bb559d18ebf7b2169717c65cb35115be4c7af45e4444cd0be",
    "nearest_neighbour": "b2c5fdad23c83632ac82c4b4cadaf0c38e7b3f08dfc54315d4ce156712b49ea9",
    "prototypical": "c442b8dfa2879257f431a8b0a18be7dc37b20087a4bf65cc30e8be69a372cae4",
    "reptile": "678543000700b389b2dadba9a84b9c86edbec02bfd06b7233df11332cd10ebfc",
}
