"""New versions under old names, while products go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from daemons import patched, wait_until
from meshes import MeshOfDaemons
from products import is_right, normal

from sedmad.errors import SedmadError, StaleManifest


@pytest.fixture(scope="module")
def pair(make_mesh: Callable[..., MeshOfDaemons]) -> MeshOfDaemons:
    """Two daemons that free a replaced version soon."""
    mesh = make_mesh("ann", "ben")
    for daemon in mesh:
        daemon.command = patched("sedmad.node.removing", REPLACED_AFTER_S=1.0)
    return mesh.start()


@pytest.fixture(autouse=True)
def emptied(pair: MeshOfDaemons) -> Iterator[None]:
    yield
    pair.empty()


def in_use(mesh: MeshOfDaemons) -> tuple[int, ...]:
    """Return memory, disk and bytes in use on all nodes together."""
    return tuple(sum(column) for column in zip(*mesh.used(), strict=True))


def test_a_new_version_comes_in_under_running_products(pair: MeshOfDaemons) -> None:
    versions = [normal(3000, 1024, seed=seed) for seed in range(3)]
    x = normal(1024, seed=9)
    one = (versions[0].nbytes, 2 * versions[0].nbytes, 2 * versions[0].nbytes)
    with pair["ann"].connect() as ann, pair["ben"].connect() as ben:
        assert ann.put("w", versions[0]).version == 1
        wait_until(lambda: "w" in ben, "the name to arrive")
        held = ben["w"]
        wrong: list[str] = []
        done = threading.Event()

        def multiply() -> None:
            while not done.is_set():
                try:
                    y = held @ x
                except SedmadError as error:
                    wrong.append(f"{type(error).__name__}: {error}")
                else:
                    if not any(is_right(y, w, x) for w in versions):
                        wrong.append("no version's product")

        multiplying = threading.Thread(target=multiply)
        multiplying.start()
        try:
            assert ann.put("w", versions[1], replace=True).version == 2
            wait_until(lambda: is_right(held @ x, versions[1], x), "products with the new version")
            wait_until(lambda: in_use(pair) == one, "the old version to be freed")
            # Another node may replace it, too; the owner changes with it.
            assert ben.put("w", versions[2], replace=True).version == 3
            wait_until(lambda: is_right(held @ x, versions[2], x), "products with the newest version")
        finally:
            done.set()
            multiplying.join()
        assert wrong == []
        assert held.version == 3
        for client in (ann, ben):
            wait_until(lambda client=client: client["w"].version == 3, "the newest version to arrive")
            assert client["w"].get().tobytes() == versions[2].tobytes()
        wait_until(lambda: in_use(pair) == one, "the version before to be freed")
        ann.remove("w")
        pair.wait_used([(0, 0, 0)] * 2)


def test_a_version_of_another_form_is_not_mistaken_for_the_old_one(pair: MeshOfDaemons) -> None:
    with pair["ann"].connect() as ann:
        held = ann.put("w", normal(300, 40))
        ann.put("w", normal(300, 50, seed=1), replace=True)
        with pytest.raises(StaleManifest) as caught:
            held @ normal(40)
        assert caught.value.matrix == "w"
        x = normal(50)
        assert is_right(ann["w"] @ x, normal(300, 50, seed=1), x)


def test_a_replacement_that_does_not_fit_leaves_the_old_version(pair: MeshOfDaemons) -> None:
    w, x = normal(300, 40), normal(40)
    bad = normal(5000, 1024)
    bad[-1, -1] = float("nan")
    with pair["ann"].connect() as ann:
        held = ann.put("w", w)
        before = pair.used()
        with pytest.raises(SedmadError):
            ann.put("w", bad, replace=True)
        pair.wait_used(before)
        assert ann["w"].version == held.version
        assert is_right(held @ x, w, x)
