"""A device that is not the CPU, on a machine without one: its memory is the CPU's, its rules are a GPU's.

A tensor on it is a ``Held``: it says that its device is ``second:0``, and computes with the CPU tensor it wraps. What a
GPU refuses is refused here too: an operation of tensors on two devices (but for a single number, and for indices), a
generator of the CPU's for numbers drawn on the device, and ``numpy()``. So what runs here with the CPU's very numbers
has no tensor on the wrong device. What it cannot show are a GPU's own kernels, their rounding and their speed.

torch knows one such device a process, for good, and calls what is made for it experimental: hence tests alone have it.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "second"
_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(f"{NAME}:0")
CPU = torch.device("cpu")
_ATEN = torch.ops.aten
_INDEXING = {_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default, _ATEN._index_put_impl_.default}
_JOINING = {_ATEN.cat.default, _ATEN.stack.default}  # where even a single number must be on the device
Arguments = tuple[Any, ...]
Named = Mapping[str, Any]


class MixedDevicesError(RuntimeError):
    """What a GPU would have refused."""


class Held(Tensor):
    """A tensor on the second device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Held":
        held: Held = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        held.inner = inner
        return held

    def tolist(self) -> Any:
        """Return the numbers, as a tensor on a GPU does."""
        return self.inner.tolist()

    def __repr__(self, **_: Any) -> str:
        return f"Held({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, _: Any, args: Arguments = (), kwargs: Named | None = None) -> Any:
        return _computed(function, args, kwargs or {})


class _Made(TorchDispatchMode):
    """Sees also the operations that have no tensor yet, such as ``torch.zeros(3, device=...)``."""

    def __torch_dispatch__(self, function: Any, _: Any, args: Arguments = (), kwargs: Named | None = None) -> Any:
        return _computed(function, args, kwargs or {})


class _FromPython(TorchFunctionMode):
    """Takes Python's own numbers to the device, which torch does below where a tensor of ours could see it."""

    def __torch_function__(self, function: Any, _: Any, args: Arguments = (), kwargs: Named | None = None) -> Any:
        given = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor) and _is_ours(given.get("device")):
            device = given.pop("device")
            return function(*args, **given).to(device)
        if function is Tensor.new_tensor and isinstance(args[0], Held):
            return torch.tensor(args[1], **{"dtype": args[0].dtype, **given}).to(DEVICE)
        if function is Tensor.__getitem__ and isinstance(args[0], Held) and isinstance(args[1], list):
            return args[0][torch.tensor(args[1])]
        return function(*args, **given)


@contextlib.contextmanager
def available() -> Iterator[None]:
    """Have the device within."""
    with _FromPython(), _Made():
        yield


def _is_ours(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _computed(function: Any, args: Arguments, kwargs: Named) -> Any:
    """Compute on the CPU what is asked of tensors on either device."""
    tensors: list[Tensor] = []
    inner_args = _inner(args, tensors)
    inner_kwargs = {name: _inner(one, tensors) for name, one in kwargs.items()}
    held = any(isinstance(one, Held) for one in tensors)
    to = kwargs.get("device")
    ours = held if to is None else _is_ours(to)
    if function is _ATEN.copy_.default:  # from any device to any
        function(*inner_args, **inner_kwargs)
        return args[0]
    if function is not _ATEN._to_copy.default:
        _check_one_device(function, args, tensors, kwargs.get("generator"), ours)
    if to is not None:
        inner_kwargs["device"] = CPU if ours else to
    if function is _ATEN._efficientzerotensor.default:  # a tangent of zero, which has no memory to compute with
        function = _ATEN.zeros.default
    found = function(*inner_args, **inner_kwargs)
    if not ours:
        return found
    found = _held(found)
    return return_and_correct_aliasing(function, args, dict(kwargs), found) if held else found


def _inner(value: Any, tensors: list[Tensor]) -> Any:
    """Return an operation's argument with the CPU's tensors in it, and collect its tensors; faster than a pytree."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.inner if isinstance(value, Held) else value
    if isinstance(value, (list, tuple)):
        return type(value)([_inner(one, tensors) for one in value])
    return value


def _held(found: Any) -> Any:
    """Return an operation's result on the second device."""
    if type(found) is Tensor:
        return Held(found)
    return type(found)([_held(one) for one in found]) if isinstance(found, (list, tuple)) else found


def _check_one_device(function: Any, args: Arguments, tensors: Sequence[Tensor], generator: Any, ours: bool) -> None:
    elsewhere = [one for one in tensors if not isinstance(one, Held)]
    may_mix = function in _INDEXING and isinstance(args[0], Held)
    if len(elsewhere) < len(tensors) and not may_mix and any(one.ndim or function in _JOINING for one in elsewhere):
        shapes = [tuple(one.shape) for one in elsewhere]
        raise MixedDevicesError(f"{function}: tensors {shapes} are on the CPU, the others on {DEVICE}")
    if ours and generator is not None:
        raise MixedDevicesError(f"{function}: a generator of the CPU's for numbers on {DEVICE}")


def on_both(work: Callable[[torch.device], Any]) -> tuple[Any, Any]:
    """Do the same on the CPU and on the second device."""
    there = work(CPU)
    with available():
        return there, work(DEVICE)
