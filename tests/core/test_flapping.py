from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sedmad.core import flapping
from sedmad.core.flapping import LossTable, repair_delay_s


def test_the_delay_doubles_with_each_death_up_to_a_bound() -> None:
    assert [repair_delay_s(deaths) for deaths in range(1, 9)] == [5, 10, 20, 40, 80, 160, 300, 300]


def test_a_dead_node_is_lost_after_the_delay_and_back_when_it_lives() -> None:
    table = LossTable()
    table.observe({"ben", "cyd"}, (), 0.0)
    table.observe({"cyd"}, {"ben"}, 10.0)
    table.observe({"cyd"}, {"ben"}, 12.0)
    assert not table.lost(14.9)
    assert table.next_loss_s(14.9) == 15.0
    assert table.lost(15.0) == {"ben"}
    assert table.next_loss_s(15.0) is None
    table.observe({"ben", "cyd"}, (), 16.0)
    assert not table.lost(1000.0)


def test_a_node_that_dies_often_is_waited_for_longer_until_that_is_long_ago() -> None:
    table = LossTable()
    for death_s in (0.0, 100.0, 200.0):
        table.observe({"ben"}, (), death_s)
        table.observe((), {"ben"}, death_s)
    assert table.next_loss_s(200.0) == 220.0
    table.observe({"ben"}, (), 900.0)
    table.observe((), {"ben"}, 900.0)
    assert table.next_loss_s(900.0) == 905.0


def test_a_node_that_was_not_there_yet_is_given_time_to_start() -> None:
    table = LossTable()
    table.observe((), {"ben"}, 0.0)
    assert table.next_loss_s(0.0) == 60.0


@given(
    deaths=st.lists(
        st.tuples(st.integers(0, 9), st.booleans(), st.floats(0, 100)),
        min_size=flapping.DEATHS_MAX,
        max_size=60,
    )
)
def test_the_next_loss_is_always_within_the_longest_delay(deaths: list[tuple[int, bool, float]]) -> None:
    table, now = LossTable(), 0.0
    dead: set[str] = set()
    for peer, dies, passed_s in deaths:
        now += passed_s
        dead = dead | {str(peer)} if dies else dead - {str(peer)}
        table.observe({str(peer) for peer in range(10)} - dead, dead, now)
        lost, next_s = table.lost(now), table.next_loss_s(now)
        assert lost <= dead
        assert next_s is None or now < next_s <= now + flapping.REPAIR_DELAY_MAX_S
        assert (next_s is None) == (lost == dead)


def test_the_table_is_bounded() -> None:
    table = LossTable()
    table.observe((), {str(peer) for peer in range(flapping.PEERS_MAX + 10)}, 0.0)
    assert len(table.lost(1000.0)) == flapping.PEERS_MAX
