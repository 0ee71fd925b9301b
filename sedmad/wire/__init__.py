"""Bytes to messages and back: frames, calls, credit, re-sending. No sockets, clocks or threads in this room.

frame.py      one frame as bytes
calls.py      many calls over one connection, with credit
events.py     what a frame that arrived means for them
outbox.py     what leaves first: probes, then products, then bulk
resend.py     a session above connections: numbering, acknowledging, sending again
pacing.py     how much bulk may be under way, so that it never delays the rest
methods.py    the services of the contract as tables
status.py     errors as they travel
"""
