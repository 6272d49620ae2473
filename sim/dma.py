"""DMA engines: the load queue (AXI read channel) and the store queue (AXI write channel)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

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


def check_words(*counts: int) -> None:
    """Raises Fault where an instruction moves nothing."""
    if min(counts) < 1:
        raise Fault("moves no words")


@dataclass(frozen=True)
class _Bitmaps:
    """What LOAD_DELTAS leaves for LOAD_OUTLIERS: outlier flags (words, n), and the cycle from
    which their number is known."""

    outlier: np.ndarray
    known: int


class Load:
    """Memory to scratchpads; requests are pipelined, so the unit takes its next instruction when
    its last request's beats have had their time on the bus."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.instructions: dict[str, Execute] = {
            "LOAD_WEIGHTS": self.weights,
            "LOAD_KEYS": self.keys,
            "LOAD_CODES": self.codes,
            "LOAD_PARAMETERS": self.parameters,
            "LOAD_RAW": self.raw,
            "LOAD_DELTAS": self.deltas,
            "LOAD_OUTLIERS": self.outliers,
            "LOAD_MASK": self.mask,
        }
        self._pending: deque[_Bitmaps] = deque()
        self._run = -1
        self._landed = 0  # cycle in which the last word of all loads so far is taken

    def _cost(self, occupied: int, done: int) -> Cost:
        self._run, self._landed = self.core.run, self.core.cycle + done - timing.LOAD_FILL
        return Cost(occupied, done)

    def _area(self, kind: int, address: int, size: int, chunks: int, chunk: int) -> Cost:
        """Cost of one contiguous area, whose bytes are counted."""
        config = self.core.config
        check_words(chunks)
        self.core.counters.move(kind, size)
        landed = timing.landing(config, address, size, chunks, chunk)
        return self._cost(timing.load_occupied(landed), timing.load_done(config, landed))

    def _without_beats(self, request: int, words: int, occupied: int) -> Cost:
        """Cost of a load that reads nothing: it is done in turn, behind the loads before it.
        `request`: cycles from its start to that of its first request, if it had one."""
        cycle = self.core.cycle
        turn = cycle + request + timing.LOAD_FILL
        if self._run == self.core.run:
            turn = max(turn, self._landed + 1)
        return self._cost(occupied, turn + max(words, 1) - 1 - cycle + timing.LOAD_FILL)

    def weights(self, f: Fields) -> Cost:
        """Weight words as they lie in memory."""
        core, config = self.core, self.core.config
        size = f["words"] * config.columns * config.group
        data = core.memory.read(f["address"], size, "i1")
        core.weight.write(f["weight"], data.reshape(-1, config.columns, config.group))
        chunk = timing.weight_chunk(config)
        return self._area(Traffic.WEIGHTS, f["address"], size, size // chunk, chunk)

    def keys(self, f: Fields) -> Cost:
        """Codes of a token tensor as weights, transposed for V."""
        core, n, columns = self.core, self.core.config.group, self.core.config.columns
        planes, tokens = f["planes"], f["tokens"]
        check_words(planes, tokens)
        starts, run = timing.key_areas(core.config, f)
        addresses = starts.tolist()
        codes = np.stack(
            [core.memory.read(address, run * n, "i1") for address in addresses]
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
        chunk = min(columns, n) if f["transpose"] else timing.weight_chunk(core.config)
        areas = [
            self._area(Traffic.CODES, address, run * n, -(-run * n // chunk), chunk)
            for address in addresses
        ]
        before = sum(area.occupied for area in areas[:-1])
        return self._cost(before + areas[-1].occupied, before + areas[-1].done)

    def codes(self, f: Fields) -> Cost:
        """int8 codes to the input scratchpad."""
        core, n = self.core, self.core.config.group
        size = f["words"] * n
        core.input.write(f["input"], core.memory.read(f["address"], size, "i1").reshape(-1, n))
        return self._area(f["kind"], f["address"], size, f["words"], n)

    def parameters(self, f: Fields) -> Cost:
        """Table entries, of the step that a step register names."""
        core, n, entry = self.core, self.core.config.group, f["entry_bytes"]
        address = f["address"] + f["stride"] * core.register(f["step"])
        data = core.memory.read(address, f["words"] * n, f"i{entry}").reshape(-1, n)
        core.parameter.write(f["parameter"], fit_parameters(data))
        chunk = n * min(entry, timing.LOAD_BYTES)
        size = data.size * entry
        return self._area(Traffic.PARAMETERS, address, size, size // chunk, chunk)

    def raw(self, f: Fields) -> Cost:
        """Signed entries to the accumulator scratchpad."""
        core, n, entry = self.core, self.core.config.group, f["entry_bytes"]
        data = core.memory.read(f["address"], f["words"] * n, f"i{entry}").reshape(-1, n)
        core.accumulator.write(f["accumulator"], data)
        return self._area(f["kind"], f["address"], data.size * entry, f["words"], n * entry)

    def deltas(self, f: Fields) -> Cost:
        """A compressed chunk without its outliers to the accumulators or to the corrections."""
        core, n, words = self.core, self.core.config.group, f["words"]
        size = compressor.area_bytes(words, n, f["inlier_bits"])
        area = core.memory.read(f["address"], size)
        values, outlier = compressor.decompress_area(area, n, f["inlier_bits"])
        kept = sum(len(bitmaps.outlier) for bitmaps in self._pending) + words
        if kept > core.config.bitmap_words:
            raise Fault(f"keeps the bitmaps of {kept} words of {core.config.bitmap_words}")
        target = self._target(f)
        target.write(f["buffer"], np.where(outlier, 0, values).astype(target.data.dtype))
        cost = self._area(f["kind"], f["address"], size, words, size // max(words, 1))
        known = core.cycle + cost.done - timing.LOAD_FILL + timing.LOAD_COUNTED
        self._pending.append(_Bitmaps(outlier, known))
        return cost

    def outliers(self, f: Fields) -> Cost:
        """The outliers of the oldest bitmaps into their lanes."""
        core, wide = self.core, f["wide_bytes"]
        if not self._pending or len(self._pending[0].outlier) != f["words"]:
            raise Fault(f"finds no bitmaps of {f['words']} words")
        bitmaps = self._pending.popleft()
        target = self._target(f)
        values = target.read(f["buffer"], f["words"]).copy()
        sizes = wide * np.count_nonzero(bitmaps.outlier, axis=1)
        size = int(sizes.sum())
        values[bitmaps.outlier] = core.memory.read(f["list"], size // wide, f"i{wide}")
        target.write(f["buffer"], values)
        core.counters.move(f["kind"], size)
        landed, occupied = timing.list_landing(core.config, f["list"], sizes[sizes > 0])
        wait = max(0, bitmaps.known - (core.cycle + 1))
        if not size:
            return self._without_beats(wait + timing.LOAD_SETUP, 0, wait + occupied)
        return self._cost(wait + occupied, wait + timing.load_done(core.config, landed))

    def _target(self, f: Fields) -> Scratchpad:
        return self.core.corrections if f["to_mask"] else self.core.accumulator

    def mask(self, f: Fields) -> Cost:
        """Segment indices, or signed residues, to the mask scratchpad."""
        core, n, bits, words = self.core, self.core.config.group, f["bits"], f["words"]
        check_words(words)
        size = compressor.packed_bytes(words, n, bits)
        data = core.memory.read(f["address"], size).reshape(words, -1)
        values = compressor.unpack(data, n, bits, signed=bool(f["residue"]))
        target = core.corrections if f["residue"] else core.segments
        target.write(f["mask"], values)
        kind = Traffic.CORRECTIONS if f["residue"] else Traffic.MASKS
        if not size:
            return self._without_beats(timing.LOAD_SETUP, words, timing.load_occupied(words))
        return self._area(kind, f["address"], size, words, size // words)


class Store:
    """Scratchpads to memory; done when the write response is back."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.instructions: dict[str, Execute] = {
            "STORE_RAW": self.raw,
            "STORE_DELTAS": self.deltas,
            "STORE_PARAMETERS": self.parameters,
        }

    def _cost(self, kind: int, size: int, cycles: int) -> Cost:
        self.core.counters.move(kind, size)
        occupied = timing.STORE_START + cycles
        return Cost(occupied, timing.store_done(self.core.config, occupied))

    def raw(self, f: Fields) -> Cost:
        """Accumulator words, truncated."""
        check_words(f["words"])
        core, entry = self.core, f["entry_bytes"]
        data = core.accumulator.read(f["accumulator"], f["words"])
        core.memory.write(f["address"], data.astype(f"<i{entry}"))
        size = data.size * entry
        cycles = timing.store_area(core.config, f["address"], size, f["words"])
        return self._cost(f["kind"], size, cycles)

    def deltas(self, f: Fields) -> Cost:
        """One compressed chunk."""
        core, config, wide = self.core, self.core.config, f["wide_bytes"]
        check_words(f["words"])
        data = core.accumulator.read(f["accumulator"], f["words"])
        area, outliers = compressor.compress(data, f["inlier_bits"], wide)
        core.memory.write(f["address"], area)
        core.memory.write(f["list"], outliers)
        cycles = timing.store_area(config, f["address"], area.size, f["words"])
        if outliers.size:
            high = 1 << (f["inlier_bits"] - 1)
            counts = np.count_nonzero((data < -high) | (data >= high), axis=1)
            # The words with outliers are read again: as many as are remembered, then all.
            again = np.flatnonzero(counts)[: config.bitmap_words]
            rest = counts[again[-1] + 1 :]
            if not rest.any():
                rest = rest[:0]
            sizes = wide * np.concatenate([counts[again], rest])
            cycles += timing.store_list(config, f["list"], sizes)
        return self._cost(Traffic.DELTAS, area.size + outliers.size, cycles)

    def parameters(self, f: Fields) -> Cost:
        """Parameter words."""
        core, entry = self.core, f["entry_bytes"]
        check_words(f["words"])
        data = core.parameter.read(f["parameter"], f["words"])
        core.memory.write(f["address"], data.astype(f"<i{entry}"))
        size = data.size * entry
        chunks = size // (core.config.group * min(entry, timing.LOAD_BYTES))
        cycles = timing.store_area(core.config, f["address"], size, chunks)
        return self._cost(Traffic.PARAMETERS, size, cycles)
