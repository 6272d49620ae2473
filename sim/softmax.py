"""Softmax over rows of attention scores, and normalisation of the product."""

from __future__ import annotations

import numpy as np

from signmask.hw.spec import timing
from signmask.sim import arithmetic
from signmask.sim.core import Core, Cost, Execute, Fields
from signmask.sim.errors import Fault


class Softmax:
    """Executes SOFTMAX and NORMALISE_ROWS."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.instructions: dict[str, Execute] = {
            "SOFTMAX": self.softmax,
            "NORMALISE_ROWS": self.normalise_rows,
        }

    def softmax(self, f: Fields) -> Cost:
        """Scores to codes in the input scratchpad and reciprocals in the row scratchpad."""
        core, n = self.core, self.core.config.group
        tokens, keys = f["tokens"], f["keys"]
        planes = -(-keys // n)
        if not tokens or not keys:
            raise Fault("has a size of 0")
        words = core.accumulator.read_planes(f["accumulator"], planes, tokens, f["stride"])
        scores = words.transpose(1, 0, 2).reshape(tokens, planes * n)[:, :keys]
        codes, reciprocal = arithmetic.softmax_rows(scores, f["multiplier"], f["shift"])
        padded = np.zeros((tokens, planes * n), np.float32)
        padded[:, :keys] = codes
        operands = padded.reshape(tokens, planes, n).transpose(1, 0, 2).reshape(-1, n)
        core.input.write(f["input"], operands)
        core.row.write(f["rows"], reciprocal)
        cycles = timing.softmax(core.config, tokens, keys)
        return Cost(cycles, cycles)

    def normalise_rows(self, f: Fields) -> Cost:
        """Products of softmax codes and V to codes."""
        core, tokens, planes = self.core, f["tokens"], f["planes"]
        if not tokens or not planes:
            raise Fault("has a size of 0")
        product = core.accumulator.read_planes(f["accumulator"], planes, tokens, f["stride"])
        reciprocal = core.row.read(f["rows"], tokens)[:, None]
        codes = arithmetic.attention_code(
            product, reciprocal, f["multiplier"], f["shift"], f["zero"]
        )
        core.accumulator.write_planes(f["output"], codes, f["output_stride"])
        cycles = timing.vector(tokens * planes, timing.NORMALISE_FILL)
        return Cost(cycles, cycles)
