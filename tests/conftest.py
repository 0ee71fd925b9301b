"""What holds for all tests."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# Machines are shared and noisy: an example that takes long says nothing about the code.
settings.register_profile("sedmad", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sedmad")

# A shell that starts the tests in the background has them ignore Ctrl-C, and their children with them; some press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
