"""The one device of a trial, and how this process uses it: threads, determinism, memory.

All settings that reach the whole process are made here and nowhere below.
"""

import contextlib
import ctypes
import os
import platform
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metaloom.workers.errors import DeviceError

TorchDevice = torch.device  # by another name: within ``Device``, ``torch`` is a field
TorchType = torch.dtype
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}
# glibc's mallopt parameters, from malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MMAP_THRESHOLD_BYTES = 32 * 2**20  # the largest that glibc accepts
_TRIM_THRESHOLD_BYTES = 512 * 2**20
_TOP_PAD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Device:
    """Where a trial computes, and in what precision.

    Attributes:
        torch: The device.
        dtype: Of phi, of the inner state and of the episodes.
        mixed: Whether networks run in bfloat16 under autocast, phi staying in float32.
    """

    torch: TorchDevice
    dtype: TorchType
    mixed: bool = False

    def precision(self) -> AbstractContextManager[Any]:
        """Return the context in which the learner is called."""
        if not self.mixed:
            return contextlib.nullcontext()
        # without its cache, which would hold a weight's old cast after a module has changed it in place
        return torch.autocast(self.torch.type, dtype=torch.bfloat16, cache_enabled=False)

    def place(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Move tensors to the device, and floating ones to its dtype."""
        return {name: self.move(one) for name, one in tensors.items()}

    def move(self, tensor: Tensor) -> Tensor:
        """Move one tensor to the device, a floating one to its dtype too."""
        return tensor.detach().to(self.torch, self.dtype if tensor.is_floating_point() else None)

    def wait(self) -> None:
        """Wait for work in flight, so that a clock read next is true."""
        if self.torch.type == "cuda":
            torch.cuda.synchronize(self.torch)


CPU = Device(torch.device("cpu"), torch.float32)


def prepare_device(resources: Mapping[str, Any], precision: str = "float32") -> Device:
    """Set this process up for a trial and return its device.

    Args:
        resources: The resolved section; ``device`` and ``threads`` are read.
        precision: ``float32``, ``float64`` or ``bfloat16``.

    Raises:
        DeviceError: The device is not there, or cannot compute in this precision.
    """
    device = choose_device(str(resources.get("device", "auto")))
    if precision == "bfloat16" and device.type != "cuda":
        raise DeviceError(
            f"outer.precision: bfloat16 is mixed precision for a GPU, and this trial runs on {device}; "
            "use float32 or float64"
        )
    torch.set_num_threads(int(resources.get("threads") or 1))  # other counts add up in another order
    keep_pages()
    if device.type == "cuda":
        _make_deterministic()
        torch.cuda.set_device(device)
    return Device(device, _DTYPES[precision], mixed=precision == "bfloat16")


def choose_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device that is there.

    Raises:
        DeviceError: It is not there, or the name means nothing.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        raise DeviceError(f"resources.device: '{name}' is no device (allowed: auto, cpu, cuda, cuda:N)")
    if int(number or 0) >= count:
        have = f"has {count} (cuda:0 to cuda:{count - 1})" if count else "has no GPU that torch can use"
        raise DeviceError(f"resources.device: {name} was asked for, but this machine {have}; try auto or cpu")
    return torch.device(f"cuda:{int(number or 0)}")


def keep_pages() -> bool:
    """Make glibc keep freed memory instead of handing it back to the kernel at once.

    A tensor above 128 KiB is otherwise mapped and unmapped each time, and the page
    faults cost 10-20% of a Conv-4 MAML step. Elsewhere than on glibc this does nothing.

    Returns:
        Whether the allocator took the settings.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES),
        (_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES),
        (_M_TOP_PAD, _TOP_PAD_BYTES),
    )
    taken = [mallopt(name, value) == 1 for name, value in settings]  # all are set, whatever one says
    return all(taken)


def _make_deterministic() -> None:
    """Make equal seeds give equal numbers on a GPU, and float32 mean float32 (not TF32)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
