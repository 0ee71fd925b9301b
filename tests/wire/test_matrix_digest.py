from __future__ import annotations

from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from sedmad.wire.matrix_digest import matrix_digest

numbers = st.integers(0, 2**64 - 1)
digests = st.lists(st.binary(min_size=32, max_size=32), max_size=4)
scales = st.binary(max_size=12)
targets = st.floats(0, 1, exclude_max=True).map(abs)  # 0.0 == -0.0
profiles = st.text(max_size=4)

Content: TypeAlias = tuple[int, int, int, int, list[bytes], bytes, float, str]


@st.composite
def contents(draw: st.DrawFn) -> Content:
    partitions = draw(digests)
    # As with matrices, the shape says how many partitions there are; without a target no profile is demanded.
    shape = draw(numbers), len(partitions), draw(numbers), draw(numbers)
    target = draw(targets)
    return *shape, partitions, draw(scales), target, draw(profiles) if target else ""


@given(contents(), contents())
def test_equal_digests_mean_equal_content(one: Content, other: Content) -> None:
    assert (matrix_digest(*one) == matrix_digest(*other)) == (one == other)


def test_the_digest_is_part_of_the_contract() -> None:
    digest = matrix_digest(1, 3, 2, 64, [bytes(32)])
    assert digest.hex() == "c6a1c158fb26518f5fe42689204e39a597f386d9b539770ebb5a365b7548fc2a"


def test_what_is_asked_of_products_is_part_of_the_name() -> None:
    shape = (1, 3, 2, 64, [bytes(32)], b"")
    asked = [(), (0.05,), (0.01,), (0.05, "milo2021"), (0.05, "wan2022")]
    assert len({matrix_digest(*shape, *accuracy) for accuracy in asked}) == len(asked)
