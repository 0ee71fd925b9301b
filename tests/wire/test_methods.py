from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from sedmad.errors import LocalError
from sedmad.wire.frame import Priority
from sedmad.wire.messages import PutMatrixRequest, PutMatrixResponse
from sedmad.wire.methods import PACKAGE, MethodTable, services, snake_case
from sedmad.wire.priorities import BULK_METHODS, priority_of

METHODS = [
    (f"{PACKAGE}.{name}/{method.name}", method)
    for name, service in services().items()
    for method in service.methods
]


async def handler(request: object, call: object) -> None:
    raise AssertionError("nobody calls this")


@pytest.mark.parametrize("service_name", services())
def test_a_service_is_served_whole_or_not_at_all(service_name: str) -> None:
    descriptors = services()[service_name].methods
    names = [snake_case(descriptor.name) for descriptor in descriptors]
    table = MethodTable()
    table.add(service_name, SimpleNamespace(**dict.fromkeys(names, handler)))
    for descriptor in descriptors:
        method = table.get(f"{PACKAGE}.{service_name}/{descriptor.name}")
        assert method is not None
        assert method.handler is handler
        assert method.request_class.DESCRIPTOR is descriptor.input_type
        assert method.response_class.DESCRIPTOR is descriptor.output_type
    with pytest.raises(LocalError, match=names[-1]):
        MethodTable().add(service_name, SimpleNamespace(**dict.fromkeys(names[:-1], handler)))


def test_unknown_methods_are_not_served() -> None:
    assert MethodTable().get("sedma.v1.MatrixService/PutMatrix") is None


def test_names_in_snake_case() -> None:
    assert snake_case("PutMatrix") == "put_matrix"
    assert snake_case("Join") == "join"
    assert PutMatrixRequest.DESCRIPTOR.name == "PutMatrixRequest"
    assert PutMatrixResponse.DESCRIPTOR.name == "PutMatrixResponse"


def test_every_rpc_has_a_request_and_a_response_of_its_own() -> None:
    for name, method in METHODS:
        assert method.input_type.name == f"{method.name}Request", name
        assert method.output_type.name == f"{method.name}Response", name
        assert method.input_type.file.package == PACKAGE
    used = Counter(
        message.full_name for _, method in METHODS for message in (method.input_type, method.output_type)
    )
    assert max(used.values()) == 1


def test_service_names_and_enum_values_follow_the_style_of_the_contract() -> None:
    assert all(name.endswith("Service") for name in services())
    for file in {service.file for service in services().values()}:
        for enum in file.enum_types_by_name.values():
            prefix = snake_case(enum.name).upper()
            assert enum.values_by_number[0].name == f"{prefix}_UNSPECIFIED"
            assert all(value.name.startswith(prefix + "_") for value in enum.values)


def test_bulk_methods_exist() -> None:
    assert {name for name, _ in METHODS} >= BULK_METHODS
    assert priority_of("sedma.v1.MatrixService/PutMatrix") is Priority.BULK
    assert priority_of("sedma.v1.MatrixService/ApplyMatrix") is Priority.PRODUCT
