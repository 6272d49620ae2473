"""The bundled model through every verb, and in a diffusers pipeline, with few steps."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline

import signmask
from signmask.reference.models import bundled
from signmask.runtime.comparison import Comparison
from signmask.runtime.errors import RunError
from tests.runtime.test_cli import call

STEPS = 3


@pytest.fixture(scope="module")
def compiled():
    return signmask.compile(
        bundled.load("fashion-silu"),
        steps=STEPS,
        scheduler=bundled.scheduler(),
        backend="reference",
        dataflow="restore",
        overflow="spill",
    )


def pipeline(unet):
    # Built around the fp32 model: a pipeline checks its parts' classes, but not on replacement.
    pipe = DDIMPipeline(bundled.load("fashion-silu"), bundled.scheduler())
    pipe.unet = unet
    pipe.set_progress_bar_config(disable=True)
    return pipe


def images(pipe, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return pipe(
        batch_size=1, num_inference_steps=STEPS, generator=generator, output_type="pt"
    ).images


def test_in_a_pipeline(compiled):
    ours, again = images(pipeline(compiled)), images(pipeline(compiled))
    plain = images(pipeline(bundled.load("fashion-silu")))
    assert ours.shape == (1, 4, 16, 16) and torch.equal(ours, again)
    # Pixels are in [0, 1] here; int8 is close to, and never equal to, fp32.
    assert 0 < float((ours - plain).square().mean()) < 2e-3


def test_a_pipeline_gets_the_same_images_from_the_simulator():
    found = [
        images(
            pipeline(
                signmask.compile(
                    bundled.load("fashion-silu"), steps=STEPS, scheduler=bundled.scheduler(),
                    backend=backend, dataflow="mask",
                )
            )
        )
        for backend in ("reference", "sim")
    ]  # fmt: skip
    assert torch.equal(*found)


def test_wrong_use_is_one_sentence(compiled):
    first = compiled.program.network.timesteps[0]
    with pytest.raises(RunError, match="batch 2"):
        compiled(torch.zeros(2, 4, 16, 16), first)
    with pytest.raises(RunError, match="timestep"):
        compiled(torch.zeros(1, 4, 16, 16), first - 1)
    with pytest.raises(RunError, match="4, 16, 16"):
        compiled(torch.zeros(1, 3, 16, 16), first)
    compiled(torch.zeros(1, 4, 16, 16), first)
    compiled(torch.zeros(1, 4, 16, 16), compiled.program.network.timesteps[2])
    with pytest.raises(RunError, match="start at"):
        compiled(torch.zeros(1, 4, 16, 16), compiled.program.network.timesteps[1])


def test_compile_run_and_quality(capsys, tmp_path):
    path = tmp_path / "p.smk"
    options = ("--steps", STEPS, "--dataflow", "dense", "--json")
    code, out, _ = call(capsys, "compile", "fashion-relu", "-o", path, *options)
    facts = json.loads(out)
    assert code == 0 and facts["knobs"]["mask_bits"] == 1 and facts["bytes"] == path.stat().st_size
    code, out, _ = call(capsys, "run", path, "--backend", "reference", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["psnr_db_vs_fp32"] > 20 and facts["identical_to_dense"]


def test_compare_and_report(capsys, tmp_path):
    out_folder = tmp_path / "cmp"
    code, out, _ = call(
        capsys, "compare", "fashion-silu", "--steps", 2, "--images", 2, "--backend", "reference",
        "--out", out_folder, "--json",
    )  # fmt: skip
    data = json.loads(out)
    rows = {row["label"]: row for row in data["dataflows"]}
    assert code == 0 and list(rows) == ["dense", "restore", "mask", "mask --paper"]
    assert rows["restore"]["output_sha256"] == rows["dense"]["output_sha256"]
    assert rows["restore"]["identical_to_dense"] and not rows["mask --paper"]["identical_to_dense"]
    page = out_folder / "report.html"
    text = page.read_text()
    assert 'src="data:image/png;base64,' in text and "http" not in text
    stored = Comparison.load(out_folder)
    assert set(stored.pixels) == {"fp32", *rows}
    assert all(p.shape == (2, 1, 32, 32) and np.isfinite(p).all() for p in stored.pixels.values())
    page.unlink()
    assert call(capsys, "report", out_folder)[0] == 0
    assert page.read_text() == text
