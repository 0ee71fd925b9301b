"""What a build of the image needs where registries and package indexes cannot be reached from containers.

The base image is then made with debootstrap, and the requirements are brought as wheels. Both are cached: the first run
takes some minutes more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from container_engine import CACHE, Engine, EngineMissing

BASE_IMAGE = "python:3.11-slim-bookworm"
BASE_PYTHON = (3, 11)
BASE_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
# Small and without requirements of its own: downloading it shows whether containers reach an index.
PROBE = "sniffio"
PULL_TIMEOUT_S = 300.0
DEBOOTSTRAP_TIMEOUT_S = 900.0
WHEELS_TIMEOUT_S = 600.0


def provide_base_image(engine: Engine) -> None:
    """Pull the base image, or make one like it with Debian's Python.

    Raises:
        EngineMissing: there is none to be had.
    """
    if engine.run("docker", "image", "inspect", BASE_IMAGE, check=False).returncode == 0:
        return
    if (
        engine.run("docker", "pull", "--quiet", BASE_IMAGE, check=False, timeout_s=PULL_TIMEOUT_S).returncode
        == 0
    ):
        return
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise EngineMissing(f"{BASE_IMAGE} cannot be pulled, and making it takes root and debootstrap")
    # Not among temporary files: these often lie where no devices can be made.
    root = CACHE / "base"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    try:
        made = engine.run(
            *("debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", str(root)),
            check=False,
            timeout_s=DEBOOTSTRAP_TIMEOUT_S,
        )
        if made.returncode != 0:
            raise EngineMissing(
                f"{BASE_IMAGE} cannot be pulled, and debootstrap failed: {made.stdout[-300:]}"
            )
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run(
                ["docker", "import", "-", BASE_IMAGE], env=engine.environment, stdin=tar.stdout, check=True
            )
    finally:
        shutil.rmtree(root, ignore_errors=True)


def reaches_index(engine: Engine) -> bool:
    """Whether pip can download in a container."""
    pip = ["python3", "-m", "pip", "download", "--quiet", "--retries", "0", "--timeout", "10"]
    pip += ["--no-deps", "--dest", "/tmp", PROBE]
    return engine.run("docker", "run", "--rm", BASE_IMAGE, *pip, check=False).returncode == 0


def provide_wheels(source: Path, target: Path) -> None:
    """Put wheels of all requirements of `source`, a copy of this repository, into `target`.

    Raises:
        EngineMissing: they cannot be downloaded here, or not for the base image's Python.
    """
    if sys.version_info[:2] != BASE_PYTHON:
        raise EngineMissing("containers reach no package index, and wheels for them need Python 3.11 here")
    project = tomllib.loads((source / "pyproject.toml").read_text())
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    constraints = source / "constraints.txt"
    # What the wheels in the cache are for; others are made anew.
    purpose = "\n".join([*wanted, constraints.read_text()])
    cached = CACHE / "wheels"
    stamp = cached / "made-for.txt"
    if not stamp.exists() or stamp.read_text() != purpose:
        shutil.rmtree(cached, ignore_errors=True)
        cached.mkdir(parents=True)
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(cached)]
        made = subprocess.run(
            [*pip, "--constraint", str(constraints), *wanted],
            capture_output=True,
            text=True,
            timeout=WHEELS_TIMEOUT_S,
            check=False,
        )
        if made.returncode != 0:
            raise EngineMissing(f"neither containers nor this reach a package index: {made.stderr[-300:]}")
        stamp.write_text(purpose)
    for wheel in cached.glob("*.whl"):
        shutil.copy2(wheel, target)
