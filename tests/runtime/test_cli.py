"""The contract of the command line: JSON on stdout, one sentence and exit code 2 on failure."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from signmask.runtime.cli.main import main
from signmask.runtime.errors import RunError
from signmask.runtime.session import Session
from tests.runtime.programs import tiny_program

RUN_KEYS = (
    "backend config dataflow steps images cycles output_sha256 psnr_db_vs_fp32 psnr_db_vs_dense "
    "traffic_bytes utilisation host_operations"
).split()


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def failure(capsys, *arguments):
    """The message of a run that fails as it should."""
    code, out, err = call(capsys, *arguments)
    assert code == 2 and out == "" and "Traceback" not in err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("signmask: ") and lines[0].endswith(".")
    return lines[0]


@pytest.fixture
def program_file(tmp_path):
    path = tmp_path / "tiny.smk"
    tiny_program().save(path)
    return path


def test_run_prints_one_object_and_writes_images(capsys, tmp_path, program_file):
    arguments = ("run", program_file, "--backend", "reference", "--images", 3, "--json")
    code, out, _ = call(capsys, *arguments, "--out", tmp_path / "out")
    facts = json.loads(out)
    assert code == 0
    assert all(key in facts for key in RUN_KEYS)
    assert facts["cycles"] is None and facts["traffic_bytes"] is None
    assert len(facts["image_sha256"]) == facts["images"] == 3
    assert facts["psnr_db_vs_fp32"] is None and "fp32" in facts["notes"][0]
    assert load_file(tmp_path / "out" / "samples.safetensors")["samples"].shape == (3, 4, 8, 8)
    assert (tmp_path / "out" / "samples.png").read_bytes().startswith(b"\x89PNG")
    again = json.loads(call(capsys, *arguments)[1])
    assert again["output_sha256"] == facts["output_sha256"]


def test_infinite_psnr_is_null(capsys, tmp_path):
    path = tmp_path / "restore.smk"
    tiny_program(dataflow="restore", overflow="spill").save(path)
    facts = json.loads(call(capsys, "run", path, "--backend", "reference", "--json")[1])
    assert facts["psnr_db_vs_dense"] is None and facts["identical_to_dense"] is True


def test_tables_fit_100_columns(capsys, program_file):
    for arguments in (("run", program_file, "--backend", "reference"), ("inspect", program_file)):
        code, out, _ = call(capsys, *arguments)
        # Sentences and paths are left to the terminal.
        tables = [line for line in out.splitlines() if not line.startswith(("Note: ", "Why "))]
        assert code == 0 and max(map(len, tables)) <= 100


def test_inspect_json(capsys, program_file):
    facts = json.loads(call(capsys, "inspect", program_file, "--disassemble", "--json")[1])
    assert facts["knobs"]["mask_bits"] == 3 and facts["steps"] == 5
    assert len(facts["layer_table"]) > 5 and facts["disassembly"] == {}


def test_models(capsys):
    code, out, _ = call(capsys, "models", "--json")
    assert code == 0
    assert [m["name"] for m in json.loads(out)["models"]] == ["fashion-silu", "fashion-relu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "absent.smk"), "absent.smk"),
        (("compile", "absent", "-o", "x.smk"), "model 'absent'"),
        (("compile", "fashion-silu"), "--output"),
        (("compile", "fashion-silu", "-o", "no/where.smk"), "folder no"),
        (("compile", "", "-o", "x.smk"), "the model's name is empty"),
        (("compile", "fashion-silu", "-o", "x.smk", "--config", "huge"), "unknown config 'huge'"),
        (("compile", "fashion-silu", "-o", "x.smk", "--mask-bits", "7"), "--mask-bits is 7"),
        (("compile", "fashion-silu", "-o", "x.smk", "--steps", "0"), "0 steps"),
        (("compile", "fashion-silu", "-o", "x.smk", "--batch", "0"), "batch is 0"),
        (("compile", "fashion-silu", "-o", "x.smk", "--steps", "many"), "'--steps'"),
        (("report", "absent"), "absent"),
        (("frobnicate",), "frobnicate"),
    ],
)
def test_failures_are_one_sentence(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in failure(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_damaged_programs(capsys, tmp_path, program_file):
    data = bytearray(program_file.read_bytes())
    program_file.write_bytes(data[:-9])
    assert "truncated" in failure(capsys, "run", program_file)
    data[len(data) // 2] ^= 1
    program_file.write_bytes(data)
    assert "checksum" in failure(capsys, "inspect", program_file)


def test_bad_runs(capsys, tmp_path, program_file):
    out = tmp_path / "out"
    assert "unknown backend" in failure(capsys, "run", program_file, "--backend", "tpu")
    run = ("run", program_file, "--backend", "reference", "--out", out)
    assert "images is 0" in failure(capsys, *run, "--images", 0)
    assert "golden model only" in failure(capsys, "run", program_file, "--backend", "sim")
    program = tiny_program()
    table = program.network.output_table
    nan = {**program.tensors, table: np.full_like(program.tensors[table], np.nan)}
    replace(program, tensors=nan).save(program_file)
    assert "NaN" in failure(capsys, *run)
    assert not out.exists()


class Rtl:
    """Stands for the RTL: refuses every step, and counts how often it is closed."""

    closed = 0

    def dense_step(self, index, codes):
        raise RunError("the simulation ended; run it again.")

    delta_step = dense_step

    def close(self):
        self.closed += 1


def test_the_rtl_is_closed_after_a_failure(capsys, program_file, monkeypatch):
    machine = Rtl()
    monkeypatch.setattr("signmask.runtime.backend.open_rtl", lambda *_: machine)
    assert "simulation ended" in failure(capsys, "run", program_file, "--backend", "rtl")
    assert machine.closed == 1


def test_under_stalls_only_results_are_claimed(capsys, program_file, monkeypatch):
    class Same:
        steps, differences = 3, []

        def __init__(self, program, stall_seed, waves):
            self.backend = Session(program).backend
            self.dense_step, self.delta_step = self.backend.dense_step, self.backend.delta_step

        def close(self):
            pass

    monkeypatch.setattr("signmask.runtime.divergence.Lockstep", Same)
    timed = call(capsys, "hw", "diff", program_file)[1]
    assert "every start, end, scratchpad write" in timed and "stalls" not in timed
    stalled = call(capsys, "hw", "diff", program_file, "--stall-seed", 1)[1]
    assert "every scratchpad write" in stalled and "times were not compared." in stalled
    facts = json.loads(call(capsys, "hw", "diff", program_file, "--stall-seed", 1, "--json")[1])
    assert facts["times_compared"] is False


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", "is a folder"),
        ("folder", "is a folder"),
        ("/proc/x.smk", "cannot write into folder"),
        ("x" * 300, "File name too long"),
    ],
)
def test_compile_checks_its_output_first(capsys, tmp_path, monkeypatch, place, message):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signmask.runtime.build.build_program", lambda *_, **__: pytest.fail())
    assert message in failure(capsys, "compile", "fashion-silu", "-o", place)


def test_run_checks_its_folder_first(capsys, tmp_path, program_file, monkeypatch):
    monkeypatch.setattr(Session, "sample", lambda *_, **__: pytest.fail("sampled"))
    for place, message in ((program_file, "is no folder"), ("/proc/x/y", "cannot write into")):
        assert message in failure(capsys, "run", program_file, "--out", place)
    assert list(tmp_path.iterdir()) == [program_file]


@pytest.mark.parametrize("verb", [(), ("hw",), ("bench",)])
def test_no_verb_shows_the_help(capsys, verb):
    code, out, err = call(capsys, *verb)
    assert code == 2 and out == ""
    assert err.startswith("Usage: signmask") and len(err.splitlines()) > 5
