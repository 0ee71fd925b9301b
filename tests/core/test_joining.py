from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sedmad.core.joining import JoinQueue, Waiting
from sedmad.errors import DeadlineExceeded, LocalError, Overloaded

KEY = ("matrix", False)


def waiting(request_id: int, columns: int = 1, deadline: float = 30.0) -> Waiting[str]:
    return Waiting(request_id, columns, deadline, f"item {request_id}")


def queue(*products: Waiting[str]) -> JoinQueue[tuple[str, bool], str]:
    joined: JoinQueue[tuple[str, bool], str] = JoinQueue()
    for product in products:
        joined.add(KEY, product, 0.0)
    return joined


def ids(products: list[Waiting[str]]) -> list[object]:
    return [product.request_id for product in products]


def test_a_lone_product_does_not_wait_for_company() -> None:
    assert ids(queue(waiting(1)).take(KEY, 64, 0.0)) == [1]


def test_what_comes_while_others_run_is_joined() -> None:
    joined = queue()
    for request_id in range(2):
        joined.add(KEY, waiting(request_id), 0.0)
        assert ids(joined.take(KEY, 64, 0.0)) == [request_id]
    for request_id in range(2, 9):
        joined.add(KEY, waiting(request_id), 0.0)
        assert joined.take(KEY, 64, 0.0) == []
    joined.done(KEY)
    assert ids(joined.take(KEY, 64, 0.0)) == list(range(2, 9))
    assert joined.waiting_columns == 0


def test_keys_do_not_wait_for_each_other() -> None:
    joined = queue(waiting(1), waiting(2))
    joined.take(KEY, 1, 0.0)
    joined.take(KEY, 1, 0.0)
    other = ("matrix", True)
    joined.add(other, waiting(3), 0.0)
    assert ids(joined.take(other, 64, 0.0)) == [3]


def test_a_panel_keeps_its_limit_and_the_order() -> None:
    joined = queue(waiting(1, 30), waiting(2, 30), waiting(3, 5), waiting(4, 1))
    assert ids(joined.take(KEY, 1000, 0.0)) == [1, 2]
    assert ids(joined.take(KEY, 4, 0.0)) == [3], "too wide for the panel, so it goes alone"
    joined.done(KEY)
    assert ids(joined.take(KEY, 4, 0.0)) == [4]


def test_every_product_keeps_its_own_deadline() -> None:
    joined = queue(waiting(1, deadline=5.0), waiting(2), waiting(3, deadline=4.0))
    assert joined.next_timeout() == 4.0
    assert joined.expire(3.9) == []
    assert ids(joined.take(KEY, 64, 5.0)) == [2]
    assert ids(joined.expire(5.0)) == [1, 3]
    assert joined.next_timeout() is None
    assert joined.waiting_columns == 0


def test_a_deadline_that_is_over_is_refused() -> None:
    with pytest.raises(DeadlineExceeded):
        queue().add(KEY, waiting(1, deadline=1.0), 1.0)


def test_a_full_queue_refuses_and_recovers() -> None:
    joined: JoinQueue[str, str] = JoinQueue(waiting_columns_max=10)
    joined.add("a", waiting(1, 6), 0.0)
    joined.add("b", waiting(2, 4), 0.0)
    with pytest.raises(Overloaded) as caught:
        joined.add("c", waiting(3), 0.0)
    assert caught.value.retry_after_s
    joined.take("a", 64, 0.0)
    joined.add("c", waiting(3), 0.0)


def test_a_request_can_be_withdrawn() -> None:
    joined = queue(waiting(1), waiting(2), waiting(1))
    assert ids(joined.withdraw(1)) == [1, 1]
    assert ids(joined.take(KEY, 64, 0.0)) == [2]


@pytest.mark.parametrize("columns", [0, 65])
def test_a_width_that_fits_no_panel_is_a_bug_of_the_caller(columns: int) -> None:
    with pytest.raises(LocalError, match="1 to 64"):
        queue().add(KEY, waiting(1, columns), 0.0)


def test_done_without_a_panel_is_a_bug_of_the_caller() -> None:
    joined = queue()
    with pytest.raises(LocalError, match="that runs"):
        joined.done(KEY)


class JoiningLosesNothing(RuleBasedStateMachine):
    """Every product leaves the queue exactly once, in order, within limits."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: JoinQueue[str, str] = JoinQueue(waiting_columns_max=200)
        self.model: dict[str, list[Waiting[str]]] = {"a": [], "b": []}
        self.running = {"a": 0, "b": 0}
        self.now = 0.0
        self.issued = 0

    @rule(key=st.sampled_from("ab"), columns=st.integers(1, 64), lasts=st.integers(1, 20))
    def add(self, key: str, columns: int, lasts: int) -> None:
        self.issued += 1
        product = waiting(self.issued, columns, self.now + lasts)
        try:
            self.queue.add(key, product, self.now)
        except Overloaded:
            assert self.queue.waiting_columns + columns > 200
        else:
            self.model[key].append(product)

    @rule(key=st.sampled_from("ab"), limit=st.integers(1, 80))
    def take(self, key: str, limit: int) -> None:
        taken = self.queue.take(key, limit, self.now)
        live = [product for product in self.model[key] if product.deadline > self.now]
        if self.running[key] >= 2:
            assert taken == []
            return
        assert taken == live[: len(taken)]
        assert bool(taken) == bool(live)
        columns = sum(product.columns for product in taken)
        assert columns <= min(limit, 64) or len(taken) == 1
        if len(taken) < len(live):
            assert columns + live[len(taken)].columns > min(limit, 64)
        self.running[key] += bool(taken)
        self.model[key] = [product for product in self.model[key] if product not in taken]

    @rule(key=st.sampled_from("ab"))
    def done(self, key: str) -> None:
        if self.running[key]:
            self.queue.done(key)
            self.running[key] -= 1

    @rule(passes=st.integers(0, 8))
    def expire(self, passes: int) -> None:
        self.now += passes
        gone = self.queue.expire(self.now)
        over = [product for line in self.model.values() for product in line if product.deadline <= self.now]
        assert sorted(ids(gone), key=str) == sorted(ids(over), key=str)
        for key, line in self.model.items():
            self.model[key] = [product for product in line if product.deadline > self.now]

    @rule(request_id=st.integers(1, 20))
    def withdraw(self, request_id: int) -> None:
        gone = self.queue.withdraw(request_id)
        for key, line in self.model.items():
            self.model[key] = [product for product in line if product not in gone]
        assert all(product.request_id != request_id for line in self.model.values() for product in line)

    @invariant()
    def columns_agree(self) -> None:
        waiting_products = [product for line in self.model.values() for product in line]
        assert self.queue.waiting_columns == sum(product.columns for product in waiting_products)
        assert self.queue.next_timeout() == min((p.deadline for p in waiting_products), default=None)


TestJoining = JoiningLosesNothing.TestCase
