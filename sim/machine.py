"""The simulated accelerator: executes the steps of a compiled program on real data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from signmask.hw.spec.container import Program
from signmask.hw.spec.host_memory import HostMemory
from signmask.hw.spec.isa import INSTRUCTION_BYTES, IsaError, decode_all
from signmask.hw.spec.step import StepResult
from signmask.sim import sequencer
from signmask.sim.core import Core, Execute
from signmask.sim.counters import Counters
from signmask.sim.dma import Load, Store
from signmask.sim.errors import SimulationError
from signmask.sim.near_data_engine import NearDataEngine
from signmask.sim.outlier_selector import OutlierSelector
from signmask.sim.pe_array import PeArray
from signmask.sim.sequencer import Sequence, Trace
from signmask.sim.sfu import Sfu
from signmask.sim.softmax import Softmax


class Machine:
    """One accelerator with one program in its memory.

    `memory` is the flat content (uint8), `last` the index of the step executed last or None.
    `observer(index, instruction, start, done)` is called for every executed instruction.
    Raises SimulationError for a program without code.
    """

    def __init__(self, program: Program, observer: Trace | None = None) -> None:
        network, config = program.network, program.config
        if "dense" not in program.code:
            raise SimulationError(
                f"program of network '{network.name}' has no code, because its numerical settings "
                "are executed by the golden model only; use the backend 'reference'."
            )
        self.program, self._observer = program, observer
        self._host = HostMemory(program, SimulationError)
        self._counters = Counters(
            sorted({*network.encodings, *network.sources}), sorted(network.streams),
            config.inlier_bits,
        )  # fmt: skip
        self._core = Core(config, program.image, self._host.map.end, self._counters)
        selector = OutlierSelector(config.inlier_bits, config.full_lanes)
        units: dict[str, Execute] = {}
        for unit in (
            Load(self._core), Store(self._core), PeArray(self._core, selector),
            Sfu(self._core, selector), Softmax(self._core), NearDataEngine(self._core, selector),
        ):  # fmt: skip
            units |= unit.instructions
        try:
            self._sequences: Mapping[str, Sequence] = {
                phase: Sequence(phase, decode_all(code), units, config)
                for phase, code in program.code.items()
            }
        except IsaError as error:
            raise SimulationError(f"program '{network.name}': {error} Compile it again.") from None
        self.last: int | None = None
        self._dense_before = False

    @property
    def memory(self) -> np.ndarray:
        """Content of the memory, uint8."""
        return self._core.memory.data

    def written(self) -> list[tuple[str, int, np.ndarray]]:
        """(space, first word, integers (words, lanes)) that the instruction shown to the observer
        last wrote into scratchpads."""
        core, found = self._core, []
        for pad in (
            core.input, core.weight, core.accumulator, core.segments, core.corrections,
            core.parameter, core.row,
        ):  # fmt: skip
            for space, start, stop in core.log.written:
                if space == pad.space:
                    words = pad.data[start:stop].reshape(stop - start, -1)
                    found.append((space, start, words.astype(np.int64)))
        return found

    def dense_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Step `index` on int8 input codes (batch, height, width, channels); all state is new."""
        return self._step("dense", index, codes)

    def delta_step(self, index: int, codes: np.ndarray) -> StepResult:
        """The same as a difference to the step executed last; a dense program has only dense
        steps. Raises SimulationError before the first dense step."""
        if "delta" not in self._sequences:
            return self._step("dense", index, codes)
        if self.last is None:
            raise SimulationError(
                f"delta step {index} has no step before it; execute a dense step first."
            )
        return self._step("delta", index, codes)

    def _step(self, phase: str, index: int, codes: np.ndarray) -> StepResult:
        core, counters = self._core, self._counters
        if not 0 <= index < self.program.network.steps:
            raise SimulationError(
                f"step {index} does not exist; the program has steps 0 to "
                f"{self.program.network.steps - 1}."
            )
        self._write_input(codes)
        core.now, core.last = index, index if self.last is None else self.last
        core.after_dense = self._dense_before
        counters.reset()
        sequence = self._sequences[phase]
        counters.traffic["instructions"] += sequence.count * INSTRUCTION_BYTES
        # A step that fails leaves half-written state behind; only a dense step may follow it.
        self.last = None
        timeline = sequencer.run(sequence, core, trace=self._observer)
        self.last, self._dense_before = index, phase == "dense"
        return StepResult(
            self._read_output(), counters.result(), timeline.cycles, timeline.busy,
            dict(counters.traffic),
        )  # fmt: skip

    def _write_input(self, codes: np.ndarray) -> None:
        """Input codes, padded with zeros to planes of a group."""
        words = self._host.input_words(codes)
        self._core.memory.write(self._host.region("input").address, words)
        self._core.log.take()

    def _read_output(self) -> np.ndarray:
        """int32 (batch, height, width, channels)."""
        host = self._host
        words = self._core.memory.read(host.region("output").address, host.output_entries, "i4")
        self._core.log.take()
        return host.accumulators(words)
