"""sedmad: one active memory out of the machines you already have.

import sedmad
mesh = sedmad.connect()
w = mesh.put("encoder/w1", weights, survive=1)
y = w @ x
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sedmad.version import __version__

if TYPE_CHECKING:
    from sedmad.client import Matrix, Mesh, connect

__all__ = ["Matrix", "Mesh", "__version__", "connect"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that importing one room does not load the client with it.
    if name in __all__:
        from sedmad import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
