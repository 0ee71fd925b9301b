from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sedmad.wire.matrix_digest import matrix_digest

numbers = st.integers(0, 2**64 - 1)
digests = st.lists(st.binary(min_size=32, max_size=32), max_size=4)
scales = st.binary(max_size=12)


@st.composite
def contents(draw: st.DrawFn) -> tuple[int, int, int, int, list[bytes], bytes]:
    partitions = draw(digests)
    # As with matrices, the shape says how many partitions there are.
    return draw(numbers), len(partitions), draw(numbers), draw(numbers), partitions, draw(scales)


@given(contents(), contents())
def test_equal_digests_mean_equal_content(
    one: tuple[int, int, int, int, list[bytes], bytes], other: tuple[int, int, int, int, list[bytes], bytes]
) -> None:
    assert (matrix_digest(*one) == matrix_digest(*other)) == (one == other)


def test_the_digest_is_part_of_the_contract() -> None:
    digest = matrix_digest(1, 3, 2, 64, [bytes(32)])
    assert digest.hex() == "c6a1c158fb26518f5fe42689204e39a597f386d9b539770ebb5a365b7548fc2a"
