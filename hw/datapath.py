"""The accelerator without its control: units of the five queues and their scratchpads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from amaranth import Elaboratable, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.axi import AxiRead, AxiWrite
from signmask.hw.dma.load import LoadUnit
from signmask.hw.dma.store import StoreUnit
from signmask.hw.instruction import InstructionStream
from signmask.hw.near_data.engine import NearDataEngine
from signmask.hw.pe_array import PeArray
from signmask.hw.ports import CountEvent, DeltaEvent, MovedEvent
from signmask.hw.scratchpad import Scratchpad
from signmask.hw.sfu.sfu import Sfu
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import Queue

OPERAND_BITS = 9
SEGMENT_BITS = 3
CORRECTION_BITS = 16
PARAMETER_BITS = 48
ROW_BITS = 32
STEP_BITS = 16

QUEUES = tuple(queue.name.lower() for queue in Queue)


class Datapath(wiring.Component):
    """Units and scratchpads; `<queue>` is the instruction stream of a queue, `<queue>_done` its
    pulse. `now`, `last` and `after_dense` are the step registers. Memory ports and counter events
    are those of the units.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.config = config
        n = config.group
        self.load_unit, self.store_unit = LoadUnit(config), StoreUnit(config)
        self.pe_array, self.sfu = PeArray(config), Sfu(config)
        self.near_data_engine = NearDataEngine(config)
        self.scratchpads = {
            name: Scratchpad(name, depth, width, lanes)
            for name, depth, width, lanes in (
                ("input", config.input_words, n * OPERAND_BITS, n),
                ("weight", config.weight_words, config.columns * n * 8, config.columns * n),
                ("accumulator", config.accumulator_words, n * 32, n),
                ("segments", config.mask_words, n * SEGMENT_BITS, n),
                ("corrections", config.mask_words, n * CORRECTION_BITS, n),
                ("parameter", config.parameter_words, n * PARAMETER_BITS, n),
                ("row", config.row_words, ROW_BITS, 1),
            )
        }
        queues: dict[str, wiring.Member] = {}
        for queue in QUEUES:
            queues |= {queue: In(InstructionStream), f"{queue}_done": Out(1)}
        super().__init__(
            queues
            | {
                "now": In(STEP_BITS), "last": In(STEP_BITS), "after_dense": In(1),
                "load_axi": Out(AxiRead(config.axi_bytes)),
                "store_axi": Out(AxiWrite(config.axi_bytes)),
                "near_read": Out(AxiRead(config.near_data_bytes)),
                "near_write": Out(AxiWrite(config.near_data_bytes)),
                "load_moved": Out(MovedEvent()), "store_moved": Out(MovedEvent()),
                "near_moved": Out(wiring.Signature({"valid": Out(1), "bytes": Out(32)})),
                "deltas": Out(DeltaEvent()), "sfu_saturated": Out(CountEvent(8)),
                "near_saturated": Out(CountEvent(16)), "segment_changes": Out(CountEvent(16)),
            }
        )  # fmt: skip

    @property
    def modules(self) -> dict[str, Elaboratable]:
        """Modules that are emitted once and instantiated by name."""
        return self.pe_array.modules

    def _ports(self) -> Iterable[tuple[str, str, object, tuple[str, ...]]]:
        """(scratchpad, direction, unit, names of its ports)."""
        config = self.config
        rows = config.rows
        blocks = rows * max(1, config.columns // config.group)
        array, sfu, load, store = self.pe_array, self.sfu, self.load_unit, self.store_unit
        yield "input", "read", array, tuple(f"input_{i}" for i in range(rows))
        yield "input", "write", sfu, ("operand",)
        yield "input", "write", load, ("input",)
        yield "weight", "read", array, ("weight",)
        yield "weight", "write", load, ("weight",)
        yield "accumulator", "read", array, tuple(f"accumulator_read_{i}" for i in range(blocks))
        yield "accumulator", "read", sfu, ("accumulator", "addend")
        yield "accumulator", "read", store, ("accumulator",)
        yield "accumulator", "write", array, tuple(f"accumulator_write_{i}" for i in range(blocks))
        yield "accumulator", "write", sfu, ("result",)
        yield "accumulator", "write", load, ("accumulator",)
        for name in ("segments", "corrections"):
            yield name, "read", sfu, (name,)
            yield name, "write", load, (name,)
        yield "parameter", "read", sfu, ("parameter_0", "parameter_1", "parameter_2")
        yield "parameter", "read", store, ("parameter",)
        yield "parameter", "write", sfu, ("parameter_write_0", "parameter_write_1")
        yield "parameter", "write", load, ("parameter",)
        yield "row", "read", sfu, ("row",)
        yield "row", "write", sfu, ("row_write",)

    def elaborate(self, platform: object) -> Module:
        """Units and scratchpads, connected."""
        m = Module()
        units: dict[str, Any] = {
            "load": self.load_unit, "array": self.pe_array, "vector": self.sfu,
            "store": self.store_unit, "engine": self.near_data_engine,
        }  # fmt: skip
        for name, unit in units.items():
            m.submodules[f"{name}_unit"] = unit
            wiring.connect(m, wiring.flipped(getattr(self, name)), unit.instruction)
            m.d.comb += getattr(self, f"{name}_done").eq(unit.done)
        for space, direction, unit, names in self._ports():
            pad = self.scratchpads[space]
            for name in names:
                port = pad.read_port() if direction == "read" else pad.write_port()
                wiring.connect(m, getattr(unit, name), port)
        for name, pad in self.scratchpads.items():
            m.submodules[f"{name}_scratchpad"] = pad
        engine = self.near_data_engine
        for unit in (self.load_unit, engine):
            m.d.comb += [unit.now.eq(self.now), unit.last.eq(self.last)]
        m.d.comb += engine.after_dense.eq(self.after_dense)
        for outer, inner in (
            (self.load_axi, self.load_unit.axi), (self.store_axi, self.store_unit.axi),
            (self.near_read, engine.read), (self.near_write, engine.write),
            (self.load_moved, self.load_unit.moved), (self.store_moved, self.store_unit.moved),
            (self.near_moved, engine.moved_bytes), (self.deltas, self.sfu.deltas),
            (self.sfu_saturated, self.sfu.saturated), (self.near_saturated, engine.saturated),
            (self.segment_changes, engine.segment_changes),
        ):  # fmt: skip
            wiring.connect(m, inner, wiring.flipped(outer))
        return m
