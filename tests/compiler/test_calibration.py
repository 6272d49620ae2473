import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from signmask.compiler.calibration import BINS, Calibration
from signmask.compiler.errors import CompileError
from signmask.compiler.frontend import calibrate
from signmask.reference.models.unet import scheduler
from tests.compiler.models import example, tiny


@pytest.fixture(scope="module")
def measured():
    return calibrate(tiny(), scheduler(), 3, example(), images=3)


def test_file_round_trip_is_exact(tmp_path, measured):
    measured.save(tmp_path / "c.safetensors")
    loaded = Calibration.load(tmp_path / "c.safetensors")
    assert loaded.timesteps == measured.timesteps
    assert (loaded.inputs == measured.inputs).all()
    for table in ("ranges", "histograms", "group_mean", "group_deviation", "channel_mean"):
        before, after = getattr(measured, table), getattr(loaded, table)
        assert before.keys() == after.keys()
        assert all((before[k] == after[k]).all() for k in before)


def test_histograms_count_every_element(measured):
    # Three images, three steps, two channels of 8x8.
    assert measured.histograms["sample"].shape == (BINS,)
    assert measured.histograms["sample"].sum() == 3 * 3 * 2 * 64


def test_inputs_start_with_the_noise_of_each_image(measured):
    assert measured.inputs.shape == (3, 3, 2, 8, 8)
    # float16 merges a few of the 384 draws
    assert len(np.unique(measured.inputs[0])) > 300
    assert not np.array_equal(measured.inputs[0, 0], measured.inputs[0, 1])


def test_inputs_beyond_float16_are_kept(tmp_path):
    wide = {"clip_sample": False, "prediction_type": "sample"}
    model = tiny()
    with torch.no_grad():
        model.last.bias.fill_(1e6)
    found = calibrate(model, DDIMScheduler(**wide), 3, example(), images=1)
    assert np.isfinite(found.inputs).all() and np.abs(found.inputs).max() > 65504
    found.save(tmp_path / "c.safetensors")
    assert (Calibration.load(tmp_path / "c.safetensors").inputs == found.inputs).all()


@pytest.mark.parametrize("layer", ["stem", "last"])
def test_overflow_while_sampling_is_one_sentence(layer):
    model = tiny()
    with torch.no_grad():
        model.get_submodule(layer).weight.fill_(3e38)
    with pytest.raises(CompileError, match=f"in '{layer}.*' at timestep 999; check the weights"):
        calibrate(model, scheduler(), 3, example(), images=1)


@pytest.mark.parametrize("content", [b"", b"x" * 100])
def test_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    with pytest.raises(CompileError, match="not an intact calibration"):
        Calibration.load(path)
