from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad import errors
from sedmad.errors import Overloaded, SedmadError
from sedmad.wire.messages import Status
from sedmad.wire.status import TEXT_CHARACTERS_MAX, to_error, to_status

CLASSES = sorted(errors.by_reason().values(), key=lambda error: error.reason)
GOOGLE_CODES = {
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
}


@pytest.mark.parametrize("error_class", CLASSES, ids=lambda error: error.reason)
def test_every_error_comes_back_as_it_was(error_class: type[SedmadError]) -> None:
    assert error_class.code in GOOGLE_CODES
    for error in (
        error_class("what", why="why", node="n1", matrix="w", retry_after_s=1.5),
        error_class("what", hint="do this"),
    ):
        status = Status.FromString(to_status(error).SerializeToString())
        back = to_error(status)
        assert type(back) is error_class
        assert vars(back) == vars(error)
        assert str(back) == str(error)


def test_every_error_has_a_reason_of_its_own() -> None:
    classes = [SedmadError]
    for error_class in classes:
        classes.extend(error_class.__subclasses__())
    assert len({error.reason for error in classes}) == len(classes)


def test_an_unknown_reason_becomes_a_plain_error() -> None:
    error = to_error(Status(code="UNKNOWN", reason="FROM_THE_FUTURE", message="what"))
    assert type(error) is SedmadError
    assert error.what == "what"
    assert to_error(Status(reason="FROM_THE_FUTURE")).what == "FROM_THE_FUTURE"


@given(st.text(), st.floats(allow_nan=False) | st.none())
def test_any_text_and_any_time_travel(text: str, retry_after_s: float | None) -> None:
    status = to_status(Overloaded(text, why="x" * 10_000, retry_after_s=retry_after_s))
    assert len(status.why) == TEXT_CHARACTERS_MAX
    assert to_error(status).retry_after_s != 0


def test_undecodable_file_names_do_not_break_the_answer() -> None:
    assert to_status(SedmadError("cannot open caf\udce9.npy")).message == "cannot open caf?.npy"
