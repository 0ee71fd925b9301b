from __future__ import annotations

import pytest

from crossbar.engine import engine_for
from crossbar.profile import IDEAL, DeviceProfile, profile_named


def test_a_profile_is_found_by_its_name() -> None:
    assert profile_named("ideal") is IDEAL


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'rram'.*ideal"):
        profile_named("rram")


def test_no_engine_pretends_to_model_other_devices() -> None:
    with pytest.raises(ValueError, match="rram"):
        engine_for(DeviceProfile(name="rram"))
