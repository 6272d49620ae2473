from dataclasses import replace

import numpy as np
import pytest

from signmask.runtime.errors import RunError
from signmask.runtime.host import (
    HostLog,
    HostScheduler,
    input_codes,
    noise,
    predicted_noise,
    prediction,
)
from tests.runtime.programs import DDPM, SCHEDULE, tiny_program

SHAPE = (4, 8, 8)


def test_noise_is_philox_by_seed_and_image():
    expected = np.random.Generator(np.random.Philox(key=[7, 2])).standard_normal(SHAPE)
    assert np.array_equal(noise(7, 3, SHAPE)[2], expected)
    assert np.array_equal(noise(7, 5, SHAPE)[:3], noise(7, 3, SHAPE))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_noise_rejects_seeds(seed):
    with pytest.raises(RunError, match="seed"):
        noise(seed, 1, SHAPE)


def test_input_codes_round_half_to_even_and_saturate():
    network = tiny_program().network
    source = network.sources[network.input]
    sample = np.zeros((1, *SHAPE))
    sample[0, 0, 0, :4] = np.array([0.5, 1.5, 1e6, -1e6]) * source.scale
    codes = input_codes(network, sample)
    assert codes.dtype == np.int8 and codes.shape == (1, 8, 8, 4)
    expected = np.clip(np.array([0, 2, 10**6, -(10**6)]) + source.zero, -128, 127)
    assert np.array_equal(codes[0, 0, :4, 0], expected)


def test_input_codes_reject_shapes_and_nan():
    network = tiny_program().network
    with pytest.raises(RunError, match=r"\(batch, 4, 8, 8\)"):
        input_codes(network, np.zeros((1, 3, 8, 8)))
    with pytest.raises(RunError, match="NaN"):
        input_codes(network, np.full((1, *SHAPE), np.nan))


def test_predicted_noise_scales_channels():
    program = tiny_program()
    network, tensors = program.network, program.tensors
    accumulators = np.arange(8 * 8 * 4, dtype=np.int32).reshape(1, 8, 8, 4)
    eps = predicted_noise(network, tensors, 1, accumulators)
    scale, table = tensors[network.output_scale], tensors[network.output_table][1]
    assert eps[0, 2, 3, 4] == accumulators[0, 3, 4, 2] * scale[2] + table[2]


def test_patches_of_pixels_come_to_their_places():
    """2 x 2 pixels and 6 channels, 4 of which the sample has, in each of 4 x 4 positions."""
    program = tiny_program()
    network = replace(program.network, patch=2)
    tensors = dict(program.tensors)
    tensors[network.output_scale] = np.ones(24)
    tensors[network.output_table] = np.zeros((network.steps, 24))
    accumulators = np.arange(4 * 4 * 24, dtype=np.int32).reshape(1, 4, 4, 24)
    whole = prediction(network, tensors, 1, accumulators)
    assert whole.shape == (1, 6, 8, 8)
    for channel, row, column in [(0, 0, 0), (5, 7, 6), (3, 2, 5)]:
        lane = (row % 2 * 2 + column % 2) * 6 + channel
        expected = accumulators[0, row // 2, column // 2, lane]
        assert whole[0, channel, row, column] == expected
    eps = predicted_noise(network, tensors, 1, accumulators)
    assert np.array_equal(eps, whole[:, :4])


@pytest.mark.parametrize("schedule", [SCHEDULE, DDPM])
def test_scheduler_step_does_not_depend_on_the_batch(schedule):
    scheduler = HostScheduler(schedule, 5)
    x, eps = noise(1, 3, SHAPE), noise(2, 3, SHAPE)
    images = range(3)
    whole = scheduler.step(1, eps, x, scheduler.generators(0, images))
    assert whole.dtype == np.float64
    for i in images:
        alone = scheduler.step(1, eps[i : i + 1], x[i : i + 1], scheduler.generators(0, [i]))
        assert np.array_equal(alone[0], whole[i])


def test_scheduler_rejects_classes_and_steps():
    with pytest.raises(RunError, match="EulerDiscreteScheduler"):
        HostScheduler({"_class_name": "EulerDiscreteScheduler"}, 5)
    with pytest.raises(RunError, match="0 steps"):
        HostScheduler(SCHEDULE, 0)


@pytest.mark.parametrize("schedule", [SCHEDULE, DDPM])
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prediction_type", "flow", "prediction_type 'flow'; choose one of epsilon"),
        ("num_train_timesteps", -5, "num_train_timesteps -5; give a whole number"),
        ("num_train_timesteps", "1000", "num_train_timesteps '1000'"),
        ("num_train_timesteps", 2.5, "num_train_timesteps 2.5"),
        ("beta_start", "x", "beta_start 'x'; give a number"),
        ("beta_end", None, "beta_end None"),
        ("beta_schedule", "x", "cannot be set up .x is not implemented"),
        ("trained_betas", [0.1, 0.2], "fails at step 0 .index 999 is out of bounds"),
        ("clip_sample_range", "x", "fails at step 0 .bad operand"),
        ("timestep_spacing", "x", "cannot make 3 timesteps"),
        ("_class_name", ["a"], "is not supported on the host"),
    ],
)
def test_wrong_values_of_a_schedule_are_one_sentence(schedule, field, value, message):
    with pytest.raises(RunError, match=message) as caught:
        HostScheduler({**schedule, field: value}, 3)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize("variance", ["learned", "learned_range"])
def test_a_learnt_variance_is_refused(variance):
    with pytest.raises(RunError, match=f"variance_type '{variance}'.* set variance_type to"):
        HostScheduler({**DDPM, "variance_type": variance}, 3)
    with pytest.raises(RunError, match="variance_type 'odd'; choose one of fixed_small"):
        HostScheduler({**DDPM, "variance_type": "odd"}, 3)


def test_log_adds_up():
    log = HostLog()
    for _ in range(2):
        with log.record("noise", 5):
            pass
    (row,) = log.to_json()
    assert (row["name"], row["calls"], row["elements"]) == ("noise", 2, 10)
