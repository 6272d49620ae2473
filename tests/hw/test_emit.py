"""Emitted Verilog and `signmask hw emit`: lint, manifest, one sentence for every failure."""

import hashlib
import json
from dataclasses import replace

import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.emit import emit
from signmask.hw.package import designs
from signmask.hw.spec.config import NANO
from signmask.runtime.cli.main import main
from tests.hw.verilog_lint import lint

TINY = replace(
    NANO, name="tiny", rows=2, columns=2, group=8, full_lanes=1, axi_bytes=16, near_data_bytes=16,
    input_words=256, weight_words=256, accumulator_words=256, mask_words=256, parameter_words=256,
    row_words=64, bitmap_words=64, engine_words=64, queue_depth=4, counter_entries=16,
)  # fmt: skip


class PartlyConstant(wiring.Component):
    """A signal some of whose bits never change."""

    def __init__(self):
        super().__init__({"choice": In(2), "value": Out(16)})

    def elaborate(self, platform):
        m = Module()
        value = Signal(16)
        with m.Switch(self.choice):
            with m.Case(1):
                m.d.comb += value[:4].eq(9)
            with m.Case(2):
                m.d.comb += value[8:].eq(self.choice)
        m.d.comb += self.value.eq(value)
        return m


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(TINY.to_json()))
    return path


def test_constant_bits_are_assigned_in_processes_that_run():
    assert lint(emit(PartlyConstant(), "partly_constant")) == ""


@pytest.mark.slow
@pytest.mark.parametrize("config", [TINY, NANO], ids=lambda config: config.name)
def test_lint(config):
    for design in designs(config):
        assert lint(design) == ""


@pytest.mark.slow
def test_emit(capsys, tmp_path, config_file):
    folder = tmp_path / "out"
    arguments = ("hw", "emit", "--config", config_file, "-o", folder, "--json")
    code, out, err = call(capsys, *arguments)
    assert (code, err) == (0, "")
    facts = json.loads(out)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert facts["complete"] and facts["modules"] == ["signmask"]
    assert sorted(facts["files"]) == sorted(str(path) for path in folder.iterdir())
    assert manifest["config"] == TINY.to_json()
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    ports = {port["name"]: port for port in manifest["modules"][0]["ports"]}
    assert ports["load_rdata"] == {"name": "load_rdata", "width": 128, "direction": "input"}
    registers = {register["name"] for register in manifest["registers"]["registers"]}
    assert {"START", "STATUS", "CYCLES", "BUSY_ARRAY"} <= registers
    # Again into the same folder: the same bytes, nothing left of the first time.
    (folder / "old.v").touch()
    assert call(capsys, *arguments)[0] == 0
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    assert not (folder / "old.v").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("config", "folder", "words"),
    [
        ("huge", "out", "unknown config 'huge'"),
        ("nano", "absent/out", "does not exist"),
        ("nano", "foreign", "has files that are not from"),
        ("nano", "file", "is a file"),
    ],
)
def test_failures(capsys, tmp_path, config, folder, words):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    code, out, err = call(capsys, "hw", "emit", "--config", config, "-o", tmp_path / folder)
    assert (code, out) == (2, "")
    assert words in err and err.startswith("signmask: ") and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "foreign"]
