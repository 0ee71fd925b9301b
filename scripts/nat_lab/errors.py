"""What the lab raises."""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot be built or used; the message says why and what would help."""
