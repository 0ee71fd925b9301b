"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Machines are shared and noisy: an example that takes long says nothing about the code.
settings.register_profile("sedmad", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sedmad")
