"""The one tree of errors.

Every error says what failed, why, and what to try; it names the node and the matrix where there is one. The same
class is raised in the daemon and, after travelling as a `Status` (code, reason, message, hint, metadata), in the
client: `reason` is the stable name that both sides look up.

    SedmadError
    ├── UsageError             the request itself is wrong; sending it again will not help
    ├── StateError             the request does not fit what is: not found, taken, already joined
    ├── OperationalError       it may work later or with more room; `retry_after_s` says when
    ├── PeerError              another node broke the protocol or a promise
    └── LocalError             our own bug
"""

from __future__ import annotations

import os
from typing import ClassVar


class SedmadError(Exception):
    """Something went wrong that a person should understand.

    Args:
        what: one line saying what failed.
        why: one line saying why.
        hint: what to try; each class has a default.
        node: name or peer id of the node concerned.
        matrix: name of the matrix concerned.
        retry_after_s: seconds after which the same request may succeed.
    """

    code: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "SEDMAD_ERROR"
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(
        self,
        what: str,
        *,
        why: str = "",
        hint: str | None = None,
        node: str = "",
        matrix: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = self.default_hint if hint is None else hint
        self.node = node
        self.matrix = matrix
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.why, self.hint) if line)


class UsageError(SedmadError):
    code = "INVALID_ARGUMENT"
    reason = "USAGE"
    exit_code = os.EX_DATAERR


class ShapeMismatch(UsageError):
    reason = "SHAPE_MISMATCH"


class UnsupportedDtype(UsageError):
    reason = "UNSUPPORTED_DTYPE"
    default_hint = "Convert it to float16, float32, float64 or int8 first."


class NonFiniteValues(UsageError):
    reason = "NON_FINITE_VALUES"
    default_hint = "Clean the matrix, or store it as it is with --allow-nonfinite."


class MatrixFileInvalid(UsageError):
    reason = "MATRIX_FILE_INVALID"
    default_hint = "Save it again with numpy.save(path, array)."


class MatrixTooLarge(UsageError):
    reason = "MATRIX_TOO_LARGE"


class ConfigurationInvalid(UsageError):
    reason = "CONFIGURATION_INVALID"
    exit_code = os.EX_CONFIG


class TokenInvalid(UsageError):
    reason = "TOKEN_INVALID"
    default_hint = "Ask a member for a new one: sedmad invite"


class StateError(SedmadError):
    code = "FAILED_PRECONDITION"
    reason = "STATE"


class MatrixNotFound(StateError):
    code = "NOT_FOUND"
    reason = "MATRIX_NOT_FOUND"
    exit_code = os.EX_NOINPUT
    default_hint = "List the names in this mesh with: sedmad ls"


class NameTaken(StateError):
    code = "ALREADY_EXISTS"
    reason = "NAME_TAKEN"
    exit_code = os.EX_CANTCREAT
    default_hint = "Choose another name, or store it as a new version with --replace."


class MeshExists(StateError):
    code = "ALREADY_EXISTS"
    reason = "MESH_EXISTS"
    exit_code = os.EX_CANTCREAT
    default_hint = "Use another home: --home DIR or SEDMAD_HOME=DIR."


class MeshMissing(StateError):
    reason = "MESH_MISSING"
    exit_code = os.EX_CONFIG
    default_hint = "Make a mesh with: sedmad init — or join one with: sedmad join TOKEN"


class TokenUsed(StateError):
    reason = "TOKEN_USED"
    exit_code = os.EX_NOPERM
    default_hint = "A token admits one node. Ask a member for a new one: sedmad invite"


class TokenExpired(StateError):
    reason = "TOKEN_EXPIRED"
    exit_code = os.EX_NOPERM
    default_hint = "Ask a member for a new one: sedmad invite --expires 24h"


class HomeInUse(StateError):
    reason = "HOME_IN_USE"
    exit_code = os.EX_UNAVAILABLE
    default_hint = "Stop the other daemon with: sedmad stop — or start this one with another --home."


class StoreUnusable(StateError):
    """The database under a home cannot be opened or used as it is: written by a newer sedmad, or not readable."""

    reason = "STORE_UNUSABLE"
    exit_code = os.EX_CONFIG


class StaleManifest(StateError):
    reason = "STALE_MANIFEST"
    default_hint = "Ask again: the newer manifest is on its way."


class TargetUnreachable(StateError):
    """No plan for the devices that were demanded keeps the target error."""

    reason = "TARGET_UNREACHABLE"
    exit_code = os.EX_UNAVAILABLE
    default_hint = "Allow a larger --target-error, or do not demand a device profile."


class NotPermitted(StateError):
    code = "PERMISSION_DENIED"
    reason = "NOT_PERMITTED"
    exit_code = os.EX_NOPERM


class OperationalError(SedmadError):
    code = "UNAVAILABLE"
    reason = "OPERATIONAL"
    exit_code = os.EX_TEMPFAIL


class InsufficientCapacity(OperationalError):
    code = "RESOURCE_EXHAUSTED"
    reason = "INSUFFICIENT_CAPACITY"
    exit_code = os.EX_UNAVAILABLE
    default_hint = "Pledge more with --memory and --disk, add a node, or remove a matrix."


class NotEnoughPeers(OperationalError):
    code = "RESOURCE_EXHAUSTED"
    reason = "NOT_ENOUGH_PEERS"
    exit_code = os.EX_UNAVAILABLE
    default_hint = "Start more nodes, or store it on fewer with --survive 0."


class Overloaded(OperationalError):
    code = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"
    default_hint = "Try again in a moment, or send fewer requests at once."


class DeadlineExceeded(OperationalError):
    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"
    default_hint = "Allow more time with --deadline."


class HoldersUnreachable(OperationalError):
    reason = "HOLDERS_UNREACHABLE"
    exit_code = os.EX_UNAVAILABLE
    default_hint = "See which nodes are missing with: sedmad inspect NAME and sedmad peers"


class OwnerUnreachable(OperationalError):
    reason = "OWNER_UNREACHABLE"
    exit_code = os.EX_UNAVAILABLE
    default_hint = "Start the owner again; until then the matrix can be read, not changed."


class NodeUnreachable(OperationalError):
    reason = "NODE_UNREACHABLE"
    exit_code = os.EX_UNAVAILABLE
    default_hint = "Check that the node runs and that its address can be reached."


class PortMappingFailed(OperationalError):
    """A gateway makes no port mapping, or takes none back: it refuses, is silent, or there is none."""

    reason = "PORT_MAPPING_FAILED"
    exit_code = os.EX_UNAVAILABLE
    default_hint = "Switch on UPnP or NAT-PMP in the router, or forward the port there by hand."


class PortTaken(PortMappingFailed):
    """The gateway's port is mapped to another host."""

    reason = "PORT_TAKEN"


class RelayRefused(OperationalError):
    """A relay does not give a reservation, or does not carry a circuit to a node."""

    code = "RESOURCE_EXHAUSTED"
    reason = "RELAY_REFUSED"
    exit_code = os.EX_UNAVAILABLE
    default_hint = "Another relay may: any member that others can dial is one."


class DaemonNotRunning(OperationalError):
    reason = "DAEMON_NOT_RUNNING"
    exit_code = os.EX_UNAVAILABLE
    default_hint = "Start it with: sedmad start"


class DiskFull(OperationalError):
    code = "RESOURCE_EXHAUSTED"
    reason = "DISK_FULL"
    exit_code = os.EX_IOERR
    default_hint = "Free some space on that node, or lower what it keeps with --disk."


class PeerError(SedmadError):
    code = "ABORTED"
    reason = "PEER"
    exit_code = os.EX_PROTOCOL


class FrameInvalid(PeerError):
    """A frame that breaks the format or its bounds: the connection is closed, nothing after it is read."""

    reason = "FRAME_INVALID"


class ProtocolViolation(PeerError):
    reason = "PROTOCOL_VIOLATION"


class CertificateInvalid(PeerError):
    code = "UNAUTHENTICATED"
    reason = "CERTIFICATE_INVALID"
    exit_code = os.EX_NOPERM
    default_hint = "A node needs a valid certificate of this mesh: have it invited, and join from a new home."


class BytesCorrupt(PeerError):
    code = "DATA_LOSS"
    reason = "BYTES_CORRUPT"
    exit_code = os.EX_IOERR


class SessionLost(PeerError):
    code = "UNAVAILABLE"
    reason = "SESSION_LOST"
    exit_code = os.EX_TEMPFAIL


class LocalError(SedmadError):
    """A bug of ours, or a use of an interface that its contract forbids."""

    code = "INTERNAL"
    reason = "INTERNAL"
    exit_code = os.EX_SOFTWARE
    default_hint = "This is a bug in sedmad; the daemon's log has the details."


def by_reason() -> dict[str, type[SedmadError]]:
    """Return every error class of the tree by its `reason`, for rebuilding an error that came over the wire."""
    found: dict[str, type[SedmadError]] = {}
    waiting: list[type[SedmadError]] = [SedmadError]
    while waiting:
        error = waiting.pop()
        found[error.reason] = error
        waiting.extend(error.__subclasses__())
    return found


def first_known(group: BaseExceptionGroup[BaseException]) -> SedmadError | None:
    """Return the first typed error in a group, as tasks that ran side by side raise them; None where there is none."""
    for error in group.exceptions:
        if isinstance(error, SedmadError):
            return error
        if isinstance(error, BaseExceptionGroup) and (found := first_known(error)):
            return found
    return None
