"""DMA engines: the load queue (AXI read channel) and the store queue (AXI write channel)."""

from __future__ import annotations

import numpy as np

from signmask.hw.spec import timing
from signmask.hw.spec.isa import Traffic
from signmask.sim import compressor
from signmask.sim.core import Core, Cost, Execute, Fields
from signmask.sim.errors import Fault
from signmask.sim.scratchpad import Scratchpad

_PARAMETER_LIMIT = 1 << 47


def fit_parameters(values: np.ndarray) -> np.ndarray:
    """The values; raises Fault for one that exceeds a 48-bit parameter entry."""
    if values.size and (values.min() < -_PARAMETER_LIMIT or values.max() >= _PARAMETER_LIMIT):
        raise Fault("writes a parameter that exceeds 48 bits")
    return values


class Load:
    """Memory to scratchpads; requests are pipelined, so the channel is free after its beats."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.instructions: dict[str, Execute] = {
            "LOAD_WEIGHTS": self.weights,
            "LOAD_KEYS": self.keys,
            "LOAD_CODES": self.codes,
            "LOAD_PARAMETERS": self.parameters,
            "LOAD_RAW": self.raw,
            "LOAD_DELTAS": self.deltas,
            "LOAD_MASK": self.mask,
        }

    def _cost(self, kind: int, *areas: int) -> Cost:
        """Cost of contiguous areas, whose bytes are counted."""
        config = self.core.config
        self.core.counters.move(kind, sum(areas))
        occupied = sum(timing.beats(config, size) for size in areas)
        return Cost(occupied, occupied + config.memory_latency)

    def weights(self, f: Fields) -> Cost:
        """Weight words as they lie in memory."""
        core, config = self.core, self.core.config
        size = f["words"] * config.columns * config.group
        data = core.memory.read(f["address"], size, "i1")
        core.weight.write(f["weight"], data.reshape(-1, config.columns, config.group))
        return self._cost(Traffic.WEIGHTS, size)

    def keys(self, f: Fields) -> Cost:
        """Codes of a token tensor as weights, transposed for V."""
        core, n, columns = self.core, self.core.config.group, self.core.config.columns
        planes, tokens = f["planes"], f["tokens"]
        codes = np.stack(
            [
                core.memory.read(f["address"] + p * f["plane_stride"], tokens * n, "i1")
                for p in range(planes)
            ]
        ).reshape(planes, tokens, n)
        if f["transpose"]:
            token_planes = -(-tokens // n)
            blocks = -(-planes * n // columns)
            matrix = np.zeros((blocks * columns, token_planes * n), np.int8)
            matrix[: planes * n, :tokens] = codes.transpose(0, 2, 1).reshape(-1, tokens)
            words = matrix.reshape(blocks, columns, token_planes, n).transpose(0, 2, 1, 3)
        else:
            blocks = -(-tokens // columns)
            padded = np.zeros((planes, blocks * columns, n), np.int8)
            padded[:, :tokens] = codes
            words = padded.reshape(planes, blocks, columns, n).transpose(1, 0, 2, 3)
        core.weight.write(f["weight"], words.reshape(-1, columns, n))
        cost = self._cost(Traffic.CODES, *[tokens * n] * planes)
        occupied = timing.load_keys(
            core.config, cost.occupied, planes * tokens, bool(f["transpose"])
        )
        return Cost(occupied, occupied + core.config.memory_latency)

    def codes(self, f: Fields) -> Cost:
        """int8 codes to the input scratchpad."""
        core, n = self.core, self.core.config.group
        size = f["words"] * n
        core.input.write(f["input"], core.memory.read(f["address"], size, "i1").reshape(-1, n))
        return self._cost(f["kind"], size)

    def parameters(self, f: Fields) -> Cost:
        """Table entries, of the step that a step register names."""
        core, n, entry = self.core, self.core.config.group, f["entry_bytes"]
        address = f["address"] + f["stride"] * core.register(f["step"])
        data = core.memory.read(address, f["words"] * n, f"i{entry}").reshape(-1, n)
        core.parameter.write(f["parameter"], fit_parameters(data))
        return self._cost(Traffic.PARAMETERS, data.size * entry)

    def raw(self, f: Fields) -> Cost:
        """Signed entries to the accumulator scratchpad."""
        core, n, entry = self.core, self.core.config.group, f["entry_bytes"]
        data = core.memory.read(f["address"], f["words"] * n, f"i{entry}").reshape(-1, n)
        core.accumulator.write(f["accumulator"], data)
        return self._cost(f["kind"], data.size * entry)

    def deltas(self, f: Fields) -> Cost:
        """A compressed chunk to the accumulators or to the corrections."""
        core, n, wide = self.core, self.core.config.group, f["wide_bytes"]
        size = compressor.area_bytes(f["words"], n, f["inlier_bits"])
        area = core.memory.read(f["address"], size)
        values, outlier = compressor.decompress_area(area, n, f["inlier_bits"])
        count = int(np.count_nonzero(outlier))
        target: Scratchpad = core.corrections if f["to_mask"] else core.accumulator
        values = values.astype(target.data.dtype)
        if count:
            values[outlier] = core.memory.read(f["list"], count, f"i{wide}")
        target.write(f["buffer"], values)
        return self._cost(f["kind"], size, count * wide)

    def mask(self, f: Fields) -> Cost:
        """Segment indices, or signed residues, to the mask scratchpad."""
        core, n, bits = self.core, self.core.config.group, f["bits"]
        size = compressor.packed_bytes(f["words"], n, bits)
        data = core.memory.read(f["address"], size).reshape(f["words"], -1)
        values = compressor.unpack(data, n, bits, signed=bool(f["residue"]))
        target = core.corrections if f["residue"] else core.segments
        target.write(f["mask"], values)
        return self._cost(Traffic.CORRECTIONS if f["residue"] else Traffic.MASKS, size)


class Store:
    """Scratchpads to memory; done when the write response is back."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.instructions: dict[str, Execute] = {
            "STORE_RAW": self.raw,
            "STORE_DELTAS": self.deltas,
            "STORE_PARAMETERS": self.parameters,
        }

    def _cost(self, kind: int, *areas: int) -> Cost:
        config = self.core.config
        self.core.counters.move(kind, sum(areas))
        occupied = sum(timing.beats(config, size) for size in areas)
        return Cost(occupied, occupied + config.memory_latency)

    def raw(self, f: Fields) -> Cost:
        """Accumulator words, truncated."""
        core, entry = self.core, f["entry_bytes"]
        data = core.accumulator.read(f["accumulator"], f["words"])
        core.memory.write(f["address"], data.astype(f"<i{entry}"))
        return self._cost(f["kind"], data.size * entry)

    def deltas(self, f: Fields) -> Cost:
        """One compressed chunk."""
        core = self.core
        data = core.accumulator.read(f["accumulator"], f["words"])
        area, outliers = compressor.compress(data, f["inlier_bits"], f["wide_bytes"])
        core.memory.write(f["address"], area)
        core.memory.write(f["list"], outliers)
        return self._cost(Traffic.DELTAS, area.size, outliers.size)

    def parameters(self, f: Fields) -> Cost:
        """Parameter words."""
        core, entry = self.core, f["entry_bytes"]
        data = core.parameter.read(f["parameter"], f["words"])
        core.memory.write(f["address"], data.astype(f"<i{entry}"))
        return self._cost(Traffic.PARAMETERS, data.size * entry)
