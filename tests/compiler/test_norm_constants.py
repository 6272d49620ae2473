"""Fixed point of normalisation where values are unusual: it runs where it fits, else is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from signmask.compiler.backend.lower import lower
from signmask.compiler.errors import CompileError
from signmask.compiler.frontend import quantise
from signmask.hw.spec.config import NANO
from signmask.hw.spec.network import Knobs
from signmask.reference.golden import GoldenModel
from signmask.reference.models.unet import scheduler
from signmask.sim.machine import Machine
from tests.tiny_networks import input_codes

STEPS = 2


class Normalised(nn.Module):
    """A convolution, group norm over so many groups, SiLU and a convolution."""

    def __init__(self, groups: int, gain: float, bias: float, epsilon: float) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 2, 3, padding=1)
        self.norm = nn.GroupNorm(groups, 8, eps=epsilon)
        with torch.no_grad():
            self.first.weight.mul_(gain)
            self.first.bias.fill_(bias)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return self.last(nn.functional.silu(self.norm(self.first(sample))))


def quantised(size: int, groups: int = 8, gain: float = 3.0, bias: float = 0.0,
              epsilon: float = 1e-5, **knobs):  # fmt: skip
    torch.manual_seed(0)
    model = Normalised(groups, gain, bias, epsilon).eval()
    example = (torch.zeros(1, 2, size, size), torch.tensor([1]))
    return quantise(
        model, scheduler(), STEPS, Knobs(**knobs), example_inputs=example, images=2
    )  # fmt: skip


@pytest.mark.parametrize("grid_bits", [4, 8])
@pytest.mark.parametrize(("size", "bias"), [(4, 3000.0), (2, 1000.0)])
def test_sums_of_a_mean_far_above_the_deviation_fit_their_entries(size, bias, grid_bits):
    network, tensors = quantised(size, bias=bias, grid_bits=grid_bits)
    golden, machine = GoldenModel(network, tensors, 1), Machine(lower(network, tensors, NANO, 1))
    codes = input_codes(network, 1)
    for run in ("dense_step", "delta_step"):
        index = int(run == "delta_step")
        expected = getattr(golden, run)(index, codes[index])
        found = getattr(machine, run)(index, codes[index])
        assert np.array_equal(found.accumulators, expected.accumulators)


def test_an_epsilon_far_above_the_variance_is_refused():
    with pytest.raises(CompileError, match=r"'last.codes' adds 1 to variances .* lower grid_bits"):
        quantised(8, groups=2, gain=1e-6, epsilon=1.0)
