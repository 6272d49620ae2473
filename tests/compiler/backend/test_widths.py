"""Networks that exceed a register of the hardware are refused with the number and the place."""

from dataclasses import replace

import pytest

from signmask.compiler.backend.lower import lower
from signmask.compiler.errors import CompileError
from signmask.hw.spec.config import NANO
from tests.tiny_networks import residual


@pytest.mark.parametrize(
    ("tensor", "value", "message"),
    [
        ("act_1.slopes", 1 << 23, "encoding 'act_1' has a slope of 8388608, beyond 8388607"),
        ("act_2.gain", -(1 << 31), "a norm gain of 2147483648"),
        ("act_1.cal_sigma", 1 << 31, "a calibrated deviation"),
        ("conv_1.multiplier", 1 << 15, "'conv_1' has a multiplier of 32768"),
    ],
)
def test_wide_tensors(tensor, value, message):
    network, tensors = residual()
    tensors = tensors | {tensor: tensors[tensor].copy()}
    tensors[tensor].flat[0] = value
    with pytest.raises(CompileError, match=message):
        lower(network, tensors, NANO, 1)


def test_shift():
    network, tensors = residual()
    encoding = network.encodings["act_1"]
    norm = replace(encoding.norm, gain_shift=56)
    encodings = network.encodings | {"act_1": replace(encoding, norm=norm)}
    with pytest.raises(CompileError, match="a norm gain_shift of 56, beyond 55"):
        lower(replace(network, encodings=encodings), tensors, NANO, 1)


def test_counters_and_engine_tables():
    network, tensors = residual()
    with pytest.raises(CompileError, match=r"has 4 encodings and sources .* counts 3"):
        lower(network, tensors, replace(NANO, counter_entries=3), 1)
    with pytest.raises(CompileError, match=r"table words in the near-data engine .* has 4"):
        lower(network, tensors, replace(NANO, engine_words=4), 1)
