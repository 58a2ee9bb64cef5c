"""A named collection, which each class joins where it is defined, and whose errors name the right spelling."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar, overload

from metaloom.learners.errors import LearnerError, unknown

T = TypeVar("T")
D = TypeVar("D")


class NotRegistered(LearnerError):  # noqa: N818
    """Nothing is registered under a name: it is misspelt, or the package that brings it is not installed."""


class Registry(Mapping[str, T], Generic[T]):
    """Names to entries of one kind; two entries of one name are an error."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Register ``entry``; raises LearnerError if the name is taken."""
        if name in self._entries:
            raise LearnerError(f"two {self.kind}s are named '{name}'")
        self._entries[name] = entry
        return entry

    def __setitem__(self, name: str, entry: T) -> None:
        self.add(name, entry)

    def remove(self, name: str) -> None:
        """Take an entry out again, such as one that a test has added; raises NotRegistered."""
        del self._entries[self._checked(name)]

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate a class or function to register it under ``name``."""
        return lambda entry: self.add(name, entry)

    def name_of(self, entry: object) -> str:
        """Return the name under which ``entry`` is registered; its own name if it is not."""
        return next((name for name, one in self._entries.items() if one is entry), getattr(entry, "__name__", ""))

    def _checked(self, name: str) -> str:
        if name not in self._entries:
            raise NotRegistered(unknown(self.kind, name, self._entries))
        return name

    def __getitem__(self, name: str) -> T:
        return self._entries[self._checked(name)]

    @overload
    def get(self, name: str, /) -> T | None: ...

    @overload
    def get(self, name: str, /, default: T | D) -> T | D: ...

    def get(self, name: str, /, default: Any = None) -> Any:
        """Return the entry, or ``default``; ``Mapping.get`` would need a KeyError."""
        return self._entries.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries
