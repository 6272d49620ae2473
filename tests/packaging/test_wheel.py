"""What a built wheel holds, and whether pyproject lists what lies on disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
TOP = ("hw", "compiler", "sim", "runtime", "reference")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages_on_disk() -> dict[str, str]:
    """Installed name and folder of every folder with Python files."""
    found = {"signmask": "signmask"}
    for top in TOP:
        for file in (ROOT / top).rglob("*.py"):
            folder = file.parent.relative_to(ROOT).as_posix()
            found["signmask." + folder.replace("/", ".")] = folder
    return found


def tracked(pattern: str) -> set[str]:
    """Files under the source folders that match, relative to the root."""
    return {
        file.relative_to(ROOT).as_posix() for top in TOP for file in (ROOT / top).rglob(pattern)
    }


def test_pyproject_lists_every_package_and_no_other() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    assert sorted(setuptools["packages"]) == sorted(packages_on_disk())
    assert setuptools["package-dir"] == packages_on_disk()


def test_every_package_has_an_init_file() -> None:
    assert [
        f for f in packages_on_disk().values() if not (ROOT / f / "__init__.py").is_file()
    ] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel built from a copy of the sources (setuptools writes there)."""
    copy = tmp_path_factory.mktemp("source")
    for top in ("signmask", *TOP):
        shutil.copytree(ROOT / top, copy / top, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    run = subprocess.run(
        [sys.executable, "-c", build],
        cwd=copy,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert run.returncode == 0, run.stderr
    (built,) = (copy / "dist").glob("*.whl")
    return set(zipfile.ZipFile(built).namelist())


def test_wheel_holds_every_module_under_signmask_and_nothing_else(wheel: set[str]) -> None:
    modules = {"signmask/" + path for path in tracked("*.py")} | {"signmask/__init__.py"}
    assert {name for name in wheel if name.endswith(".py")} == modules
    roots = {PurePosixPath(name).parts[0] for name in wheel}
    version = PROJECT["project"]["version"]
    assert roots == {"signmask", f"signmask-{version}.dist-info"}


def test_wheel_holds_the_weights_cards_and_licence(wheel: set[str]) -> None:
    data = tracked("*.safetensors") | tracked("*.json") | tracked("*.md")
    assert len([name for name in data if name.endswith("weights.safetensors")]) == 3
    assert {"signmask/" + path for path in data} <= wheel
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)


def test_type_checkers_see_the_same_layout() -> None:
    shown = ROOT / "typings" / "signmask"
    assert sorted(p.name for p in shown.iterdir()) == sorted([*TOP, "__init__.py"])
    for top in TOP:
        assert (shown / top).resolve() == ROOT / top
    assert (shown / "__init__.py").resolve() == ROOT / "signmask" / "__init__.py"


def test_torch_is_no_base_dependency() -> None:
    base = " ".join(PROJECT["project"]["dependencies"])
    assert not any(heavy in base for heavy in ("torch", "diffusers", "matplotlib", "amaranth"))
