"""The mesh as an application sees it, through the daemon on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sedmad.client.connection import Connection, decoded
from sedmad.client.matrix import Matrix
from sedmad.errors import MatrixNotFound, MatrixTooLarge, UsageError
from sedmad.home import Home
from sedmad.wire.calls import ResponseReceived
from sedmad.wire.messages import (
    CreateInvitationRequest,
    CreateInvitationResponse,
    DrainNodeRequest,
    DrainNodeResponse,
    GetStatusRequest,
    GetStatusResponse,
    InspectMatrixRequest,
    InspectMatrixResponse,
    ListMatricesRequest,
    ListMatricesResponse,
    ListPeersRequest,
    ListPeersResponse,
    MatrixSummary,
    PeerSummary,
    PutMatrixRequest,
    PutMatrixResponse,
    RemoveMatrixRequest,
    RemoveMatrixResponse,
    StopNodeRequest,
    StopNodeResponse,
    VerifyMeshRequest,
    VerifyMeshResponse,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from sedmad.client.upload import Progress

# Removing tells every holder, some of which may be dead and take their time-outs.
REMOVE_TIMEOUT_S = 60.0
# A manifest may have to be fetched from guardians, the first of which may be dead.
INSPECT_TIMEOUT_S = 30.0
# Names have at most 128 bytes, and `name@author` not many more: what is longer need not travel to be refused.
NAME_BYTES_MAX = 512
SURVIVE_MAX = 2**32 - 1
# A scale travels with the request: what is longer need not, to be refused.
SCALE_BYTES_MAX = 4 << 17


def connect(home: str | os.PathLike[str] | None = None) -> Mesh:
    """Connect with the daemon of this machine.

    Args:
        home: the daemon's home; $SEDMAD_HOME or the user's own by default.

    Raises:
        DaemonNotRunning: no daemon answers there.
        ConfigurationInvalid: the home's path is too long for a socket.
    """
    located = Home.locate(None if home is None else os.fspath(home), os.environ)
    return Mesh(Connection(located.control_socket))


class Mesh:
    """The matrices and nodes of a mesh. Any number of threads may use one; `with` closes it.

    Every method raises DaemonNotRunning, SessionLost and DeadlineExceeded where the daemon is gone or does not answer
    in time, besides what it names itself.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def put(
        self,
        name: str,
        array_or_path: npt.ArrayLike | str | os.PathLike[str],
        *,
        survive: int = 1,
        replace: bool = False,
        allow_nonfinite: bool = False,
        scale: npt.ArrayLike | str | os.PathLike[str] | None = None,
        target_error: float = 0.0,
        profile: str = "",
        progress: Progress | None = None,
    ) -> Matrix:
        """Store a matrix, and return it when it is safe. The same content under the same name is a success.

        Args:
            name: at most 128 bytes.
            array_or_path: (rows, columns) float16, float32, float64 or int8, or the path of a `.npy` file with it. It
                is streamed; big-endian values and Fortran order are converted on the way.
            survive: how many nodes may be lost at once without losing the matrix.
            replace: store it as a new version where the name is taken.
            allow_nonfinite: take NaN and infinities as they are.
            scale: for int8 of at most 131,072 rows, a factor for each row, (rows,) or the path of a `.npy` file with
                them, taken as float32. Products are those of the scaled matrix; `get` returns the int8 values.
            target_error: the relative L2 error that products may have on average, below 1. Nodes with simulated
                crossbars then compute on them; 0 asks for exact arithmetic everywhere.
            profile: the device profile to compute on, where there is a target; any that meets it by default.
            progress: told how far it is, on this thread.

        Raises:
            ShapeMismatch, UnsupportedDtype, MatrixFileInvalid: it is no matrix that can be stored.
            NameTaken: another matrix has the name.
            InsufficientCapacity, NotEnoughPeers: the mesh cannot hold it; no byte was sent.
            NonFiniteValues: it holds NaN or infinities.
            UsageError: the target is no relative error, or nobody has devices of that profile.
            TargetUnreachable: no plan keeps the target on the profile that was demanded.
        """
        response = self.upload(
            name,
            array_or_path,
            survive=survive,
            replace=replace,
            allow_nonfinite=allow_nonfinite,
            scale=scale,
            target_error=target_error,
            profile=profile,
            progress=progress,
        )
        return Matrix(self._connection, response.matrix)

    def upload(
        self,
        name: str,
        array_or_path: npt.ArrayLike | str | os.PathLike[str],
        *,
        survive: int = 1,
        replace: bool = False,
        allow_nonfinite: bool = False,
        scale: npt.ArrayLike | str | os.PathLike[str] | None = None,
        target_error: float = 0.0,
        profile: str = "",
        progress: Progress | None = None,
    ) -> PutMatrixResponse:
        """Do what `put` does, and return the daemon's whole answer."""
        from sedmad.client.source import MatrixSource, scale_bytes
        from sedmad.client.upload import Upload

        if not 0 <= survive <= SURVIVE_MAX:
            raise UsageError(f"survive is a number of nodes, not {survive}", matrix=name)
        request = PutMatrixRequest(
            name=checked_name(name),
            survive=survive,
            replace=replace,
            allow_nonfinite=allow_nonfinite,
            target_error=target_error,
            profile=profile,
        )
        source = MatrixSource(array_or_path)
        if scale is not None:
            request.scale = scale_bytes(scale, source.shape[0])
            if len(request.scale) > SCALE_BYTES_MAX:
                raise MatrixTooLarge(
                    "the scale is too long", why="a matrix with a scale has at most 131,072 rows", matrix=name
                )
        return Upload(source, request, progress).run(self._connection)

    def __getitem__(self, name: str) -> Matrix:
        """Return the matrix of that name.

        Raises:
            MatrixNotFound: there is none.
        """
        return Matrix(self._connection, self.inspect(name).matrix)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        try:
            self.inspect(name)
        except MatrixNotFound:
            return False
        return True

    def inspect(self, name: str) -> InspectMatrixResponse:
        """Return where a matrix lies, partition by partition.

        Raises:
            MatrixNotFound: there is none of that name.
        """
        return self._connection.call(
            "MatrixService/InspectMatrix",
            InspectMatrixRequest(name=checked_name(name)),
            InspectMatrixResponse,
            timeout_s=INSPECT_TIMEOUT_S,
            matrix=name,
        )

    def matrices(self) -> list[Matrix]:
        """Return every matrix of the mesh, in the order of names."""
        return [Matrix(self._connection, summary) for summary in self.summaries()]

    def summaries(self) -> Sequence[MatrixSummary]:
        """Return what the daemon tells of every matrix, in the order of names."""
        return self._pages("")

    def _pages(self, page_token: str) -> list[MatrixSummary]:
        """Return the list of matrices from a page on."""
        found: list[MatrixSummary] = []
        while True:
            request = ListMatricesRequest(page_token=page_token)
            page = self._connection.call("MatrixService/ListMatrices", request, ListMatricesResponse)
            found += page.matrices
            page_token = page.next_page_token
            if not page_token:
                return found

    def status(self) -> GetStatusResponse:
        """Return what this machine's node tells of itself, its peers and its matrices."""
        status = self._connection.call("NodeService/GetStatus", GetStatusRequest(), GetStatusResponse)
        if status.next_page_token:
            status.matrices.extend(self._pages(status.next_page_token))
        return status

    def peers(self) -> Sequence[PeerSummary]:
        """Return every other member of the mesh that is known, the dead of late among them."""
        return self._connection.call("NodeService/ListPeers", ListPeersRequest(), ListPeersResponse).peers

    def remove(self, name: str) -> RemoveMatrixResponse:
        """Remove a name, and free its bytes on all nodes that can be told now.

        Raises:
            MatrixNotFound: there is none of that name.
        """
        return self._connection.call(
            "MatrixService/RemoveMatrix",
            RemoveMatrixRequest(name=checked_name(name)),
            RemoveMatrixResponse,
            timeout_s=REMOVE_TIMEOUT_S,
            matrix=name,
            idempotent=False,
        )

    def verify(
        self, *, quick: bool = False, progress: Callable[[int, int], object] | None = None
    ) -> VerifyMeshResponse:
        """Have every node that answers check its store, and every matrix checked against what they found.

        Args:
            quick: compare what should be there with the files, without reading these.
            progress: told the bytes that are checked and how many there are, on this thread.

        Returns:
            What each node found, and the matrices that lack copies.
        """
        found = VerifyMeshResponse()
        with self._connection.open("VerifyingService/VerifyMesh", VerifyMeshRequest(quick=quick)) as call:
            event = None
            while not isinstance(event, ResponseReceived):
                event = call.receive()
                # The numbers of the newest message; of nodes and matrices, all.
                found.MergeFrom(decoded(event.message, VerifyMeshResponse))
                if progress is not None:
                    progress(found.checked_bytes, found.total_bytes)
        return found

    def drain(self, node: str = "", *, cancel: bool = False) -> Iterator[DrainNodeResponse]:
        """Have a node leave in good order, and yield what it still has until that is nothing.

        It goes on if the caller stops listening.

        Args:
            node: name, or beginning of the peer id; the daemon's own by default.
            cancel: have it stay after all; yields once.

        Raises:
            UsageError: no node, or several, are called so.
            NodeUnreachable: it does not answer.
        """
        request = DrainNodeRequest(node=node, cancel=cancel)
        with self._connection.open("DrainingService/DrainNode", request) as call:
            event = None
            while not isinstance(event, ResponseReceived):
                event = call.receive()
                yield decoded(event.message, DrainNodeResponse)

    def invite(self, expires_s: int = 24 * 3600) -> CreateInvitationResponse:
        """Return a token that admits one node within `expires_s` seconds.

        Raises:
            NotPermitted: this node may not invite.
        """
        request = CreateInvitationRequest(expires_s=expires_s)
        return self._connection.call(
            "NodeService/CreateInvitation", request, CreateInvitationResponse, idempotent=False
        )

    def stop_node(self) -> None:
        """Have the daemon stop; it has agreed when this returns, and ends on its own."""
        self._connection.call("NodeService/StopNode", StopNodeRequest(), StopNodeResponse, idempotent=False)


def checked_name(name: str) -> str:
    """Return a name that can be asked for.

    Raises:
        UsageError: no matrix can have it.
    """
    if not isinstance(name, str):
        raise UsageError("the name of a matrix is not text", why=f"it is {type(name).__name__}")
    try:
        length = len(name.encode())
    except UnicodeEncodeError as error:
        raise UsageError("the name of a matrix is not text", why=str(error)) from error
    if not 0 < length <= NAME_BYTES_MAX:
        raise UsageError(f"the name of a matrix has {length} bytes", why="1 to 128 are allowed")
    return name
