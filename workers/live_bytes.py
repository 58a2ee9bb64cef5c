"""How many bytes of tensors a computation holds at once, in variables and in autograd's graphs together."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Within ``with``, counts the storages made and not yet freed: ``now``, and at ``most``.

    Only what is made inside counts, so that phi and the episodes do not. Slows small operations down several times:
    measure time apart.

    Args:
        limit: Bytes above which a MemoryError is raised; the system would end the process without a word.
    """

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.most, self.limit = 0, 0, limit
        self._held: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
        }
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in given:  # a view makes nothing
                self._hold(leaf.untyped_storage())
        if self.limit is not None and self.now > self.limit:
            raise MemoryError(f"it takes more than {spoken_bytes(self.limit)}")
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._held:
            return
        self._held[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self._held.pop(key, 0)


def spoken_bytes(count: int) -> str:
    """Write a number of bytes in a unit that suits it, such as ``1.5 GiB``."""
    power = min((max(count, 1).bit_length() - 1) // 10, 4)
    return f"{count / 1024**power:,.4g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def peak_bytes(function: Callable[[], object]) -> int:
    """Return the most bytes of tensors that calling ``function`` holds at once."""
    live = LiveBytes()
    with live:
        function()
    return live.most
