"""`signmask.compile` and what it returns: wrong arguments are named in one sentence."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FluxTransformer2DModel, UNet2DModel
from torch import nn

import signmask
from signmask.hw.spec.config import ConfigError
from signmask.runtime import module
from signmask.runtime.errors import RunError


def unet(**fields):
    torch.manual_seed(0)
    return UNet2DModel(**{
        "sample_size": 8, "block_out_channels": (16,), "norm_num_groups": 8,
        "layers_per_block": 1, "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",), **fields,
    }).eval()  # fmt: skip


@pytest.fixture(scope="module")
def compiled():
    return signmask.compile(
        unet(), steps=np.int64(3), calibration_images=1, backend="reference", mask_bits=np.int64(2)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": None}, "model is NoneType; give a torch.nn.Module"),
        ({"model": "fashion-silu"}, "model is 'fashion-silu'; give .*sources.resolve"),
        ({"model": nn.Conv2d(3, 3, 3)}, "config of Conv2d has in_channels None"),
        ({"model": unet(sample_size=None)}, "in_channels 3 and sample_size None"),
        ({"scheduler": "ddim"}, "scheduler is 'ddim'; give a diffusers DDIMScheduler"),
        ({"steps": "5"}, "steps is '5'; give a whole number from 1"),
        ({"steps": 2.5}, "steps is 2.5; give a whole number"),
        ({"steps": 0}, "steps is 0"),
        ({"batch": True}, "batch is True"),
        ({"calibration_images": -2}, "calibration_images is -2"),
        ({"config": None}, "config is NoneType"),
        ({"backend": "tpu"}, "backend is 'tpu'; give one of reference"),
        ({"backend": None}, "backend is NoneType"),
        ({"dataflow": "x"}, "unknown dataflow 'x'"),
        ({"foo": 1}, "unknown knob 'foo'; choose one of inlier_bits"),
        ({"mask_bits": 9}, "^mask_bits is 9; choose"),
        ({"full_lanes": "x"}, "^full_lanes is 'x'; give a whole number"),
        ({"group": 8}, "^group is 8"),
        ({"refresh_drift": "x"}, "^refresh_drift is 'x'"),
        ({"carry_bits": 2}, "^carry_bits has an effect where loop is 'carry' only"),
        ({"dataflow": "dense", "paper": True}, "^paper is a setting"),
        ({"conditions": torch.ones(1)}, "conditions is Tensor; give a dict"),
        ({"conditions": {"class_labels": "three"}}, "condition 'class_labels' is a str"),
        ({"conditions": {"class_labels": torch.tensor(3)}}, "class_labels is Tensor; give one row"),
    ],
)
def test_wrong_arguments_are_named(monkeypatch, arguments, message):
    monkeypatch.setattr(module, "build_program", lambda *_, **__: pytest.fail("compiled"))
    with pytest.raises(RunError, match=message) as caught:
        signmask.compile(**{"model": unet(), "steps": 2, "calibration_images": 1} | arguments)
    assert "--" not in str(caught.value) and str(caught.value).endswith(".")


def test_unknown_presets():
    with pytest.raises(ConfigError, match="unknown config 'x'"):
        signmask.compile(unet(), config="x")


def test_models_without_a_sample_size():
    flux = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=12, pooled_projection_dim=10,
        axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    for conditions in (None, {"encoder_hidden_states": torch.randn(1, 5, 12)}):
        with pytest.raises(RunError, match="FluxTransformer2DModel has in_channels 4 and sample"):
            signmask.compile(flux, steps=2, conditions=conditions, scheduler=DDIMScheduler())


@pytest.mark.parametrize(
    "timestep", [float("nan"), 999.5, "x", None, torch.tensor([]), torch.tensor([float("inf")])]
)
def test_timesteps_that_are_not_of_the_schedule(compiled, timestep):
    with pytest.raises(RunError, match=r"timestep .* is not one of the 3 timesteps 999"):
        compiled(torch.zeros(1, 3, 8, 8), timestep)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ([1], "the sample is list; give a tensor"),
        (torch.zeros(3, 8, 8), r"the sample is torch.Size\(\[3, 8, 8\]\); give a tensor"),
        (torch.zeros(2, 3, 8, 8), "compile with batch=2"),
        (torch.zeros(0, 3, 8, 8), "compile with batch=1"),
    ],
)
def test_samples_that_do_not_fit(compiled, sample, message):
    with pytest.raises(RunError, match=message):
        compiled(sample, 999)
    assert compiled(torch.zeros(1, 3, 8, 8), torch.tensor(999.0)).sample.shape == (1, 3, 8, 8)
