"""Stories about a mesh, as text: what happens line by line, and what nodes then believe.

    nodes a b c                     who exists; nobody runs yet
    start a b c                     each is told of all the others; also brings a crashed node back
    start c without its disk
    crash c
    pause c 10s
    split a b | c
    cut a -> b                      one direction only
    heal
    loss 20%
    link-down a b                   a's session to b breaks
    set a state=draining            a changes its advert
    claim a encoder/w1              a publishes the next version of a name
    remove a encoder/w1
    run 5s
    settle                          until all agree
    expect a: b=alive c=suspect     what a believes
    names a: encoder/w1=v1@a        what names mean to a

Empty lines and those that begin with `#` are for the reader. `play` returns the text with the `expect` and
`names` lines as they came out, so that a test compares, and a rewrite is one assignment.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sedmad.testing.faults import Faults
from sedmad.testing.mesh import SimulatedMesh


class ScenarioInvalid(ValueError):
    """A line that says nothing known."""


def play(text: str, *, seed: int = 1) -> str:
    """Play a scenario; return its text with every expectation replaced by what was the case.

    >>> print(play("nodes a b" + chr(10) + "start a b" + chr(10) + "run 5s" + chr(10) + "expect a:"))
    nodes a b
    start a b
    run 5s
    expect a: b=alive
    """
    stage = _Stage(seed)
    return "\n".join(_play_line(stage, number, line) for number, line in enumerate(text.split("\n"), start=1))


def _play_line(stage: _Stage, number: int, line: str) -> str:
    if not line.strip() or line.startswith("#"):
        return line
    verb, _, rest = line.strip().partition(" ")
    action = _VERBS.get(verb)
    if action is None:
        raise ScenarioInvalid(f"line {number}: no such verb: {line!r}")
    return action(stage, rest) or line


class _Stage:
    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._mesh: SimulatedMesh | None = None

    @property
    def mesh(self) -> SimulatedMesh:
        if self._mesh is None:
            raise ScenarioInvalid("a scenario begins with `nodes`")
        return self._mesh

    def nodes(self, rest: str) -> None:
        self._mesh = SimulatedMesh(self._seed, rest.split())

    def start(self, rest: str) -> None:
        names, _, disk = rest.partition(" without ")
        for node_id in names.split():
            others = [other for other in self.mesh.node_ids if other != node_id]
            self.mesh.start(node_id, seeds=others, disk_lost=bool(disk))

    def crash(self, rest: str) -> None:
        for node_id in rest.split():
            self.mesh.crash(node_id)

    def pause(self, rest: str) -> None:
        node_id, seconds = rest.split()
        self.mesh.pause(node_id, _seconds(seconds))

    def split(self, rest: str) -> None:
        self.mesh.network.split(*(group.split() for group in rest.split("|")))

    def cut(self, rest: str) -> None:
        sender, _, receiver = rest.split()
        self.mesh.network.cut(sender, receiver)

    def heal(self, _rest: str) -> None:
        self.mesh.network.heal()

    def loss(self, rest: str) -> None:
        self.mesh.network.faults = Faults(loss=float(rest.rstrip("%")) / 100)

    def link_down(self, rest: str) -> None:
        node_id, peer_id = rest.split()
        node = self.mesh.nodes[node_id]
        self.mesh.core(node_id).link_down(peer_id, node.now)
        node.pump()

    def set(self, rest: str) -> None:
        node_id, change = rest.split()
        node = self.mesh.nodes[node_id]
        self.mesh.core(node_id).update_advert(dict([change.split("=")]), node.now)
        node.pump()

    def claim(self, rest: str) -> None:
        node_id, name = rest.split()
        self.mesh.write(node_id, name)

    def remove(self, rest: str) -> None:
        node_id, name = rest.split()
        self.mesh.write(node_id, name, remove=True)

    def run(self, rest: str) -> None:
        self.mesh.run_for(_seconds(rest))

    def settle(self, _rest: str) -> None:
        self.mesh.settle()

    def expect(self, rest: str) -> str:
        observer = rest.partition(":")[0]
        return _listing("expect", observer, self.mesh.states(observer))

    def names(self, rest: str) -> str:
        observer = rest.partition(":")[0]
        return _listing("names", observer, self.mesh.names(observer))


_VERBS: dict[str, Callable[[_Stage, str], str | None]] = {
    "nodes": _Stage.nodes,
    "start": _Stage.start,
    "crash": _Stage.crash,
    "pause": _Stage.pause,
    "split": _Stage.split,
    "cut": _Stage.cut,
    "heal": _Stage.heal,
    "loss": _Stage.loss,
    "link-down": _Stage.link_down,
    "set": _Stage.set,
    "claim": _Stage.claim,
    "remove": _Stage.remove,
    "run": _Stage.run,
    "settle": _Stage.settle,
    "expect": _Stage.expect,
    "names": _Stage.names,
}


def _listing(verb: str, observer: str, beliefs: dict[str, str]) -> str:
    return " ".join([f"{verb} {observer}:", *(f"{subject}={belief}" for subject, belief in beliefs.items())])


def _seconds(text: str) -> float:
    if re.fullmatch(r"[0-9.]+s", text) is None:
        raise ScenarioInvalid(f"not a time in seconds: {text!r}")
    return float(text[:-1])
