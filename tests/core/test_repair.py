from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from sedmad.core.offers import Offer
from sedmad.core.partitioning import Partitioning
from sedmad.core.prediction import PeerState
from sedmad.core.repair import Layout, RepairPlan, plan_repair
from sedmad.sizes import GIB, MIB

PART = 8 * MIB


def offer(peer_id: str, memory: int = GIB, disk: int = 4 * GIB, **values: object) -> Offer:
    speeds = {"gflops": 80.0, "memory_bandwidth_bytes_per_s": 10e9, "rtt_s": 0.001}
    return Offer(
        peer_id=peer_id,
        memory_available_bytes=memory,
        disk_available_bytes=disk,
        **{"link_bandwidth_bytes_per_s": 50e6, **speeds, **values},  # type: ignore[arg-type]
    )


def layout(*copies: str, survive: int = 1, guardians: str = "a") -> Layout:
    """Return a matrix of partitions of 8 MiB; "Ab" is resident on a, standby on b; a is the owner."""
    return Layout(
        matrix_id=b"matrix",
        partitioning=Partitioning(512 * len(copies), 4096, 4),
        survive=survive,
        owner="a",
        guardians=tuple(guardians),
        copies=tuple({letter.lower(): letter.isupper() for letter in partition} for partition in copies),
    )


def shown(plan: RepairPlan | Layout) -> list[str]:
    """Return the partitions' copies as `layout` takes them, sorted."""
    copies = plan.copies.values() if isinstance(plan, RepairPlan) else plan.copies
    return [
        "".join(sorted(peer.upper() if resident else peer for peer, resident in partition.items()))
        for partition in copies
    ]


@dataclass
class Mesh:
    """Nodes that take what plans say, and check each step."""

    layout: Layout
    offers: dict[str, Offer]
    states: dict[str, PeerState]
    lost: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()

    def plan(self, **options: object) -> RepairPlan:
        return plan_repair(
            self.layout,
            self.states,
            offers=list(self.offers.values()),
            lost=self.lost,
            leaving=self.leaving,
            **options,  # type: ignore[arg-type]
        )

    def living(self, copies: Mapping[str, bool]) -> set[str]:
        return {peer for peer in copies if self.states.get(peer) == "alive"}

    def step(self, plan: RepairPlan) -> None:
        """Do what a plan says, and assert what must hold of it."""
        before = self.layout
        for copy in plan.new_copies:
            held = before.copies[copy.partition]
            assert set(copy.sources) <= self.living(held)
            if copy.sources:
                assert copy.target not in held
            else:
                assert held[copy.target] is False
                assert copy.resident
            assert not self.offers[copy.target].draining
            assert copy.target not in self.lost | self.leaving
        for peer, need in plan.needs().items():
            mine = self.offers[peer]
            assert need.memory_bytes <= mine.memory_available_bytes
            assert need.disk_bytes <= mine.disk_available_bytes
            self.offers[peer] = replace(
                mine,
                memory_available_bytes=mine.memory_available_bytes - need.memory_bytes,
                disk_available_bytes=mine.disk_available_bytes - need.disk_bytes,
            )
        self.layout = plan.apply(before)
        made = {(copy.partition, copy.target) for copy in plan.new_copies}
        for index, (was, now) in enumerate(zip(before.copies, self.layout.copies, strict=True)):
            assert {(index, peer) for peer in now.keys() - was.keys()} <= made
            assert {(index, peer) for peer in now if now[peer] and not was.get(peer)} <= made
            wanted = min(self.layout.survive + 1, len(self.living(was)))
            assert len(self.living(now)) >= wanted
            assert sum(now.values()) <= max(1, sum(was.values()))
            assert list(now.values()) == sorted(now.values(), reverse=True) or now == was
            for peer, resident in was.items():
                if peer not in now:
                    self.free(peer, self.layout.partitioning.size_bytes(index), resident)

    def free(self, peer: str, size_bytes: int, resident: bool) -> None:
        if peer in self.offers:
            mine = self.offers[peer]
            self.offers[peer] = replace(
                mine,
                memory_available_bytes=mine.memory_available_bytes + size_bytes * resident,
                disk_available_bytes=mine.disk_available_bytes + size_bytes,
            )

    def repair(self, **options: object) -> list[RepairPlan]:
        """Plan and do until nothing is left; return the steps."""
        plans = []
        while not (plan := self.plan(**options)).is_empty:
            self.step(plan)
            plans.append(plan)
            assert len(plans) <= 4 * len(self.layout.copies) + 4
        return plans


def mesh(
    matrix: Layout, nodes: str, *, dead: str = "", lost: str = "", leaving: str = "", **values: Offer
) -> Mesh:
    """Return living nodes, with roomy offers unless given otherwise; `lost` are dead as well."""
    states: dict[str, PeerState] = dict.fromkeys(nodes, "alive")
    states |= dict.fromkeys(dead + lost, "dead")
    offers = {
        node: values.get(node, offer(node, draining=node in leaving)) for node in nodes if node not in dead
    }
    return Mesh(matrix, offers, states, frozenset(lost), frozenset(leaving))


def test_what_is_whole_needs_nothing() -> None:
    assert mesh(layout("Ab", "Bc", guardians="abc"), "abc").plan().is_empty


def test_a_dead_node_is_waited_for_until_it_is_given_up() -> None:
    assert mesh(layout("Ab"), "ac", dead="b").plan().is_empty


def test_a_lost_standby_copy_is_made_again_from_the_one_that_lives() -> None:
    nodes = mesh(layout("Ab"), "ac", lost="b")
    (plan,) = nodes.repair()
    (copy,) = plan.new_copies
    assert (copy.target, copy.resident, copy.sources) == ("c", False, ("a",))
    assert shown(nodes.layout) == ["Ac"]


def test_a_lost_resident_copy_has_its_standby_programmed_and_a_standby_made() -> None:
    nodes = mesh(layout("Ab"), "bc", lost="a")
    (plan,) = nodes.repair()
    assert [(copy.target, copy.resident, bool(copy.sources)) for copy in plan.new_copies] == [
        ("b", True, False),
        ("c", False, True),
    ]
    assert plan.copied_bytes == PART
    assert shown(nodes.layout) == ["Bc"]


def test_what_products_wait_for_becomes_resident_before_a_byte_travels() -> None:
    nodes = mesh(layout("Ab", "Ac", "Ab"), "bcd", lost="a")
    first, *_, last = nodes.repair(wanted={1, 2})
    assert first.copied_bytes == 0
    assert {copy.partition for copy in first.new_copies} == {1, 2}
    assert last.copied_bytes > 0
    assert all(sum(copies.values()) == 1 and "a" not in copies for copies in nodes.layout.copies)


def test_partitions_with_the_fewest_living_copies_come_first() -> None:
    nodes = mesh(layout("Abc", "Bac", "Cdb", survive=2), "abe", lost="cd")
    plan = nodes.plan(step_partitions=1)
    assert list(plan.copies) == [2]


def test_copies_go_to_other_zones_where_there_are_any() -> None:
    matrix = layout("Ab")
    places = {"a": "attic", "c": "attic", "d": "cellar"}
    nodes = mesh(
        matrix,
        "acd",
        lost="b",
        **{
            node: offer(node, disk=100 * PART if node == "d" else GIB * 9, labels={"zone": zone})
            for node, zone in places.items()
        },
    )
    nodes.repair()
    assert shown(nodes.layout) == ["Ad"]


def test_a_copy_that_fits_nowhere_is_said_with_the_arithmetic() -> None:
    nodes = mesh(layout("Ab"), "ac", lost="b", c=offer("c", disk=PART - 1, name="cellar"))
    plan = nodes.plan()
    assert plan.is_empty
    assert "1 partition with fewer than 2 copies" in plan.degraded
    assert "cellar" in plan.degraded
    assert "(room for 0)" in plan.degraded


def test_what_no_memory_takes_stays_standby_and_is_copied_all_the_same() -> None:
    small = {node: offer(node, memory=0) for node in "bc"}
    nodes = mesh(layout("Ab"), "bc", lost="a", **small)
    nodes.repair()
    assert shown(nodes.layout) == ["bc"]
    assert "1 partition without a resident copy" in nodes.plan().degraded


def test_what_was_degraded_is_made_good_when_a_node_joins() -> None:
    nodes = mesh(layout("b", survive=1), "b", b=offer("b", memory=0))
    assert nodes.repair() == []
    nodes.offers["c"], nodes.states["c"] = offer("c"), "alive"
    nodes.repair()
    assert shown(nodes.layout) == ["Cb"]


def test_a_partition_moves_to_memory_when_no_holder_has_any() -> None:
    nodes = mesh(layout("bc"), "bcd", b=offer("b", memory=0), c=offer("c", memory=0))
    nodes.repair()
    assert shown(nodes.layout) in (["Db"], ["Dc"])


def test_a_standby_copy_to_spare_is_let_go_but_no_resident_one() -> None:
    nodes = mesh(layout("Abc", "ABC"), "abc")
    nodes.repair()
    assert shown(nodes.layout) == ["Ab", "ABC"]


def test_what_is_to_spare_stays_while_others_are_away() -> None:
    assert mesh(layout("Abc"), "ab", dead="c").plan().is_empty


def test_nothing_is_planned_and_nobody_dropped_while_no_holder_lives() -> None:
    nodes = mesh(layout("Bc"), "ad", lost="bc")
    plan = nodes.plan(names={"b": "ben", "c": "cyd"})
    assert plan.is_empty
    assert "returns: ben, cyd" in plan.degraded


def test_a_lost_holder_stays_named_while_nobody_can_take_its_place() -> None:
    nodes = mesh(layout("Abc", survive=2), "ad", lost="bc")
    nodes.repair()
    (copies,) = nodes.layout.copies
    assert {"a", "d"} < set(copies)
    assert len(copies) == 3


def test_a_node_that_leaves_is_read_from_and_emptied() -> None:
    nodes = mesh(layout("B", "Bc", "Cb", survive=0), "abc", leaving="b")
    plans = nodes.repair()
    assert any("b" in copy.sources for plan in plans for copy in plan.new_copies)
    assert all("b" not in copies for copies in nodes.layout.copies)


def test_a_node_that_leaves_keeps_the_last_living_copy_while_another_holder_is_away() -> None:
    nodes = mesh(layout("Cb", survive=0), "ab", dead="c", leaving="b")
    assert all("b" in copies for copies in nodes.plan().apply(nodes.layout).copies)


def test_steps_are_bounded() -> None:
    matrix = layout(*["Ab"] * 40)
    assert len(mesh(matrix, "acd", lost="b").plan(step_partitions=16).copies) == 16
    assert mesh(matrix, "acd", lost="b").plan(step_bytes=3 * PART).copied_bytes == 3 * PART
    assert len(mesh(matrix, "acd", lost="b").plan(step_bytes=1).copies) == 1


def test_many_targets_share_the_work() -> None:
    plan = mesh(layout(*["Ab"] * 30), "acdefg", lost="b").plan()
    targets = Counter(copy.target for copy in plan.new_copies)
    assert set(targets.values()) == {6}
    spread = mesh(layout(*["Abc"] * 30, survive=2), "abdef", lost="c").plan()
    assert Counter(copy.sources[0] for copy in spread.new_copies) == {"a": 15, "b": 15}


def test_a_holder_that_goes_and_is_still_needed_is_no_second_resident() -> None:
    nodes = mesh(layout("Bac", survive=2), "abc", leaving="b")
    nodes.repair()
    (copies,) = nodes.layout.copies
    assert sum(copies.values()) == 1
    assert copies["b"] is False


@st.composite
def meshes(draw: st.DrawFn) -> Mesh:
    rng = random.Random(draw(st.integers(0, 2**32 - 1)))
    names = [f"n{index}" for index in range(draw(st.integers(1, 9)))]
    survive = draw(st.integers(0, 3))
    rows = draw(st.integers(1, 12 * 512))
    roomy = draw(st.sampled_from((10, 60, 400)))
    cut = Partitioning(rows, 4096, 4)
    states: dict[str, PeerState] = {
        name: rng.choice(("alive", "alive", "alive", "suspect", "dead")) for name in names
    }
    states["n0"] = "alive"  # the owner plans
    lost = frozenset(name for name in names if states[name] == "dead" and rng.random() < 0.7)
    leaving = frozenset(name for name in names if rng.random() < 0.15)
    offers = {
        name: offer(
            name,
            memory=rng.randrange(roomy * MIB),
            disk=rng.randrange(3 * roomy * MIB),
            gflops=rng.uniform(0, 100),
            rtt_s=rng.expovariate(20),
            labels={"zone": rng.choice("ab")} if rng.random() < 0.5 else {},
            draining=name in leaving,
        )
        for name in names
        if states[name] == "alive"
    }
    copies = []
    for _ in range(cut.count):
        holders = rng.sample(names, min(len(names), rng.randint(1, survive + 2)))
        resident = rng.choice([*holders, ""])
        copies.append({peer: peer == resident for peer in holders})
    guardians = ("n0", *rng.sample(names[1:], min(len(names) - 1, rng.choice((0, 2, 4)))))
    matrix = Layout(b"matrix", cut, survive, "n0", guardians[: len(guardians) - (len(guardians) + 1) % 2], ())
    return Mesh(replace(matrix, copies=tuple(copies)), offers, states, lost, leaving)


def complete(nodes: Mesh, excluded: Collection[str]) -> bool:
    """Whether every partition has all its copies, one of them resident, on nodes that stay."""
    return all(
        len(copies.keys() - excluded) > nodes.layout.survive and any(copies.values())
        for copies in nodes.layout.copies
    )


@settings(max_examples=400)
@given(nodes=meshes(), wanted=st.sets(st.integers(0, 11)), bound=st.integers(1, 5))
def test_repair_keeps_within_offers_never_drops_what_is_needed_and_ends(
    nodes: Mesh, wanted: set[int], bound: int
) -> None:
    for plan in nodes.repair(wanted=wanted, step_partitions=bound):
        assert len(plan.copies) <= bound
    assert nodes.plan().degraded or complete(nodes, nodes.lost | nodes.leaving)


@settings(max_examples=300)
@given(nodes=meshes())
def test_with_room_for_all_everything_is_made_good(nodes: Mesh) -> None:
    nodes.offers = {
        peer: replace(mine, memory_available_bytes=GIB, disk_available_bytes=GIB)
        for peer, mine in nodes.offers.items()
    }
    nodes.lost = frozenset(peer for peer, state in nodes.states.items() if state != "alive")
    going = nodes.lost | nodes.leaving
    staying = [peer for peer in nodes.offers if peer not in going]
    readable = [bool(nodes.living(copies)) for copies in nodes.layout.copies]
    nodes.repair()
    if len(staying) <= nodes.layout.survive:
        return
    for copies, was_readable in zip(nodes.layout.copies, readable, strict=True):
        if was_readable:
            assert going.isdisjoint(copies)
            assert len(copies) == nodes.layout.survive + 1
            assert any(copies.values())


@given(nodes=meshes())
def test_the_order_of_offers_does_not_matter(nodes: Mesh) -> None:
    plan = nodes.plan()
    nodes.offers = dict(reversed(list(nodes.offers.items())))
    assert replace(nodes.plan(), degraded="") == replace(plan, degraded="")


def test_a_node_short_of_memory_is_relieved_by_a_standby_copy_where_there_is_room() -> None:
    matrix = layout("Ab", "Ab", "Ac")
    short = offer("a", memory=0, memory_short_bytes=PART)
    mesh = [short, offer("b"), offer("c", memory=0)]
    plan = plan_repair(matrix, dict.fromkeys("abc", "alive"), offers=mesh)
    # One partition is what it is short of; no byte travels.
    assert [(copy.partition, copy.target, copy.sources) for copy in plan.new_copies] == [(0, "b", ())]
    assert shown(plan.apply(matrix)) == ["Ba", "Ab", "Ac"]
    relieved = [offer("a", memory=0), offer("b"), offer("c", memory=0)]
    assert plan_repair(plan.apply(matrix), dict.fromkeys("abc", "alive"), offers=relieved).is_empty


def test_a_node_short_of_memory_is_relieved_by_a_node_that_had_no_copy() -> None:
    matrix = layout("Ab")
    mesh = [offer("a", memory=0, memory_short_bytes=1), offer("b", memory=0), offer("c")]
    plan = plan_repair(matrix, dict.fromkeys("ab", "alive"), offers=mesh)
    assert plan.apply(matrix).copies[0]["c"]
    assert plan.copied_bytes == PART
    assert not plan.degraded


def test_without_room_anywhere_it_is_said() -> None:
    matrix = layout("Ab")
    mesh = [offer("a", memory=0, memory_short_bytes=1), offer("b", memory=0)]
    plan = plan_repair(matrix, dict.fromkeys("ab", "alive"), offers=mesh)
    assert shown(plan.apply(matrix)) == ["ab"]
    assert "memory" in plan.degraded
