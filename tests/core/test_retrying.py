from __future__ import annotations

from sedmad.core.retrying import LONGEST_S, Retries


def test_each_failure_doubles_the_wait_up_to_a_bound() -> None:
    retries: Retries[str] = Retries()
    waits = [retries.put_off("w", 100.0, "no room") for _ in range(8)]
    assert waits == [5, 10, 20, 40, 80, 160, LONGEST_S, LONGEST_S]
    assert retries.reasons() == {"w": "no room"}


def test_a_key_is_due_when_its_wait_is_over_or_it_never_failed() -> None:
    retries: Retries[str] = Retries()
    retries.put_off("w", 100.0, "")
    assert retries.is_due("other", 100.0)
    assert not retries.is_due("w", 104.9)
    assert retries.next_s(104.9) == 105.0
    assert retries.is_due("w", 105.0)
    assert retries.next_s(105.0) is None


def test_success_and_change_start_over() -> None:
    retries: Retries[str] = Retries()
    for _ in range(3):
        retries.put_off("v", 100.0, "")
        retries.put_off("w", 100.0, "")
    retries.succeed("v")
    assert retries.put_off("v", 100.0, "") == 5
    retries.hurry()
    assert retries.is_due("w", 100.0)
    assert retries.put_off("w", 100.0, "") == 5
    retries.keep({"v"})
    assert retries.reasons().keys() == {"v"}
