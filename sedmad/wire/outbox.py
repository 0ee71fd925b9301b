"""What leaves first: probes and credit, then products, then bulk; first in, first out within each.

The writer takes one frame at a time, so a probe waits for at most the frame being written. Where the path is slow the
writer takes chunks of bulk in several frames.
"""

from __future__ import annotations

from collections import deque

from sedmad.wire.frame import PAYLOAD_BYTES_MAX, Frame, Priority
from sedmad.wire.messages import FrameHeader, FrameKind

# A frame's cost beside its payload: the header as built, its objects.
FRAME_OVERHEAD_BYTES = 256

# Beyond these the sender waits. Probes are small and must never wait, so the bound is one that only a peer
# that stopped reading can reach. Credit is bounded by the payload that it is given for. A product's panel is
# 8 MiB; two may queue. Bulk needs only what keeps the writer busy.
QUEUED_BYTES_MAX = {
    Priority.PROBE: 4 << 20,
    Priority.CREDIT: 4 << 20,
    Priority.PRODUCT: 16 << 20,
    Priority.BULK: 2 << 20,
}

# Where a receiver can tell from the offset that the rest follows.
DIVISIBLE_KINDS = (FrameKind.FRAME_KIND_REQUEST_DATA, FrameKind.FRAME_KIND_RESPONSE_DATA)


class Outbox:
    """Frames that wait for the writer."""

    def __init__(self) -> None:
        self._queues: dict[Priority, deque[Frame]] = {priority: deque() for priority in Priority}
        self._queued_bytes = dict.fromkeys(Priority, 0)

    def put(self, frame: Frame) -> None:
        """Queue a frame, and note in it what it costs."""
        frame.size_bytes = len(frame.payload) + len(frame.header.message) + FRAME_OVERHEAD_BYTES
        self._queues[frame.priority].append(frame)
        self._queued_bytes[frame.priority] += frame.size_bytes

    def has_room(self, priority: Priority) -> bool:
        """Whether a sender may queue one more frame now; the frame may then exceed the bound by itself."""
        return self._queued_bytes[priority] < QUEUED_BYTES_MAX[priority]

    def take(
        self, allowed: Priority = Priority.BULK, bulk_payload_bytes_max: int = PAYLOAD_BYTES_MAX
    ) -> Frame | None:
        """Return the next frame of the priorities up to `allowed`, or None.

        A chunk of bulk that is longer than it may be leaves in several frames, the last of them with the digest of
        all; others may go in between.
        """
        for priority, queue in self._queues.items():
            if queue and priority <= allowed:
                frame = queue[0]
                if (
                    priority is Priority.BULK
                    and len(frame.payload) > bulk_payload_bytes_max
                    and frame.header.kind in DIVISIBLE_KINDS
                ):
                    frame = _cut(frame, bulk_payload_bytes_max)
                    self._queued_bytes[priority] -= frame.size_bytes - FRAME_OVERHEAD_BYTES
                else:
                    queue.popleft()
                    self._queued_bytes[priority] -= frame.size_bytes
                return frame
        return None

    def clear(self) -> None:
        """Forget every frame."""
        for priority, queue in self._queues.items():
            queue.clear()
            self._queued_bytes[priority] = 0

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))


def _cut(frame: Frame, payload_bytes: int) -> Frame:
    """Return the beginning of a frame as one of its own; the frame keeps the rest."""
    header, payload = frame.header, memoryview(frame.payload)
    first = FrameHeader(
        kind=header.kind, call_id=header.call_id, message=header.message, offset=header.offset
    )
    size_bytes = payload_bytes + len(first.message)
    header.message = b""
    header.offset += payload_bytes
    frame.payload = payload[payload_bytes:]
    frame.size_bytes -= size_bytes
    return Frame(
        first, payload[:payload_bytes], priority=frame.priority, size_bytes=size_bytes + FRAME_OVERHEAD_BYTES
    )
