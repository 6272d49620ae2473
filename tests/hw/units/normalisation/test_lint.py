"""Verilog of normalisations and softmax is clean under Verilator's lint."""

from dataclasses import replace

import pytest

from signmask.hw.emit import emit
from signmask.hw.sfu.constants import Constants
from signmask.hw.sfu.normalise_tokens import NormaliseTokens
from signmask.hw.sfu.softmax import NormaliseRows, Softmax
from signmask.hw.spec.config import NANO
from tests.hw.verilog_lint import lint


@pytest.mark.parametrize("group", [8, 16, 64])
@pytest.mark.parametrize("unit", [Constants, Softmax, NormaliseRows, NormaliseTokens])
def test_lint(unit, group):
    config = replace(NANO, group=group, axi_bytes=64)
    assert lint(emit(unit(config), "unit")) == ""
