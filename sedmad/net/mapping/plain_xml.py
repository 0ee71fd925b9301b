"""XML as UPnP devices write it: elements and text, read without anything that XML could be abused for.

A document type is refused, and with it entities of its own, external ones and all that grows by expanding them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

# Device descriptions nest about ten deep and have a few hundred elements.
DEPTH_MAX = 32
ELEMENTS_MAX = 4096


class NotPlainXml(ValueError):
    """A document that is malformed, or more than plain."""


@dataclass(slots=True)
class Element:
    """An element: its name without namespace, the text directly in it, what it contains."""

    name: str
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def walk(self) -> Iterator[Element]:
        """Return this element and all in it, in the order of the document."""
        yield self
        for child in self.children:
            yield from child.walk()

    def text_of(self, name: str) -> str:
        """Return the text of the first element of that name directly in this one, empty where there is none."""
        return next((child.text.strip() for child in self.children if child.name == name), "")


def parse_plain_xml(document: bytes) -> Element:
    """Return the root of a document in UTF-8.

    Raises:
        NotPlainXml: it is malformed, has a document type, or is too deep or too large.
    """
    document_root = Element("")
    _Reader(document_root).read(document)
    return document_root.children[0]


class _Reader:
    def __init__(self, root: Element) -> None:
        self._open = [root]
        self._elements = 0
        # Whatever encoding a document claims, it is read as the one that UPnP demands.
        self._parser = expat.ParserCreate(encoding="utf-8", namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._take_text

    def read(self, document: bytes) -> None:
        try:
            self._parser.Parse(document, True)
        except expat.ExpatError as error:
            raise NotPlainXml(str(error)) from error

    def _refuse(self, *_: object) -> None:
        raise NotPlainXml("it has a document type")

    def _start(self, name: str, _: object) -> None:
        self._elements += 1
        if len(self._open) > DEPTH_MAX or self._elements > ELEMENTS_MAX:
            raise NotPlainXml("it is too deep or has too many elements")
        element = Element(name.rpartition(" ")[2])
        self._open[-1].children.append(element)
        self._open.append(element)

    def _end(self, _: str) -> None:
        self._open.pop()

    def _take_text(self, text: str) -> None:
        self._open[-1].text += text
