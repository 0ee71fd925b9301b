"""Tokens that admit one node each, known here by the hash of their secret. Write these durably."""

from __future__ import annotations

import sqlite3

from sedmad.errors import Overloaded, TokenExpired, TokenInvalid, TokenUsed

# More than anybody invites at once; it stops a script that invites in a loop.
MAX_OPEN = 1024
# Used and expired ones are kept to answer with the right error; past this the oldest answer TokenInvalid.
MAX_CLOSED = 4096
CLOSED_LIFE_S = 7 * 86_400.0

_IS_OPEN = "used_by IS NULL AND expires_s > :now_s"


def add(connection: sqlite3.Connection, secret_hash: bytes, expires_s: float, now_s: float) -> None:
    """Open an invitation until `expires_s` (Unix seconds). Raises Overloaded at MAX_OPEN."""
    purge(connection, now_s)
    (count,) = connection.execute(
        f"SELECT count(*) FROM invitation WHERE {_IS_OPEN}",  # noqa: S608 - our own condition
        {"now_s": now_s},
    ).fetchone()
    if count >= MAX_OPEN:
        raise Overloaded(
            "Too many invitations are open",
            why=f"{count:,} are neither used nor expired, the most allowed.",
            hint="Use them, or wait until they expire.",
        )
    connection.execute(
        "INSERT INTO invitation (secret_hash, expires_s) VALUES (?, ?)", (secret_hash, expires_s)
    )


def use(connection: sqlite3.Connection, secret_hash: bytes, peer_id: str, now_s: float) -> None:
    """Mark an invitation used by `peer_id`; once this is committed, the peer may be admitted.

    The same peer may come again, also late: the answer to its first use may have been lost. Raises
    TokenInvalid (unknown), TokenUsed (by another peer), TokenExpired.
    """
    row = connection.execute(
        "SELECT expires_s, used_by FROM invitation WHERE secret_hash = ?", (secret_hash,)
    ).fetchone()
    if row is None:
        raise TokenInvalid("The token is not known here", why="It is mistyped, another node's, or old.")
    expires_s, used_by = row
    if used_by == peer_id:
        return
    if used_by is not None:
        raise TokenUsed("The token was used before", why="Another node has joined with it.")
    if expires_s <= now_s:
        raise TokenExpired("The token has expired", why=f"It ended {now_s - expires_s:,.0f} s ago.")
    connection.execute(
        "UPDATE invitation SET used_by = ?, used_s = ? WHERE secret_hash = ?", (peer_id, now_s, secret_hash)
    )


def purge(connection: sqlite3.Connection, now_s: float) -> None:
    """Forget invitations that ended CLOSED_LIFE_S ago, and the oldest closed ones beyond MAX_CLOSED."""
    connection.execute("DELETE FROM invitation WHERE expires_s < ?", (now_s - CLOSED_LIFE_S,))
    connection.execute(
        "DELETE FROM invitation WHERE secret_hash IN"  # noqa: S608 - our own condition
        f" (SELECT secret_hash FROM invitation WHERE NOT ({_IS_OPEN})"
        " ORDER BY coalesce(used_s, expires_s) DESC LIMIT -1 OFFSET :most)",
        {"now_s": now_s, "most": MAX_CLOSED},
    )
