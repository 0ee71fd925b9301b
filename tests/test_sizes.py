from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.errors import UsageError
from sedmad.sizes import GIB, KIB, MIB, TIB, format_bytes, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("2GiB", 2 * GIB),
        ("512mib", 512 * MIB),
        (" 1.5 KiB ", 1536),
        ("1TB", 10**12),
        ("1.5GB", 1_500_000_000),
        ("0", 0),
        ("4096", 4096),
        ("7B", 7),
        ("0.0001KiB", 0),
    ],
)
def test_sizes_are_read(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


def test_a_percentage_is_of_a_given_total() -> None:
    assert parse_size("80%", total_bytes=1000) == 800
    assert parse_size("12.5 %", total_bytes=100) == 12
    with pytest.raises(UsageError, match="percentage of nothing"):
        parse_size("80%")
    with pytest.raises(UsageError, match="more than 100 %"):
        parse_size("100.1%", total_bytes=1000)


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1GiB", "nan", "inf", "1e3", "2 GiB GiB", "0x10", "٣GiB", "2000PiB"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


def test_an_ambiguous_unit_is_answered_with_a_proposal() -> None:
    with pytest.raises(UsageError, match="Write 2GiB"):
        parse_size("2G")


def test_more_than_any_disk_is_refused() -> None:
    with pytest.raises(UsageError, match="1024 PiB"):
        parse_size("99999999999TiB")


@given(st.text(max_size=30))
def test_any_text_is_a_size_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_size(text, total_bytes=TIB) >= 0


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (KIB, "1.0 KiB"),
        (8 * MIB, "8.0 MiB"),
        (MIB - 1, "1.0 MiB"),
        (5000 * TIB, "5000.0 TiB"),
    ],
)
def test_sizes_are_written(size_bytes: int, text: str) -> None:
    assert format_bytes(size_bytes) == text


@given(st.integers(0, 1 << 50))
def test_what_is_written_reads_back_within_its_precision(size_bytes: int) -> None:
    read = parse_size(format_bytes(size_bytes))
    assert abs(read - size_bytes) <= 0.051 * max(size_bytes, 1)
