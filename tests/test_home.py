from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sedmad.errors import ConfigurationInvalid
from sedmad.home import SOCKET_PATH_LIMIT_BYTES, Home

XDG = {"XDG_CONFIG_HOME": "/c", "XDG_DATA_HOME": "/d", "XDG_RUNTIME_DIR": "/r"}


def test_explicit_home_keeps_everything_in_one_folder_and_wins_over_the_environment() -> None:
    home = Home.locate("/srv/a", {"SEDMAD_HOME": "/srv/b", **XDG})
    paths = {
        home.configuration_file,
        home.identity_key,
        home.certificates,
        home.database,
        home.blobs,
        home.lock_file,
        home.control_socket,
    }
    assert home.kernels == Path("/srv/a/cache/kernels")
    assert {path.parent for path in paths} == {Path("/srv/a")}
    assert len(paths) == 7


def test_environment_names_the_home() -> None:
    assert Home.locate(None, {"SEDMAD_HOME": "/srv/b", **XDG}).data_directory == Path("/srv/b")


def test_relative_home_and_tilde_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert Home.locate("mesh", {}).data_directory == tmp_path / "mesh"
    assert Home.locate("~/mesh", {}).data_directory == Path("/home/someone/mesh")


@pytest.mark.parametrize("unset", [{}, {"SEDMAD_HOME": ""}])
def test_xdg_directories_by_default(unset: dict[str, str]) -> None:
    home = Home.locate(None, {**XDG, **unset})
    assert home.configuration_file == Path("/c/sedmad/config.toml")
    assert home.database == Path("/d/sedmad/store.db")
    assert home.control_socket == Path("/r/sedmad/control.sock")


def test_xdg_defaults_lie_under_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in XDG:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    home = Home.locate(None, {"XDG_DATA_HOME": "relative/is/ignored"})
    assert home.data_directory == Path("/home/someone/.local/share/sedmad")
    assert home.configuration_directory == Path("/home/someone/.config/sedmad")


def test_without_a_runtime_directory_the_socket_lies_beside_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 987_654_321)  # nobody's /run/user/UID
    home = Home.locate(None, {"XDG_CONFIG_HOME": "/c", "XDG_DATA_HOME": "/d"})
    assert home.control_socket == Path("/d/sedmad/control.sock")


def test_create_makes_private_directories_and_leaves_existing_ones(tmp_path: Path) -> None:
    existing = tmp_path / "shared"
    existing.mkdir(mode=0o755)
    for directory in (existing, tmp_path / "new" / "home"):
        home = Home.locate(str(directory), {})
        home.create()
        home.create()
    assert stat.S_IMODE(existing.stat().st_mode) == 0o755
    for path in (home.data_directory, home.blobs, home.certificates):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_create_names_the_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationInvalid, match="file/home"):
        Home.locate(str(tmp_path / "file" / "home"), {}).create()


def test_a_socket_path_that_the_system_refuses_is_refused_with_its_length() -> None:
    longest = "/" + "h" * (SOCKET_PATH_LIMIT_BYTES - 1 - len("/control.sock"))
    assert len(bytes(Home.locate(longest, {}).control_socket)) == SOCKET_PATH_LIMIT_BYTES
    with pytest.raises(ConfigurationInvalid, match=r"108 bytes.*\n.*SEDMAD_HOME"):
        Home.locate(longest + "h", {})
    with pytest.raises(ConfigurationInvalid):
        Home.locate(longest[:-1] + "é", {})


def test_importing_it_loads_nothing_heavy() -> None:
    script = "import sys, sedmad.home; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert not {"trio", "sqlite3", "numpy", "platformdirs"} & set(loaded)
