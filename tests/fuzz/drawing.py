"""Messages of the contract, any of them, drawn from their descriptors: valid ones, nearly valid ones, and nonsense."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from chance import Chance
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from sedmad.wire import messages as wire

DEPTH_MAX = 5
COUNTS = (1, 0, 2, 3, 1, 0, 2, 50)
INTEGER_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (True, 31),
    FieldDescriptor.CPPTYPE_INT64: (True, 63),
    FieldDescriptor.CPPTYPE_UINT32: (False, 32),
    FieldDescriptor.CPPTYPE_UINT64: (False, 64),
}
FLOATS = (0.0, 1.5, -1.0, 1e300, -1e300, math.inf, -math.inf, math.nan, 5e-324)
TEXTS = ("", "x", "\0", "../../etc/passwd", "w@", "@", "\x1b[31m", "\U0001f40b", "ä" * 128, "a" * 5000)

Seal = Callable[["Drawer"], Message]


def contract() -> list[type[Message]]:
    """Return the class of every message of the contract."""
    descriptors = [found.DESCRIPTOR for found in vars(wire).values() if _is_message(found)]
    return [GetMessageClass(descriptor) for top in descriptors for descriptor in _with_nested(top)]


def _is_message(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, Message)


def _with_nested(descriptor: Descriptor) -> Iterator[Descriptor]:
    yield descriptor
    for nested in descriptor.nested_types:
        if not nested.GetOptions().map_entry:
            yield from _with_nested(nested)


class Vocabulary:
    """Valid messages, and by name and type of a field what stands in it there."""

    def __init__(self, examples: Iterable[Message]) -> None:
        self.messages: dict[str, list[Message]] = defaultdict(list)
        self.named: dict[tuple[str, int], list[Any]] = defaultdict(list)
        self.typed: dict[int, list[Any]] = defaultdict(list)
        for example in examples:
            self._learn(example)

    def _learn(self, example: Message) -> None:
        self.messages[example.DESCRIPTOR.full_name].append(example)
        for field, value in example.ListFields():
            for item in _items(field, value):
                if isinstance(item, Message):
                    self._learn(item)
                else:
                    self.named[field.name, field.type].append(item)
                    self.typed[field.type].append(item)


class Drawer:
    """Draws messages.

    Args:
        chance: decides everything.
        vocabulary: what is drawn is often a message of these, or one with some fields changed.
        seals: by full name of a message, what draws one whose signature holds.
    """

    def __init__(self, chance: Chance, vocabulary: Vocabulary, seals: dict[str, Seal]) -> None:
        self.chance = chance
        self._vocabulary = vocabulary
        self._seals = seals

    def message(self, descriptor: Descriptor, depth: int = 0) -> Message:
        """Return a message of this kind."""
        seal = self._seals.get(descriptor.full_name)
        if seal and not self.chance.one_in(4):
            return seal(self)
        return self.unsealed(descriptor, depth)

    def unsealed(self, descriptor: Descriptor, depth: int = 0) -> Message:
        """Return a message of this kind as its fields come."""
        message = GetMessageClass(descriptor)()
        known = self._vocabulary.messages.get(descriptor.full_name, ())
        if known and not self.chance.one_in(4):
            message.CopyFrom(self.chance.pick(known))
            fields = [self.chance.pick(descriptor.fields) for _ in range(self.chance.below(3))]
        else:
            fields = [field for field in descriptor.fields if not self.chance.one_in(4)]
        for field in fields:
            message.ClearField(field.name)
            self._fill(message, field, depth)
        return message

    def _fill(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        if field.message_type and depth >= DEPTH_MAX:
            return
        count = self.chance.pick(COUNTS) if field.is_repeated else 1
        if field.message_type and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields
            for _ in range(count):
                getattr(message, field.name)[self.scalar(key)] = self.scalar(value)
        elif field.message_type:
            parts = [self.message(field.message_type, depth + 1) for _ in range(count)]
            if field.is_repeated:
                getattr(message, field.name).extend(parts)
            else:
                getattr(message, field.name).CopyFrom(parts[0])
        elif field.is_repeated:
            getattr(message, field.name).extend(self.scalar(field) for _ in range(count))
        else:
            setattr(message, field.name, self.scalar(field))

    def scalar(self, field: FieldDescriptor) -> Any:
        """Return a value that the field can hold."""
        same_name = self._vocabulary.named.get((field.name, field.type))
        same_type = self._vocabulary.typed.get(field.type)
        way = self.chance.below(8)
        if way < 4 and same_name:
            return self.chance.pick(same_name)
        if way == 4 and same_type:
            return self.chance.pick(same_type)
        return self._anything(field)

    def _anything(self, field: FieldDescriptor) -> Any:
        if field.cpp_type in INTEGER_BITS:
            signed, bits = INTEGER_BITS[field.cpp_type]
            edges = [self.chance.below(256), 2**bits - 1, 2 ** (bits // 2), 2 ** (bits - 1), -(2**bits)]
            return self.chance.pick(edges if signed else edges[:-1])
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_BOOL:
                return bool(self.chance.below(2))
            case FieldDescriptor.CPPTYPE_ENUM:
                return self.chance.pick([*field.enum_type.values_by_number, 99])
            case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
                return self.chance.raw(self.chance.pick((32, 0, 1, 16, 64, 8, 200)))
            case FieldDescriptor.CPPTYPE_STRING:
                return self.chance.pick([self.chance.raw(8).decode("utf-8", "ignore"), *TEXTS])
            case _:
                return self.chance.pick(FLOATS)


def _items(field: FieldDescriptor, value: Any) -> Iterable[Any]:
    if field.message_type and field.message_type.GetOptions().map_entry:
        return ()
    return value if field.is_repeated else (value,)


def mutated(data: bytes, chance: Chance) -> bytes:
    """Return bytes with some of them changed, cut out, repeated or put in."""
    changed = bytearray(data)
    for _ in range(chance.below(4)):
        start = chance.below(len(changed) + 1)
        stop = start + chance.below(16)
        piece = changed[start:stop]
        match chance.below(6):
            case 0:
                changed[start:stop] = bytes(byte ^ 1 << chance.below(8) for byte in piece)
            case 1:
                del changed[start:stop]
            case 2:
                changed[start:start] = piece * chance.pick((1, 2, 40))
            case 3:
                changed[start:start] = chance.raw(8)
            case 4:
                # A varint or a length that says more than there is.
                changed[start:start] = b"\xff" * chance.pick((1, 4, 9, 10)) + b"\x7f"
            case 5:
                del changed[start:]
    return bytes(changed)
