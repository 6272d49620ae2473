"""Verilog of the control parts is clean under Verilator's lint."""

import pytest

from signmask.hw.control import Control
from signmask.hw.counters import Counters
from signmask.hw.emit import emit
from signmask.hw.sequencer import Sequencer
from signmask.hw.spec.config import HardwareConfig
from tests.hw.verilog_lint import lint


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"axi_bytes": 64, "queue_depth": 3, "counter_entries": 1},
        {"axi_bytes": 32, "queue_depth": 1, "counter_entries": 41},
    ],
)
@pytest.mark.parametrize(("part", "name"), [(Sequencer, "sequencer"), (Control, "control"),
                                            (Counters, "counters")])  # fmt: skip
def test_lint(part, name, fields):
    assert lint(emit(part(HardwareConfig("test", **fields)), name)) == ""
