"""The fp32 front of exported models: what it feeds them and what it takes from them."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import register_dataclass

from signmask.hw.spec.config import NANO
from signmask.runtime.build import build_program
from signmask.runtime.errors import RunError
from signmask.runtime.measure import measure_run
from signmask.runtime.presets import knobs_for
from signmask.runtime.session import Session
from signmask.runtime.sources import float_model, resolve


class Pixels(nn.Module):
    """Two convolutions and a time embedding; `wrap` makes what forward returns."""

    def __init__(self, wrap=lambda x: x, table=None):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)
        self.time = nn.Embedding(table, 16) if table else None
        self.wrap = wrap

    def forward(self, sample, timestep, scaled: bool = False):
        x = self.first(sample)
        if self.time is not None:
            x = x + self.time(timestep.reshape(-1))[:, :, None, None]
        elif timestep is not None:
            x = x + torch.sin(timestep.reshape(-1, 1, 1, 1).to(x.dtype) / 100)
        return self.wrap(self.last(F.relu(x)) * (2 if scaled else 1))


class Tokens(nn.Module):
    """Linear layers on a sequence."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 16), nn.Linear(16, 3)

    def forward(self, sample, timestep):
        x = self.first(sample) + torch.sin(timestep.reshape(-1, 1, 1).float() / 100)
        return self.last(F.relu(x))


@dataclass
class Output:
    eps: torch.Tensor


register_dataclass(Output, serialized_type_name="signmask_test_output")

IMAGE = torch.zeros(1, 3, 8, 8)
CASES = {
    "half": lambda: (Pixels().half(), (IMAGE.half(), torch.ones(1, dtype=torch.float16))),
    "double": lambda: (Pixels().double(), (IMAGE.double(), torch.ones(1))),
    "dict": lambda: (Pixels(lambda x: {"eps": x}), (IMAGE, torch.ones(1))),
    "dataclass": lambda: (Pixels(Output), (IMAGE, torch.ones(1))),
    "square timestep": lambda: (Pixels(), (IMAGE, torch.ones(1, 1))),
    "scalar timestep": lambda: (Pixels(), (IMAGE, torch.tensor(1))),
    "constant": lambda: (Pixels(), (IMAGE, torch.ones(1), True)),
    "tokens": lambda: (Tokens(), (torch.zeros(1, 16, 3), torch.ones(1))),
    "batch": lambda: (Pixels(), (IMAGE.expand(2, 3, 8, 8), torch.ones(2))),
}


def exported(folder, model, example):
    path = folder / "model.pt2"
    torch.export.save(torch.export.export(model.eval(), example, strict=False), path)
    return path


@pytest.mark.parametrize("case", CASES)
def test_an_exported_model_is_compared_with(tmp_path, case):
    torch.manual_seed(0)
    path = exported(tmp_path, *CASES[case]())
    source = resolve(str(path))
    knobs, config = knobs_for("restore", NANO)
    program = build_program(source, config, knobs, 3, 1, images=2)
    facts = measure_run(program, "reference", Session(program).sample(3)).facts
    assert facts["psnr_db_vs_fp32"] > 20


def test_a_model_that_fails_is_one_sentence(tmp_path):
    path = exported(tmp_path, Pixels(table=10), (IMAGE, torch.tensor([1])))
    front = float_model(path)
    assert front(np.zeros((1, 3, 8, 8)), 9).shape == (1, 3, 8, 8)
    with pytest.raises(RunError, match=r"fails at timestep 10 \(index out of range"):
        front(np.zeros((1, 3, 8, 8)), 10)


class Labelled(Pixels):
    """A class besides the time."""

    def __init__(self):
        super().__init__()
        self.label = nn.Embedding(10, 3)

    def forward(self, sample, timestep, label):
        return super().forward(sample + self.label(label)[:, :, None, None], timestep)


def test_labels_must_be_whole_numbers(tmp_path):
    path = exported(tmp_path, Labelled(), (IMAGE, torch.ones(1), torch.tensor([1])))
    for label, message in ((3.5, "condition 'label' holds 3.5, and .* whole"), (3.0, None)):
        save_file({"label": torch.tensor([label])}, tmp_path / "c.safetensors")
        source = resolve(str(path), conditions=tmp_path / "c.safetensors")
        if message is None:
            assert source.example_inputs(path)["label"] == 3
            assert source.float_model(path)(np.zeros((1, 3, 8, 8)), 1).shape == (1, 3, 8, 8)
        else:
            with pytest.raises(RunError, match=message):
                source.example_inputs(path)
