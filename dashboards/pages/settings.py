"""How the application is served."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path


def fresh_secret() -> str:
    """Return 256 random bits as text for an address."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True)
class PageSettings:
    """What the application has to know about how it is served.

    Attributes:
        store: The folder of all records.
        read_only: Refuse everything that changes anything.
        hosts: The host names and addresses that a request may name, without ports.
        port: Where it listens; part of the cookie's name, because browsers share cookies between ports.
        entry: The secret in the address that is printed; it is exchanged for the cookie.
        handover: The same for the browser that this process opens. It counts once, because all users of a machine can
            see the arguments of a program.
        cookie: The secret in the cookie.
    """

    store: Path
    read_only: bool = False
    hosts: frozenset[str] = frozenset({"127.0.0.1", "localhost", "::1"})
    port: int = 0
    entry: str = field(default_factory=fresh_secret, repr=False)
    handover: str = field(default_factory=fresh_secret, repr=False)
    cookie: str = field(default_factory=fresh_secret, repr=False)

    @property
    def cookie_name(self) -> str:
        """The name of the cookie."""
        return f"metaloom-{self.port}"
