"""What is known of the devices of a crossbar: profiles, the laws in them, and where named ones are found."""

from __future__ import annotations

from crossbar.devices.catalogue import IDEAL, load, profile, profiles
from crossbar.devices.profile import DeviceProfile

__all__ = ["IDEAL", "DeviceProfile", "load", "profile", "profiles"]
