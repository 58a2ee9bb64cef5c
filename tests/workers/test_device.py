"""The device asked for is there or refused, and equal seeds give equal numbers on it."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from metaloom.workers.device import CPU, choose_device, keep_pages, prepare_device
from metaloom.workers.errors import DeviceError


def test_a_cpu_is_always_there():
    assert prepare_device({"device": "cpu"}) == CPU
    assert prepare_device({"device": "cpu"}, "float64").dtype == torch.float64
    assert prepare_device({}).torch.type in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "mps", ""])
def test_a_name_that_means_nothing_is_refused(name):
    with pytest.raises(DeviceError, match="allowed: auto, cpu, cuda, cuda:N"):
        choose_device(name)


def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(DeviceError, match=r"cuda:99 was asked for, but this machine has .*try auto or cpu"):
        choose_device("cuda:99")


def test_mixed_precision_needs_a_gpu():
    with pytest.raises(DeviceError, match=r"bfloat16 .* use float32 or float64"):
        prepare_device({"device": "cpu"}, "bfloat16")


def test_threads_are_what_was_asked_for():
    before = torch.get_num_threads()
    try:
        prepare_device({"device": "cpu", "threads": 2})
        assert torch.get_num_threads() == 2
        prepare_device({"device": "cpu"})
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_glibc_takes_the_memory_settings():
    assert keep_pages() == (platform.libc_ver()[0] == "glibc")


def test_whole_numbers_keep_their_type():
    placed = prepare_device({"device": "cpu"}, "float64").place({"w": torch.ones(2), "count": torch.tensor(3)})
    assert placed["w"].dtype == torch.float64
    assert placed["count"].dtype == torch.int64


def test_tracing_leaves_no_empty_folder_among_the_temporary_files(tmp_path):
    code = (
        "import torch; from torch.fx.experimental.proxy_tensor import make_fx\n"
        "from metaloom.workers.device import prepare_device\n"
        "make_fx(lambda x: torch.nn.functional.linear(x, x))(torch.ones(2, 2)); prepare_device({})"
    )
    environment = {name: one for name, one in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    command = [sys.executable, "-c", code]
    subprocess.run(command, env={**environment, "TMPDIR": str(tmp_path)}, check=True, timeout=120)
    assert list(tmp_path.iterdir()) == []
