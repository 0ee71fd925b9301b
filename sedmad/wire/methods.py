"""The services of the contract as tables: which methods there are, what they take, which handler serves them.

table = MethodTable()
table.add("MatrixService", matrix_service)  # an object with put_matrix, get_matrix, ...
table.get("sedma.v1.MatrixService/PutMatrix")
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from sedmad.errors import LocalError
from sedmad.wire.generated.sedma.v1 import (
    certificate_pb2,
    control_pb2,
    holding_pb2,
    manifest_pb2,
    membership_pb2,
    product_pb2,
)

PACKAGE = "sedma.v1"
_FILES = (certificate_pb2, control_pb2, holding_pb2, manifest_pb2, membership_pb2, product_pb2)


@cache
def services() -> dict[str, ServiceDescriptor]:
    """Return every service of the contract by its short name."""
    return {name: service for file in _FILES for name, service in file.DESCRIPTOR.services_by_name.items()}


@dataclass(frozen=True, slots=True)
class Method:
    """One method, with the handler that serves it: `async def put_matrix(request, call) -> response`."""

    name: str
    request_class: type[Message]
    response_class: type[Message]
    handler: Callable[[Any, Any], Awaitable[Any]]


class MethodTable:
    """Methods by full name; a handler is the attribute of its service object named like it, in snake case."""

    def __init__(self) -> None:
        self._methods: dict[str, Method] = {}

    def add(self, service_name: str, service: object) -> None:
        """Serve every method of a service.

        Raises:
            LocalError: the service object lacks a method of the contract.
        """
        for descriptor in services()[service_name].methods:
            attribute = snake_case(descriptor.name)
            handler = getattr(service, attribute, None)
            if handler is None:
                raise LocalError(f"{type(service).__name__} does not serve {attribute} of {service_name}")
            name = f"{PACKAGE}.{service_name}/{descriptor.name}"
            self._methods[name] = Method(
                name, GetMessageClass(descriptor.input_type), GetMessageClass(descriptor.output_type), handler
            )

    def get(self, name: str) -> Method | None:
        """Return the method of a full name, or None where it is not served here."""
        return self._methods.get(name)


def snake_case(name: str) -> str:
    """Return `PutMatrix` as `put_matrix`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
