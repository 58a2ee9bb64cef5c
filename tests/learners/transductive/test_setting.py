"""What a model of a transductive head says of few queries."""

import pytest

from metaloom.workers.setting import Setting


@pytest.mark.parametrize(
    ("batch_norm", "advised"), [("batch", True), ("per_step", True), ("frozen", False), ("none", False)]
)
def test_inductive_export_is_advised_where_batch_norm_alone_makes_queries_meet(batch_norm: str, advised: bool) -> None:
    warning = Setting("transductive", batch_norm, 75).warning(1)
    assert "its scores are of 75 queries of all classes together" in warning
    assert ("--inductive" in warning) == advised
