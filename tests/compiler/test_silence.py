"""Nothing of torch's own reaches stderr, and everything does again afterwards."""

from __future__ import annotations

import logging
import os
import sys
import warnings

import pytest
import torch
from torch import nn

from signmask.compiler.errors import CompileError
from signmask.compiler.frontend import trace
from signmask.compiler.silence import quiet


def speak() -> None:
    """A line by each way to stderr."""
    logging.getLogger("torch._dynamo.any").error("record")
    warnings.warn("warning", stacklevel=1)
    print("printed", file=sys.stderr)
    os.write(2, b"written\n")


@pytest.mark.filterwarnings("default")
def test_every_way_to_stderr_is_silent_inside_and_open_again_after_an_error(capfd, caplog):
    with pytest.raises(KeyError), quiet():
        speak()
        raise KeyError
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert not caplog.records
    with pytest.warns(UserWarning):
        speak()
    assert {"printed", "written"} <= set(capfd.readouterr().err.split())
    assert [r.message for r in caplog.records] == ["record"]


class Misshapen(nn.Module):
    """A matrix product whose sizes do not agree."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(5, 5)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        del timestep
        return self.dense(sample)


def test_a_failing_export_is_one_sentence(capfd, caplog):
    with pytest.raises(CompileError, match="cannot trace Misshapen") as caught:
        trace(Misshapen(), (900, 30), (torch.zeros(1, 4, 8, 8), torch.tensor([1])))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
