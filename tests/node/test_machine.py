from __future__ import annotations

from pathlib import Path

import pytest

from sedmad.errors import ConfigurationInvalid
from sedmad.node.machine import disk_free_bytes, memory_free_bytes, memory_total_bytes, pledge_bytes


@pytest.mark.parametrize(
    ("text", "expected"), [("25%", 250), ("100%", 1000), ("0%", 0), ("512", 512), ("1kB", 1000)]
)
def test_a_pledge_is_an_amount_or_a_share(text: str, expected: int) -> None:
    assert pledge_bytes("memory", text, 1000) == expected


@pytest.mark.parametrize("text", ["1001", "2GiB", "101%", "-1", "much", "", "10 %%"])
def test_what_is_not_there_cannot_be_pledged(text: str) -> None:
    with pytest.raises(ConfigurationInvalid, match="memory"):
        pledge_bytes("memory", text, 1000)


def test_the_machine_has_memory_and_disk(tmp_path: Path) -> None:
    assert 0 < memory_free_bytes() <= memory_total_bytes()
    assert disk_free_bytes(tmp_path) > 0
