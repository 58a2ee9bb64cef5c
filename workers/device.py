"""The one device of a trial, and how this process uses it: threads, determinism, memory and its measurement.

All settings that reach the whole process are made here and nowhere below.
"""

import atexit
import contextlib
import ctypes
import getpass
import os
import platform
import resource
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from metaloom.workers.errors import DeviceError
from metaloom.workers.records import names

TorchDevice = torch.device  # by another name: within ``Device``, ``torch`` is a field
TorchType = torch.dtype
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}
# glibc's mallopt parameters (malloc.h), in bytes: the mmap threshold (at most 32 MiB), the trim threshold, the top pad
_MALLOPT = {-3: 32 * 2**20, -1: 512 * 2**20, -2: 64 * 2**20}


@dataclass(frozen=True)
class Device:
    """The device and the precision of a trial.

    Attributes:
        dtype: Of phi, of the inner state and of the episodes.
        mixed: Whether networks run in bfloat16 under autocast; phi stays in float32.
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


@cache
def leave_no_empty_cache() -> None:
    """Remove at exit the folder in TMPDIR that torch's tracing makes for a compiler that is not used, if it is empty.

    Seen with torch 2.13: ``make_fx`` imports ``torch._inductor.compiler_bisector``, which makes its cache.
    """
    with contextlib.suppress(KeyError, OSError):  # this user has no name
        usual = Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"
        if os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(usual)) == str(usual):  # torch sets it to where it is
            atexit.register(_remove_if_empty, usual)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # it is not there, or in use
        folder.rmdir()


def prepare_device(resources: Mapping[str, Any], precision: str = "float32") -> Device:
    """Set this process up for a trial and return its device.

    ``device`` and ``threads`` of the section are read; ``precision`` is ``float32``, ``float64`` or ``bfloat16``.
    Raises DeviceError if the device is absent, or cannot compute in this precision.
    """
    device = check_precision(resources, precision)
    torch.set_num_threads(int(resources.get("threads") or 1))  # other counts add up in another order
    keep_pages()
    leave_no_empty_cache()
    if device.type == "cuda":
        _make_deterministic()
        torch.cuda.set_device(device)
    forget_peak(device)
    return Device(device, _DTYPES[precision], mixed=precision == "bfloat16")


def choose_device(name: str) -> torch.device:
    """Return the device named ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; raises DeviceError if it is absent."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name in ("auto", "cpu"):
        return torch.device("cuda:0" if count and name == "auto" else "cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        raise DeviceError(f"resources.device: '{name}' is no device (allowed: auto, cpu, cuda, cuda:N)")
    if int(number or 0) >= count:
        have = f"has {count} (cuda:0 to cuda:{count - 1})" if count else "has no GPU that torch can use"
        raise DeviceError(f"resources.device: {name} was asked for, but this machine {have}; try auto or cpu")
    return torch.device(f"cuda:{int(number or 0)}")


def check_gpus(resources: Mapping[str, Any]) -> int:
    """Return the number of this machine's GPUs; raises DeviceError if a trial asks for more."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    asked = float(resources.get("gpus") or 0)
    if asked > count:
        have = f"has {count}" if count else "has none that torch can use"
        noun = "GPU" if asked == 1 else "GPUs"
        raise DeviceError(
            f"resources.gpus: a trial asks for {asked:g} {noun}, but this machine {have}; "
            f"give resources.gpus: {count}, or run it where they are"
        )
    choose_device(str(resources.get("device", "auto")))
    return count


def check_precision(resources: Mapping[str, Any], precision: str) -> torch.device:
    """Return the device of a trial; raises DeviceError if it is absent, or cannot compute in ``precision``."""
    device = choose_device(str(resources.get("device", "auto")))
    if precision == "bfloat16" and device.type != "cuda":
        raise DeviceError(
            f"outer.precision: bfloat16 is mixed precision for a GPU, and this trial runs on {device}; "
            "use float32 or float64"
        )
    return device


def keep_pages() -> bool:
    """Make glibc keep freed memory instead of returning it to the kernel at once; return whether it took the settings.

    A tensor above 128 KiB is otherwise mapped and unmapped each time, and the page faults cost 10-20% of a Conv-4 MAML
    step. Without glibc this does nothing.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    taken = [mallopt(name, value) == 1 for name, value in _MALLOPT.items()]  # all are set, even if one fails
    return all(taken)


def forget_peak(device: TorchDevice) -> None:
    """Let ``peak_memory`` count from now on: a worker runs one trial after another.

    Where the kernel does not take it, the peak is that of the whole process.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak resident set size
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: TorchDevice) -> dict[str, float]:
    """Return the most bytes that this process has held, and that its tensors have held on a GPU, as metrics."""
    peak = {names.PEAK_BYTES: float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)}
    if device.type == "cuda":
        peak[names.PEAK_GPU_BYTES] = float(torch.cuda.max_memory_allocated(device))
    return peak


def _make_deterministic() -> None:
    """Make equal seeds give equal numbers on a GPU, and float32 mean float32 (not TF32)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


class LiveBytes(TorchDispatchMode):
    """Within ``with``, counts the bytes of storages made and not yet freed: ``now``, and at ``most``.

    Storages from outside, such as phi and the episodes, do not count. Small operations are several times slower inside:
    measure time separately.

    Args:
        limit: Bytes above which a MemoryError is raised; the system would kill the process without a message.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch imports its compiler, a second, for a mode that compiles nothing

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.most, self.limit = 0, 0, limit
        self._held: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, *kwargs.values()))}
        for tensor in _tensors((result,)):
            if (storage := tensor.untyped_storage())._cdata not in given:  # a view makes nothing
                self._hold(storage)
        if self.limit is not None and self.now > self.limit:
            raise MemoryError(f"it takes more than {spoken_bytes(self.limit)}")
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._held:
            self._held[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self._held.pop(key, 0)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Walk the tensors of an operation's arguments or results; torch's own walk of trees takes longer than most."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def spoken_bytes(count: int) -> str:
    """Return a number of bytes as text in a suitable unit, such as ``1.5 GiB``."""
    power = min((max(count, 1).bit_length() - 1) // 10, 4)
    return f"{count / 1024**power:,.4g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
