"""The command line on the bundled model: what each verb prints, and that the backends agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from signmask.runtime.cli.main import main
from tests.assembler import parse

STEPS = 3
KEYS = (
    "backend config dataflow steps images cycles output_sha256 psnr_db_vs_fp32 psnr_db_vs_dense "
    "traffic_bytes utilisation host_operations"
).split()
FLOWS = {
    "dense": ("--dataflow", "dense"),
    "restore": ("--dataflow", "restore"),
    "mask": ("--dataflow", "mask"),
    "paper": ("--dataflow", "mask", "--paper"),
}
STALL_SECONDS = 300


class Done(NamedTuple):
    """Exit code and output of a command."""

    code: object
    stdout: str
    stderr: str


def command(*arguments: object) -> Done:
    """Run `signmask` in this process: importing torch anew takes longer than the work."""
    stdout, stderr = StringIO(), StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr), pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return Done(stop.value.code, stdout.getvalue(), stderr.getvalue())


def result(*arguments: object) -> dict[str, Any]:
    """The one JSON object on stdout of a command that succeeds; stderr is not a terminal here, so
    it stays empty."""
    done = command(*arguments, "--json")
    assert done.code == 0 and done.stderr == "", done.stderr
    value = json.loads(done.stdout)  # raises where anything follows the object
    assert isinstance(value, dict)
    return value


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Program file and the facts that `compile` printed, by dataflow."""
    folder = tmp_path_factory.mktemp("contract")
    made = {}
    for flow, options in FLOWS.items():
        path = folder / f"{flow}.smk"
        facts = result("compile", "fashion-silu", "-o", path, "--steps", STEPS, *options)
        made[flow] = path, facts
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"{flow}.smk" for flow in FLOWS)
    return made


@pytest.fixture(scope="module")
def runs(programs) -> dict[tuple[str, str], dict[str, Any]]:
    """What `run` printed, by dataflow and backend."""
    return {
        (flow, backend): result("run", path, "--backend", backend)
        for flow, (path, _) in programs.items()
        for backend in ("reference", "sim")
    }


def test_compile_says_what_it_wrote(programs):
    for flow, (path, facts) in programs.items():
        assert facts["program"] == str(path) and facts["bytes"] == path.stat().st_size
        assert facts["steps"] == STEPS and facts["config"] == "nano"
        phases = {"dense"} if flow == "dense" else {"dense", "delta"}
        assert set(facts["instructions"]) == phases
    assert programs["paper"][1]["knobs"]["loop"] == "open"
    assert programs["mask"][1]["knobs"]["loop"] == "closed"


def test_run_has_every_key(runs):
    for (flow, backend), facts in runs.items():
        assert [key for key in KEYS if key not in facts] == []
        assert (facts["backend"], facts["config"], facts["steps"]) == (backend, "nano", STEPS)
        assert facts["dataflow"] == ("mask" if flow == "paper" else flow)
        assert facts["images"] == 1 and len(facts["output_sha256"]) == 64
        assert facts["psnr_db_vs_fp32"] > 5
        assert {"name", "calls", "elements", "seconds"} <= set(facts["host_operations"][0])
        timed = backend == "sim"
        for key in ("cycles", "traffic_bytes", "utilisation"):
            assert (facts[key] is not None) == timed, key
        if timed:
            assert facts["cycles"] > 0 and 0 < facts["utilisation"] <= 1
            assert facts["traffic_bytes"]["weights"] > 0
            near = facts["traffic_bytes"].get("near_data", 0)
            assert (near > 0) == (facts["dataflow"] == "mask")


def test_backends_end_in_the_same_bits(runs):
    for flow in FLOWS:
        ours, theirs = (runs[flow, backend] for backend in ("reference", "sim"))
        for key in ("output_sha256", "image_sha256", "psnr_db_vs_fp32", "psnr_db_vs_dense"):
            assert ours[key] == theirs[key], (flow, key)


def test_restore_is_dense_and_mask_is_not(runs):
    hashes = {flow: runs[flow, "sim"]["output_sha256"] for flow in FLOWS}
    assert hashes["restore"] == hashes["dense"]
    assert len({hashes["dense"], hashes["mask"], hashes["paper"]}) == 3
    for flow in ("dense", "restore"):
        assert runs[flow, "sim"]["identical_to_dense"] is True
        assert runs[flow, "sim"]["psnr_db_vs_dense"] is None  # infinite
    assert runs["mask", "sim"]["psnr_db_vs_dense"] > runs["paper", "sim"]["psnr_db_vs_dense"]


def test_the_same_command_gives_the_same_bytes(programs, tmp_path):
    path, facts = programs["mask"]
    again = tmp_path / "again.smk"
    arguments = ("compile", "fashion-silu", "-o", again, "--steps", STEPS)
    assert result(*arguments)["sha256"] == facts["sha256"]
    assert again.read_bytes() == path.read_bytes()


def test_inspect_disassembles_to_what_the_assembler_reads(programs):
    facts = result("inspect", programs["mask"][0], "--disassemble")
    assert facts["layer_table"] and facts["memory_map"] and facts["knobs"]["dataflow"] == "mask"
    for phase, count in programs["mask"][1]["instructions"].items():
        lines = facts["disassembly"][phase]
        assert len(lines) == count > 0
        assert [parse(line).text() for line in lines] == lines


def test_a_process_of_its_own(programs, runs):
    arguments = ["run", str(programs["mask"][0]), "--backend", "sim", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "signmask.runtime.cli.main", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=STALL_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stderr
    found, expected = json.loads(done.stdout), runs["mask", "sim"]
    assert found.keys() == expected.keys()
    for key in ("output_sha256", "cycles", "traffic_bytes", "psnr_db_vs_fp32"):
        assert found[key] == expected[key]


def test_models():
    names = [row["name"] for row in result("models")["models"]]
    assert names == ["fashion-silu", "fashion-relu"]


def test_own_configuration(tmp_path):
    config, program = tmp_path / "wider.json", tmp_path / "wider.smk"
    config.write_text(json.dumps({"rows": 16, "memory_latency": 7}))
    arguments = ("compile", "fashion-silu", "-o", program, "--steps", 2, "--config", config)
    facts = result(*arguments, "--dataflow", "dense")
    assert facts["config"] == "wider"
    assert (facts["hardware"]["rows"], facts["hardware"]["memory_latency"]) == (16, 7)
    assert facts["hardware"]["columns"] == 8
    program.unlink()
    for text, part in (
        ('{"rows": 16', "no JSON"),
        ("[]", "no JSON object"),
        ('{"lasers": 1}', "unknown field 'lasers'"),
        ('{"rows": 0}', "rows is 0"),
        ('{"inlier_bits": 9}', "inlier_bits is 9"),
        ('{"profile": "int"}', "unknown field 'profile'"),
        ('{"accumulator_words": 16}', "accumulator"),
        ('{"input_words": 16}', "input"),
        ('{"weight_words": 8}', "weight"),
    ):
        config.write_text(text)
        done = command(*arguments, "--json")
        assert done.code == 2 and done.stdout == "" and part in done.stderr, done.stderr
        assert done.stderr.startswith("signmask: ") and done.stderr.count("\n") == 1
        assert [p.name for p in tmp_path.iterdir()] == ["wider.json"], text
