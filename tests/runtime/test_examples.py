"""The README's own model: from its source to images."""

import importlib.util
from pathlib import Path

import pytest
import torch

from signmask.hw.spec.container import Program
from signmask.runtime.cli.main import main
from signmask.runtime.session import Session

SOURCE = Path(__file__).parents[2] / "examples" / "discs.py"


def test_discs_from_source_to_images(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("discs", SOURCE)
    discs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(discs)
    example = (torch.zeros(1, 1, 16, 16), torch.ones(1))
    exported = torch.export.export(discs.train(2).eval(), example, strict=False)
    torch.export.save(exported, tmp_path / "discs.pt2")
    program = tmp_path / "discs.smk"
    arguments = ["compile", str(tmp_path / "discs.pt2"), "-o", str(program), "--steps", "3"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--calibration-images", "2"])
    assert not ended.value.code, capsys.readouterr().err
    loaded = Program.load(program)
    found = [Session(loaded, backend).sample(1) for backend in ("reference", "sim")]
    assert found[0].output_sha256 == found[1].output_sha256
    assert found[0].images.shape == (1, 1, 16, 16)
