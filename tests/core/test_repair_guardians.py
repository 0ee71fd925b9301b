from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sedmad.core.guarding import renew_guardians
from sedmad.core.offers import Offer
from sedmad.core.prediction import PeerState

NAMES = "abcdefgh"


def renew(guardians: str, nodes: str, *, lost: str = "", leaving: str = "", zones: str = "") -> str:
    """Return the guardians of a's matrix among living nodes, the nearest first."""
    offers = [
        Offer(
            node,
            0,
            0,
            1.0,
            1e9,
            rtt_s=place / 1000,
            labels={"zone": zone} if zone.strip() else {},
            draining=node in leaving,
        )
        for place, (node, zone) in enumerate(zip(nodes, zones.ljust(len(nodes)), strict=True))
    ]
    states: dict[str, PeerState] = dict.fromkeys(nodes, "alive")
    renewed = renew_guardians(
        tuple(guardians), owner="a", states=states, lost=set(lost), leaving=set(leaving), offers=offers
    )
    return "".join(renewed)


def test_those_who_stand_stay() -> None:
    assert renew("acb", "abcd") == "acb"


def test_a_lost_guardian_has_its_place_taken_by_the_nearest() -> None:
    assert renew("abc", "abde", lost="c") == "abd"


def test_the_place_is_taken_in_another_zone_where_there_is_one() -> None:
    assert renew("abc", "abde", lost="c", zones="xyxz") == "abe"


def test_one_of_three_or_five_is_kept_where_nobody_can_take_the_place() -> None:
    assert renew("abc", "ab", lost="c") == "abc"
    assert renew("abcde", "abcd", lost="e") == "abcde"


def test_three_outlive_one_more_loss_where_five_of_whom_three_stand_outlive_none() -> None:
    assert renew("abcde", "abc", lost="de") == "abc"


def test_a_mesh_that_grows_has_more_guardians() -> None:
    assert renew("a", "ab") == "a"
    assert renew("a", "abc") == "abc"
    assert renew("abc", "abcd") == "abc"
    assert renew("abc", "abcde") == "abcde"


def test_who_leaves_is_let_go_even_where_nobody_takes_the_place() -> None:
    assert renew("abc", "abcd", leaving="b") == "acd"
    assert renew("abc", "abc", leaving="b") == "a"


def test_an_owner_that_leaves_guards_until_it_hands_its_matrix_over() -> None:
    assert renew("abc", "abc", leaving="a") == "abc"


@given(
    guardians=st.sampled_from((0, 2, 4)).flatmap(
        lambda count: st.permutations(NAMES[1:]).map(lambda names: "a" + "".join(names[:count]))
    ),
    nodes=st.sets(st.sampled_from(NAMES[1:])),
    lost=st.sets(st.sampled_from(NAMES[1:])),
    leaving=st.sets(st.sampled_from(NAMES)),
)
def test_the_set_is_odd_outlives_no_less_and_is_settled_at_once(
    guardians: str, nodes: set[str], lost: set[str], leaving: set[str]
) -> None:
    def standing(group: str) -> int:
        outlived = len(set(group) - lost - (leaving - {"a"}))
        return outlived - (len(group) // 2 + 1)

    living = "a" + "".join(sorted(nodes - lost))
    words = {"lost": "".join(lost), "leaving": "".join(leaving)}
    renewed = renew(guardians, living, **words)
    assert len(set(renewed)) == len(renewed)
    assert len(renewed) in (1, 3, 5)
    assert renewed[0] == "a"
    assert standing(renewed) >= standing(guardians)
    assert set(renewed) <= set(living) | set(guardians)
    assert renew(renewed, living, **words) == renewed
