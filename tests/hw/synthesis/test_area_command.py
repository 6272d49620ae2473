"""`signmask hw area`: what it prints and writes, and its sentences for what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from signmask.hw.synthesis import study
from signmask.runtime.cli.main import main


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["hw", "area", *arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, result: dict[str, Any]) -> dict[str, Any]:
    """A made-up result in place of a synthesis."""
    monkeypatch.setattr(study, "study", lambda *arguments: result)
    return result


def test_json(known: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    assert json.loads(capsys.readouterr().out) == known


def test_tables_and_files(
    known: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-o", str(tmp_path)) == 0
    said = capsys.readouterr().out
    for unit in known["units"]:
        assert unit["name"].split()[0] in said
    assert "The paper states 3.6 %" in said
    assert json.loads((tmp_path / "data" / "area.json").read_text(encoding="utf-8")) == known
    assert (tmp_path / "area.md").read_text(encoding="utf-8").startswith("# Area and timing: nano")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--library", "x"], "unknown library 'x'; choose osu018 or osu035."),
        (["--period", "-1"], "period of -1.0 ns is out of range; choose one"),
        (["--config", "x"], "unknown config 'x'"),
        (["-o", "/does/not/exist"], "folder /does/not/exist does not exist; create it"),
    ],
)
def test_wrong_options_are_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_missing_tools_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run() == 2
    said = capsys.readouterr().err
    assert said == (
        "signmask: the program 'yosys' is not on PATH; install it with 'apt-get install yosys'.\n"
    )
