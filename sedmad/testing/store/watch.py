"""What a node tells whoever watches from outside; it hears nothing back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sedmad.core.membership import Claim
from sedmad.testing.store.disk import Manifest

if TYPE_CHECKING:
    from sedmad.testing.store.node import StoreNode


class Watch(Protocol):
    """What is told to whoever watches from outside."""

    def note(self, text: str) -> None: ...

    def stored(self, peer_id: str, manifest: Manifest, established: bool) -> None: ...

    def claimed(self, claim: Claim) -> None: ...

    def acknowledged(self, claim: Claim, manifest: Manifest) -> None: ...

    def removing(self, claim: Claim) -> None: ...

    def look(self, node: StoreNode) -> None: ...
