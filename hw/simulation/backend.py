"""The RTL as a backend: the emitted accelerator in Verilator executes the steps of a program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from signmask.hw.errors import RtlError
from signmask.hw.register_map import ILLEGAL, RegisterMap, register_map, traffic_names
from signmask.hw.simulation import memory
from signmask.hw.simulation.bench import latencies
from signmask.hw.simulation.operations import Operations
from signmask.hw.simulation.process import Simulation
from signmask.hw.simulation.system import build_system
from signmask.hw.simulation.trace import InstructionTrace, Trace
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.container import Program
from signmask.hw.spec.host_memory import HostMemory
from signmask.hw.spec.isa import Queue
from signmask.hw.spec.step import StepResult

PAGE = 4096
STALL_PERCENT = 30


class RtlMachine:
    """One accelerator, as RTL, with one program in its memory.

    `memory` is the content of memory (uint8, the instructions behind the memory map), `last` the
    index of the step executed last or None. stall_seed: stall all memory channels at random; cycles
    then mean nothing. `trace(index, instruction, start, done)` is called for every instruction
    after its step, in order. waves: file for a trace of all signals (FST), complete after `close`.
    Raises RtlError for a program without code, when tools are missing, and when a step fails.
    """

    def __init__(
        self,
        program: Program,
        *,
        stall_seed: int | None = None,
        trace: Trace | None = None,
        waves: Path | None = None,
    ) -> None:
        network, config = program.network, program.config
        if "dense" not in program.code:
            raise RtlError(
                f"program of network '{network.name}' has no code, because its numerical settings "
                "are executed by the golden model only; use the backend 'reference'."
            )
        self.program = program
        self._host = HostMemory(program, RtlError)
        self._registers = register_map(config)
        self._sources = sorted({*network.encodings, *network.sources})
        self._streams = sorted(network.streams)
        if waves is not None and not waves.absolute().parent.is_dir():
            raise RtlError(f"folder {waves.parent} does not exist; create it or choose another.")
        check_sizes(config, self._registers, len(self._sources), len(self._streams))
        self._code, self._file = load(program, self._host.map.end)
        plusargs = [
            self._file.plusarg,
            *memory.plusargs(config.memory_latency, latencies(config), stall_seed, STALL_PERCENT),
        ]
        self._trace = InstructionTrace(program.code, trace) if trace is not None else None
        if self._trace is not None:
            plusargs.append(f"+trace={self._trace.path}")
        self._simulation = Simulation(
            build_system(config, waves is not None), plusargs, waves and waves.absolute()
        )
        self.last: int | None = None
        self._dense_before = False

    @property
    def memory(self) -> np.ndarray:
        """Content of the memory, uint8, shared with the simulation."""
        return self._file.data

    @property
    def instruction_trace(self) -> InstructionTrace:
        """Where the traces lie; raises RtlError unless the machine was opened with `trace`."""
        if self._trace is None:
            raise RtlError("the RTL backend writes no trace; open it with trace=.")
        return self._trace

    def close(self) -> None:
        """End the simulation."""
        self._simulation.close()
        self._file.close()
        if self._trace is not None:
            self._trace.close()

    def dense_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Step `index` on int8 input codes (batch, height, width, channels); all state is new."""
        return self._step("dense", index, codes)

    def delta_step(self, index: int, codes: np.ndarray) -> StepResult:
        """The same as a difference to the step executed last; a dense program has only dense
        steps. Raises RtlError before the first dense step."""
        if "delta" not in self._code:
            return self._step("dense", index, codes)
        if self.last is None:
            raise RtlError(f"delta step {index} has no step before it; execute a dense step first.")
        return self._step("delta", index, codes)

    def _step(self, phase: str, index: int, codes: np.ndarray) -> StepResult:
        if not 0 <= index < self.program.network.steps:
            raise RtlError(
                f"step {index} does not exist; the program has steps 0 to "
                f"{self.program.network.steps - 1}."
            )
        self._write_input(codes)
        address, count = self._code[phase]
        last = index if self.last is None else self.last
        # A step that fails leaves half-written state behind; only a dense step may follow it.
        self.last = None
        settings = {
            "INTERRUPT_ENABLE": 1, "NOW": index, "LAST": last,
            "AFTER_DENSE": int(self._dense_before), "PROGRAM": address, "COUNT": count, "START": 1,
        }  # fmt: skip
        control = Operations(self._registers)
        for name, value in settings.items():
            control.write(name, value)
        control.wait()
        control.write("INTERRUPT", 1)
        names = ["STATUS", "CYCLES", *(f"BUSY_{queue.name}" for queue in Queue)]
        names += [f"TRAFFIC_{name}" for name in traffic_names()]
        for name in names:
            control.read(name)
        control.read_window("STREAMS", len(self._streams))
        control.read_window("SOURCES", len(self._sources))
        found = control.values(self._simulation.execute(control.operations))
        if found["STATUS"] & ILLEGAL:
            raise RtlError(
                f"phase '{phase}' has an instruction with an unknown opcode; compile the program "
                "again."
            )
        if self._trace is not None:
            self._trace.report(phase, found["CYCLES"])
        self.last, self._dense_before = index, phase == "dense"
        return StepResult(
            self._read_output(), self._counters(found), found["CYCLES"],
            {queue.name.lower(): found[f"BUSY_{queue.name}"] for queue in Queue},
            {name.lower(): found[f"TRAFFIC_{name}"] for name in traffic_names()},
        )  # fmt: skip

    def _counters(self, found: Mapping[str, int]) -> dict[str, dict[str, int]]:
        counters: dict[str, dict[str, int]] = {}
        columns = [name for name in self._registers.sources.columns if name != "counted"]
        for i, source in enumerate(self._sources):
            if found[f"SOURCES[{i}].counted"]:
                counters[source] = {name: found[f"SOURCES[{i}].{name}"] for name in columns}
        counters["streams"] = {
            stream: found[f"STREAMS[{i}].saturated"] for i, stream in enumerate(self._streams)
        }
        return counters

    def _write_input(self, codes: np.ndarray) -> None:
        """Input codes, padded with zeros to planes of a group."""
        words = self._host.input_words(codes)
        address = self._host.region("input").address
        self.memory[address : address + words.size] = words.reshape(-1).view(np.uint8)

    def _read_output(self) -> np.ndarray:
        """int32 (batch, height, width, channels)."""
        address = self._host.region("output").address
        size = 4 * self._host.output_entries
        return self._host.accumulators(np.array(self.memory[address : address + size]).view("<i4"))


def load(program: Program, end: int) -> tuple[dict[str, tuple[int, int]], memory.MemoryFile]:
    """A memory with the program's image and, behind its memory map, the instructions: by phase,
    their address and number."""
    at, places = -(-end // PAGE) * PAGE, dict[str, tuple[int, int]]()
    for phase, code in program.code.items():
        places[phase] = (at, len(code))
        at += -(-code.size // PAGE) * PAGE
    file = memory.MemoryFile(max(at, -(-program.image.size // PAGE) * PAGE))
    file.data[: program.image.size] = program.image.reshape(-1)
    for phase, code in program.code.items():
        address = places[phase][0]
        file.data[address : address + code.size] = code.reshape(-1)
    return places, file


def check_sizes(config: HardwareConfig, registers: RegisterMap, sources: int, streams: int) -> None:
    """Raise RtlError where the RTL of a configuration cannot count a network or be simulated."""
    if config.memory_latency < 1:
        raise RtlError(
            f"config '{config.name}' has memory_latency {config.memory_latency}; RTL needs at "
            "least 1."
        )
    for what, count, room in (
        ("encodings and sources", sources, registers.sources.entries),
        ("streams", streams, registers.streams.entries),
    ):
        if count > room:
            raise RtlError(
                f"the network has {count} {what} and config '{config.name}' counts {room}; raise "
                "counter_entries."
            )
