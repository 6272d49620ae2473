"""The whole front half on small networks: function kept, integers exact, errors helpful."""

from functools import cache

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from signmask.compiler.calibration import Calibration
from signmask.compiler.emulation import DenseEmulator
from signmask.compiler.errors import CompileError, UnsupportedOperators
from signmask.compiler.float_model import FloatModel
from signmask.compiler.frontend import calibrate, quantise, trace
from signmask.hw.spec.network import Knobs, Network
from signmask.reference.golden import GoldenModel
from signmask.reference.models.unet import build_unet, scheduler
from signmask.runtime.host import input_codes
from tests.compiler.models import Unsupported, example, tiny

STEPS = 5
TIMESTEPS = (999, 600, 1)


@cache
def calibration() -> Calibration:
    return calibrate(tiny(), scheduler(), STEPS, example(), images=4)


@cache
def compiled(knobs: Knobs) -> tuple[Network, dict[str, np.ndarray]]:
    return quantise(tiny(), scheduler(), STEPS, knobs, calibration(), "tiny", example())


def run(knobs: Knobs, inputs: np.ndarray) -> list[np.ndarray]:
    network, tensors = compiled(knobs)
    golden = GoldenModel(network, tensors, inputs.shape[1])
    results = []
    for step, x in enumerate(inputs):
        step_function = golden.delta_step if step else golden.dense_step
        results.append(step_function(step, input_codes(network, x)).accumulators)
    return results


@pytest.mark.parametrize("variant", ["fashion-silu", "fashion-relu"])
def test_fused_graph_of_the_bundled_unet_computes_what_torch_computes(variant):
    torch.manual_seed(0)
    model = build_unet(variant).eval()
    float_model = FloatModel(trace(model, TIMESTEPS))
    sample = torch.randn(2, 4, 16, 16)
    for step, timestep in enumerate(TIMESTEPS):
        with torch.no_grad():
            expected = model(sample, torch.tensor(timestep)).sample
        assert torch.allclose(float_model(sample, step), expected, atol=2e-5)


def test_fused_graph_of_a_user_network_computes_what_torch_computes():
    model, sample = tiny(), torch.randn(3, 2, 8, 8)
    float_model = FloatModel(trace(model, TIMESTEPS, example()))
    for step, timestep in enumerate(TIMESTEPS):
        with torch.no_grad():
            expected = model(sample, torch.tensor([timestep]))
        assert torch.allclose(float_model(sample, step), expected, atol=1e-5)


def test_emulator_equals_the_golden_model_bit_for_bit():
    network, tensors = compiled(Knobs(dataflow="dense"))
    inputs = calibration().inputs
    emulator = DenseEmulator(network, tensors)
    for step, expected in enumerate(run(Knobs(dataflow="dense"), inputs)):
        codes = torch.from_numpy(input_codes(network, inputs[step])).permute(0, 3, 1, 2)
        found = emulator(codes.long(), step)
        assert (found.permute(0, 2, 3, 1).numpy() == expected).all()


def test_restoring_with_spill_equals_dense():
    inputs = calibration().inputs
    dense = run(Knobs(dataflow="dense"), inputs)
    restored = run(Knobs(dataflow="restore", overflow="spill"), inputs)
    for a, b in zip(dense, restored, strict=True):
        assert (a == b).all()


@pytest.mark.parametrize(
    "knobs", [Knobs(dataflow="dense"), Knobs(overflow="spill", norm="live"), Knobs(mask_bits=1)]
)
def test_quantised_network_follows_the_float_network(knobs):
    model, inputs = tiny(), calibration().inputs
    _, tensors = compiled(knobs)
    timesteps = compiled(knobs)[0].timesteps
    for step, accumulators in enumerate(run(knobs, inputs)):
        with torch.no_grad():
            expected = model(torch.from_numpy(inputs[step]), torch.tensor([timesteps[step]]))
        found = accumulators * tensors["output_scale"] + tensors["output_table"][step]
        error = found.transpose(0, 3, 1, 2) - expected.numpy()
        worst = 0.3 if knobs.mask_bits == 1 else 0.08
        assert np.sqrt((error**2).mean()) < worst * expected.numpy().std()


def test_bias_correction_brings_channel_means_to_the_float_means():
    inputs = calibration().inputs
    _, tensors = compiled(Knobs(dataflow="dense"))
    float_model = FloatModel(
        trace(tiny(), compiled(Knobs(dataflow="dense"))[0].timesteps, example())
    )
    for step, accumulators in enumerate(run(Knobs(dataflow="dense"), inputs)):
        expected = float_model(torch.from_numpy(inputs[step]), step).double().mean((0, 2, 3))
        found = accumulators * tensors["output_scale"] + tensors["output_table"][step]
        assert np.allclose(found.mean((0, 1, 2)), expected.numpy(), atol=1e-6)


def test_compiling_twice_gives_identical_bytes():
    again = quantise(
        tiny(), scheduler(), STEPS, Knobs(), calibrate(tiny(), scheduler(), STEPS, example(), 4),
        "tiny", example(),
    )  # fmt: skip
    network, tensors = compiled(Knobs())
    assert again[0].to_json() == network.to_json()
    assert list(again[1]) == list(tensors)
    for key, tensor in tensors.items():
        assert tensor.tobytes() == again[1][key].tobytes()


def test_an_archive_compiles_to_the_same_network_as_its_module(tmp_path):
    path = tmp_path / "tiny.pt2"
    torch.export.save(torch.export.export(tiny(), example(), strict=False), path)
    network, tensors = quantise(path, scheduler(), STEPS, Knobs(), calibration(), "tiny", example())
    assert network.to_json() == compiled(Knobs())[0].to_json()
    assert all((tensors[k] == v).all() for k, v in compiled(Knobs())[1].items())


def test_modes_and_reasons_follow_the_preset():
    network, _ = compiled(Knobs())
    assert {e.mode for e in network.encodings.values()} == {"mask"}
    assert {s.mode for s in network.sources.values()} == {"restore"}
    assert all(e.reason for e in network.encodings.values())


def test_network_survives_json():
    network, _ = compiled(Knobs())
    assert Network.from_json(network.to_json()) == network


def test_all_unsupported_operators_are_reported_at_once_with_their_lines():
    with pytest.raises(UnsupportedOperators) as caught:
        trace(Unsupported(), TIMESTEPS, example())
    found = {r.operator: r for r in caught.value.rejections}
    assert set(found) == {"aten.cos", "aten.exp", "aten.conv2d"}
    assert "models.py:" in found["aten.cos"].line
    assert "dilat" in found["aten.conv2d"].reason


def test_nan_weight_is_named():
    model = tiny()
    with torch.no_grad():
        model.inner.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(CompileError, match=r"inner\.weight"):
        trace(model, TIMESTEPS, example())


def test_module_without_config_asks_for_example_inputs():
    with pytest.raises(CompileError, match="example_inputs"):
        trace(nn.Conv2d(2, 2, 1), TIMESTEPS)


def test_calibration_of_other_steps_is_refused():
    with pytest.raises(CompileError, match="timesteps"):
        quantise(tiny(), scheduler(), STEPS + 1, Knobs(), calibration(), "tiny", example())


def test_zero_steps_are_refused():
    with pytest.raises(CompileError, match="0 steps"):
        calibrate(tiny(), scheduler(), 0, example())


def test_other_unet_shapes_compile_and_follow_the_float_network():
    torch.manual_seed(0)
    model = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(12, 24),
        layers_per_block=2,
        norm_num_groups=3,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        mid_block_scale_factor=2**0.5,
    ).eval()
    measured = calibrate(model, scheduler(), 3, images=2)
    network, tensors = quantise(model, scheduler(), 3, Knobs(dataflow="dense"), measured)
    golden = GoldenModel(network, tensors, 2)
    for step, x in enumerate(measured.inputs):
        result = golden.dense_step(step, input_codes(network, x))
        found = result.accumulators * tensors["output_scale"] + tensors["output_table"][step]
        with torch.no_grad():
            expected = model(torch.from_numpy(x), network.timesteps[step]).sample.numpy()
        error = found.transpose(0, 3, 1, 2) - expected
        assert np.sqrt((error**2).mean()) < 0.08 * expected.std()
