"""The ownership core, driven by hand: times, votes, and what is told to its node."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import replace

import pytest

from sedmad.core.ownership import (
    Behind,
    Deposed,
    Ending,
    Lost,
    Outgoing,
    Ownership,
    OwnershipSettings,
    Promise,
    Refusal,
    Standing,
    Surpassed,
    VoteAnswer,
    VoteRequest,
    Won,
)
from sedmad.core.ownership.ownership import SLICE

SETTINGS = OwnershipSettings()
W = Standing("w", "a", ("a", "b", "c"), 0, 4, established=True)


def sign(promise: Promise) -> bytes:
    return f"{promise.guardian} signs".encode()


def core_of(
    peer_id: str, standings: Iterable[Standing] = (W,), promised: Iterable[Promise] = (), up: str = "abcde"
) -> Ownership:
    core = Ownership(peer_id, sign=sign, rng=random.Random(1), promised=promised)
    for standing in standings:
        core.keep(standing, 0.0)
    for other in up:
        core.peer_up(other, 0.0)
    return core


def run_until(core: Ownership, time_s: float) -> Outgoing:
    """Let time pass; return all that the core wanted meanwhile."""
    batches = []
    while (timeout := core.next_timeout()) is not None and timeout <= time_s:
        core.handle_timeout(max(timeout, 0.0))
        batches.append(core.collect())
    return Outgoing(
        tuple(vote for batch in batches for vote in batch.votes),
        tuple(message for batch in batches for message in batch.messages),
        tuple(event for batch in batches for event in batch.events),
    )


def vote_of(guardian: Ownership, candidate: str, key: Hashable = "w", epoch: int = 1) -> VoteAnswer:
    guardian.receive(candidate, VoteRequest(key, epoch), 20.0)
    ((receiver, answer),) = guardian.collect().messages
    assert receiver == candidate
    assert isinstance(answer, VoteAnswer)
    return answer


def until_it_asks(core: Ownership) -> Outgoing:
    """Let time pass until an election begins."""
    for _ in range(20):
        timeout = core.next_timeout()
        assert timeout is not None
        core.handle_timeout(max(timeout, 0.0))
        if (outgoing := core.collect()).messages:
            assert not outgoing.votes
            return outgoing
    raise AssertionError("nobody is asked")


def stand(core: Ownership) -> Outgoing:
    """Hold the owner for dead until an election begins, before 17 s."""
    core.peer_down("a", 0.0)
    return until_it_asks(core)


def test_a_guardian_asks_the_others_when_the_owner_has_been_dead_for_some_time() -> None:
    core = core_of("b")
    core.peer_down("a", 5.0)
    assert run_until(core, 14.9) == Outgoing((), (), ())
    asked = run_until(core, 15.0 + 2 * SETTINGS.rank_s)
    assert set(asked.messages) == {("a", VoteRequest("w", 1)), ("c", VoteRequest("w", 1))}


def test_an_owner_that_returns_in_time_keeps_its_matrices() -> None:
    core = core_of("b")
    core.peer_down("a", 0.0)
    core.peer_up("a", 9.0)
    assert run_until(core, 100.0) == Outgoing((), (), ())
    assert core.next_timeout() is None


def test_an_owner_that_returns_later_ends_the_election() -> None:
    core = core_of("b")
    stand(core)
    core.peer_up("a", 18.0)
    assert core.collect().events == (Lost("w", 1, Ending.OWNER_RETURNED),)
    core.receive("c", vote_of(core_of("c", up=""), "b"), 18.1)
    assert core.collect() == Outgoing((), (), ())


def test_an_owner_never_heard_of_since_the_start_is_dead_after_minutes() -> None:
    core = core_of("b", up="c")
    assert not run_until(core, SETTINGS.unheard_after_s - 1.0).messages
    assert run_until(core, SETTINGS.unheard_after_s + 5.0).messages


def test_a_majority_makes_a_winner_and_the_own_vote_comes_last() -> None:
    candidate, guardian = core_of("b"), core_of("c", up="")
    stand(candidate)
    guardian.receive("b", VoteRequest("w", 1), 17.0)
    granted = guardian.collect()
    assert [vote.promise for vote in granted.votes] == [Promise("w", 1, "b", "c")]
    answer = granted.messages[0][1]
    candidate.receive("c", answer, 17.1)
    outgoing = candidate.collect()
    assert [vote.promise for vote in outgoing.votes] == [Promise("w", 1, "b", "b")]
    (won,) = outgoing.events
    assert isinstance(won, Won)
    assert (won.epoch, won.standing) == (1, W)
    assert {(vote.promise.guardian, vote.signature) for vote in won.votes} == {
        ("b", b"b signs"),
        ("c", b"c signs"),
    }


def test_a_winner_that_cannot_write_tries_again_in_a_later_epoch() -> None:
    candidate = core_of("b")
    stand(candidate)
    candidate.receive("c", vote_of(core_of("c", up=""), "b"), 17.0)
    assert candidate.collect().votes
    assert not run_until(candidate, 60.0).messages
    assert ("c", VoteRequest("w", 2)) in run_until(candidate, 80.0).messages


def test_a_manifest_of_a_new_owner_ends_the_election() -> None:
    candidate = core_of("b")
    stand(candidate)
    candidate.keep(W.succeeded_by("c", 1), 17.0)
    assert candidate.collect().events == (Lost("w", 1, Ending.SURPASSED),)
    candidate.peer_down("c", 20.0)
    assert ("a", VoteRequest("w", 2)) not in run_until(candidate, 29.9).messages
    candidate.peer_up("a", 29.9)
    assert ("a", VoteRequest("w", 2)) in run_until(candidate, 40.0).messages


def test_a_winner_that_wrote_rests() -> None:
    candidate = core_of("b")
    stand(candidate)
    candidate.receive("c", vote_of(core_of("c", up=""), "b"), 17.0)
    candidate.keep(W.succeeded_by("b", 1), 17.0)
    candidate.collect()
    assert run_until(candidate, 1_000.0) == Outgoing((), (), ())


def test_the_winner_writes_on_after_the_newest_manifest_that_any_voter_keeps() -> None:
    newer = W.succeeded_by("a", 0, manifest="newer")
    candidate = core_of("b")
    stand(candidate)
    candidate.receive("c", vote_of(core_of("c", [newer], up=""), "b"), 17.0)
    surpassed, won = candidate.collect().events
    assert surpassed == Surpassed("w", newer)
    assert isinstance(won, Won)
    assert won.standing == newer


def test_guardians_that_only_an_answer_names_are_asked_too() -> None:
    changed = W.succeeded_by("a", 0, guardians=("b", "d", "e"))
    candidate = core_of("b")
    stand(candidate)
    candidate.receive("c", vote_of(core_of("c", [changed], up=""), "b"), 17.0)
    outgoing = candidate.collect()
    assert set(outgoing.messages) == {("d", VoteRequest("w", 1)), ("e", VoteRequest("w", 1))}
    assert not outgoing.votes
    ignorant = core_of("d", [], up="")
    candidate.receive("d", vote_of(ignorant, "b"), 17.1)
    assert candidate.collect().events == (Behind("w", "d", changed),)
    candidate.receive("e", vote_of(core_of("e", [changed], up=""), "b"), 17.2)
    assert isinstance(candidate.collect().events[0], Won)


def test_a_guardian_that_is_none_any_more_gives_up() -> None:
    changed = replace(W.succeeded_by("a", 0, guardians=("c", "d", "e")), established=True)
    candidate = core_of("b")
    stand(candidate)
    candidate.receive("c", vote_of(core_of("c", [changed], up=""), "b"), 17.0)
    assert Lost("w", 1, Ending.SURPASSED) in candidate.collect().events


@pytest.mark.parametrize(
    ("guardian", "refusal"),
    [
        (core_of("c"), Refusal.OWNER_ALIVE),
        (core_of("a", up=""), Refusal.OWNER_ALIVE),
        (core_of("c", [], up=""), Refusal.NOT_GUARDIAN),
        (core_of("d", up=""), Refusal.NOT_GUARDIAN),
        (core_of("c", promised=[Promise("w", 1, "d", "c")], up=""), Refusal.PROMISED),
        (core_of("c", promised=[Promise("w", 2, "b", "c")], up=""), Refusal.PROMISED),
        (core_of("c", [W.succeeded_by("c", 1)], up=""), Refusal.PROMISED),
    ],
)
def test_a_vote_is_refused(guardian: Ownership, refusal: Refusal) -> None:
    answer = vote_of(guardian, "b")
    assert (answer.vote, answer.refusal) == (None, refusal)
    assert guardian.collect().votes == ()


def test_a_repeated_request_gets_its_vote_again_and_the_vote_is_stored_again() -> None:
    guardian = core_of("c", up="")
    first, second = [vote_of(guardian, "b") for _ in range(2)]
    assert first == second
    guardian.receive("b", VoteRequest("w", 1), 20.0)
    assert guardian.collect().votes == (first.vote,)


def test_answers_unasked_late_or_for_somebody_else_do_not_count() -> None:
    candidate = core_of("b")
    granted = vote_of(core_of("c", up=""), "b")
    candidate.receive("c", granted, 1.0)
    stand(candidate)
    candidate.receive("d", granted, 17.0)
    candidate.receive("a", granted, 17.0)  # the signature of another guardian
    candidate.receive("c", replace(granted, epoch=2), 17.0)
    candidate.receive("c", vote_of(core_of("c", up=""), "d"), 17.0)
    assert not candidate.collect().votes
    candidate.receive("c", granted, 17.0)
    assert candidate.collect().votes


def test_an_epoch_promised_to_another_is_passed_by_the_next_time() -> None:
    candidate = core_of("b")
    stand(candidate)
    candidate.receive("c", vote_of(core_of("c", promised=[Promise("w", 6, "d", "c")], up=""), "b"), 17.0)
    assert candidate.collect().events == (Lost("w", 1, Ending.PROMISED),)
    assert ("c", VoteRequest("w", 7)) in run_until(candidate, 30.0).messages


def test_a_voter_gives_up_its_own_election() -> None:
    candidate = core_of("b")
    stand(candidate)
    assert candidate.next_timeout() is not None
    candidate.receive("c", VoteRequest("w", 1), 17.0)
    assert candidate.collect().events == (Lost("w", 1, Ending.VOTED),)


def test_whoever_cannot_reach_a_majority_asks_nobody_and_waits_longer_each_time() -> None:
    core = core_of("b")
    core.peer_down("c", 0.0)
    core.peer_down("a", 0.0)
    turns = []
    while (timeout := core.next_timeout()) is not None and timeout < 2_000.0:
        core.handle_timeout(max(timeout, 0.0))
        turns.append(timeout)
    assert core.collect() == Outgoing((), (), ())
    assert 20 < len(turns) < 80
    core.peer_up("c", 2_000.0)
    assert run_until(core, 2_000.0 + 1.5 * SETTINGS.retry_maximum_s).messages


def test_unanswered_elections_time_out_and_slow_down_but_never_stop() -> None:
    core = core_of("b")
    core.peer_down("a", 0.0)
    outgoing = run_until(core, 3_600.0)
    assert set(outgoing.events) == {Lost("w", 1, Ending.TIMED_OUT)}
    assert 40 < len(outgoing.events) < 150
    assert not outgoing.votes


@pytest.mark.parametrize("guardians", [("a",), ("a", "b")])
def test_fewer_than_three_guardians_never_pass_a_matrix_on(guardians: tuple[str, ...]) -> None:
    core = core_of("b", [replace(W, guardians=guardians)])
    core.peer_down("a", 0.0)
    assert run_until(core, 1_000.0) == Outgoing((), (), ())


def test_guardians_take_turns_that_differ_from_matrix_to_matrix() -> None:
    keys = [f"w{number}" for number in range(200)]
    first: Counter[str] = Counter()
    began: dict[tuple[str, Hashable], int] = {}
    for peer_id in "bcde":
        core = core_of(peer_id, [replace(W, key=key, guardians=tuple("abcde")) for key in keys])
        core.peer_down("a", 0.0)
        for rank in range(4):
            # Answers never come, so everybody stands in the end; the limit on elections is not reached.
            for _, message in run_until(
                core, SETTINGS.takeover_after_s + SETTINGS.rank_s * (rank + 0.9)
            ).messages:
                if began.setdefault((peer_id, message.key), rank) == 0:
                    first[peer_id] += 1
        assert core.next_timeout() is not None
    assert set(first) == set("bcde")
    assert min(first.values()) > 50


def test_an_owner_of_tens_of_thousands_is_replaced_piece_by_piece() -> None:
    keys = range(5_000)
    core = core_of("b", [replace(W, key=key) for key in keys])
    core.peer_down("a", 0.0)
    asked: set[Hashable] = set()
    calls = 0
    while (timeout := core.next_timeout()) is not None and timeout < 60.0:
        core.handle_timeout(max(timeout, 0.0))
        calls += 1
        batch = core.collect()
        assert len(batch.messages) <= 2 * SETTINGS.elections
        asked.update(message.key for _, message in batch.messages)
        assert len(asked) <= SETTINGS.elections * (1 + 60.0 / SETTINGS.vote_timeout_s)
    assert len(asked) >= 5 * SETTINGS.elections
    assert calls >= len(keys) / SLICE
    core.peer_up("a", 60.0)
    core.collect()
    assert run_until(core, 3_600.0) == Outgoing((), (), ())


def test_a_deposed_owner_is_told() -> None:
    core = core_of("a")
    taken_over = W.succeeded_by("b", 1)
    core.keep(taken_over, 30.0)
    assert core.collect().events == (Deposed("w", taken_over),)
    core.keep(W, 31.0)
    assert core.collect().events == ()
    assert vote_of(core, "c", epoch=2).refusal is Refusal.OWNER_ALIVE  # b's manifest is what counts


def test_an_owner_that_is_refused_for_a_promise_asks_for_a_later_epoch() -> None:
    """A candidate got promises and died with them: nobody could write in the old epoch any more."""
    owner = core_of("a")
    guardians = {peer: core_of(peer, promised=[Promise("w", 3, "d", peer)]) for peer in "bc"}
    owner.reclaim("w", 3, 50.0)
    assert set(until_it_asks(owner).messages) == {(peer, VoteRequest("w", 4)) for peer in "bc"}
    owner.receive("b", vote_of(guardians["b"], "a", epoch=4), 60.0)
    won = owner.collect().events[0]
    assert isinstance(won, Won)
    owner.keep(won.standing.succeeded_by("a", won.epoch), 60.0)
    assert run_until(owner, 1_000.0) == Outgoing((), (), ())


def test_nothing_is_reclaimed_that_is_not_owned_or_not_promised() -> None:
    core = core_of("b")
    core.reclaim("w", 3, 0.0)
    core.reclaim("unknown", 3, 0.0)
    owner = core_of("a")
    owner.reclaim("w", 0, 0.0)
    assert core.next_timeout() is None
    assert owner.next_timeout() is None


def test_a_forgotten_matrix_is_nobodys() -> None:
    core = core_of("b")
    stand(core)
    core.forget("w", 18.0)
    assert core.collect().events == (Lost("w", 1, Ending.FORGOTTEN),)
    assert core.next_timeout() is None
    assert vote_of(core, "c").refusal is Refusal.NOT_GUARDIAN


def test_promises_of_earlier_lives_hold() -> None:
    core = core_of("b", promised=[Promise("w", 4, "c", "b")])
    assert ("c", VoteRequest("w", 5)) in stand(core).messages
