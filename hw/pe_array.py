"""PE array: executes MATMUL, one pass of a tap per cycle."""

from __future__ import annotations

from itertools import pairwise

from amaranth import (
    Cat,
    ClockSignal,
    Const,
    Elaboratable,
    Instance,
    Module,
    Mux,
    ResetSignal,
    Signal,
    Value,
)
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.array_operands import ArrayOperands, tap_layout
from signmask.hw.array_results import ArrayResults, result_words
from signmask.hw.instruction import InstructionStream, fields
from signmask.hw.outlier_selector import OutlierSelector
from signmask.hw.pe import ACCUMULATOR_BITS, WEIGHT_BITS, LaneMix, Pe
from signmask.hw.ports import ReadPort, WritePort, address_bits
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.numerics import DELTA_BITS


class PeArray(wiring.Component):
    """`rows` x `columns` PEs; a row works on one output position, a column on one channel.

    Taps flow through address, data, outliers and ranks while `advance` is 1: when the pass before
    them is its tap's last one. From the PEs on, every pass moves each cycle. `modules` are emitted
    once and instantiated by name.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.config = config
        self.mix = LaneMix.of(config)
        self.selector = OutlierSelector(config)
        self.modules: dict[str, Elaboratable] = {
            self.mix.module: Pe(self.mix), self.selector.module: self.selector
        }  # fmt: skip
        n, depth = config.group, config.accumulator_words
        width = n * ACCUMULATOR_BITS
        members = {
            "instruction": In(InstructionStream),
            "done": Out(1),
            "weight": Out(ReadPort(config.weight_words, config.columns * n * WEIGHT_BITS)),
        }
        for r in range(config.rows):
            members[f"input_{r}"] = Out(ReadPort(config.input_words, n * DELTA_BITS))
        for i in range(config.rows * result_words(config)):
            members[f"accumulator_read_{i}"] = Out(ReadPort(depth, width))
            members[f"accumulator_write_{i}"] = Out(WritePort(depth, width, n))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """Control, selectors, PEs and results."""
        m = Module()
        word = self.instruction.payload
        f = fields("MATMUL", word)
        busy, start, delta = Signal(), Signal(), Signal()
        padding = Signal(DELTA_BITS)
        m.d.comb += [self.instruction.ready.eq(~busy), start.eq(self.instruction.valid & ~busy)]
        with m.If(start):
            m.d.sync += [
                busy.eq(1), delta.eq(f["delta"]), padding.eq(Mux(f["delta"], 0, f["zero"])),
            ]  # fmt: skip
        with m.Elif(self.done):
            m.d.sync += busy.eq(0)

        m.submodules.operands = operands = ArrayOperands(self.config)
        m.submodules.results = results = ArrayResults(self.config)
        for unit in (operands, results):
            m.d.comb += [unit.word.eq(word), unit.start.eq(start)]
        for i in range(self.config.rows * result_words(self.config)):
            for name in (f"accumulator_read_{i}", f"accumulator_write_{i}"):
                wiring.connect(m, getattr(results, name), wiring.flipped(getattr(self, name)))
        lanes, passes = self._select(m, operands, delta, padding)
        weights = self._weights(m, passes, f["weight"], start)
        stages = self._stages(m, passes)
        fetch = stages[-2]
        m.d.comb += [
            results.fetch.eq(fetch["valid"]), results.first.eq(fetch["first"]),
            results.last.eq(fetch["last"]), results.row_end.eq(fetch["row_end"]),
            results.final.eq(fetch["final"]), results.rows.eq(fetch["rows"]),
            self.done.eq(results.done),
        ]  # fmt: skip
        for r, row in enumerate(lanes):
            totals = self._row(m, r, row, weights, stages, results)
            m.d.comb += getattr(results, f"total_{r}").eq(Cat(totals))
        return m

    def _select(
        self, m: Module, operands: ArrayOperands, delta: Signal, padding: Signal
    ) -> tuple[list[dict[str, Signal]], dict[str, Value]]:
        """Reads operands and splits them into passes: the lanes of each row, one cycle later than
        the other signals, which describe the pass and its tap."""
        mix, config = self.mix, self.config
        layout = tap_layout(config)
        place, last_pass, advance = Signal(mix.place_bits), Signal(), Signal()
        outside = Signal(config.rows)
        valid = [operands.valid, Signal(name="read"), Signal(name="found"), Signal(name="ranked")]
        taps = [operands.tap, *(Signal(layout, name=f"tap_{s.name}") for s in valid[1:])]
        issue, tap = valid[-1], taps[-1]
        m.d.comb += [operands.advance.eq(advance), advance.eq(~issue | last_pass)]
        with m.If(advance):
            m.d.sync += outside.eq(operands.outside)
            m.d.sync += [after.eq(before) for before, after in pairwise(valid)]
            m.d.sync += [after.eq(before) for before, after in pairwise(taps)]
        with m.If(issue):
            m.d.sync += place.eq(Mux(last_pass, 0, place + 1))

        lanes, more, active = [], [], Signal(config.rows)
        for r in range(config.rows):
            port = getattr(self, f"input_{r}")
            m.d.comb += [
                port.en.eq(advance & operands.valid & ~operands.outside[r]),
                port.addr.eq(getattr(operands, f"address_{r}")),
            ]
            outputs = {
                name: Signal(member.shape, name=f"{name}_{r}")
                for name, member in self.selector.signature.members.items()
                if member.flow == Out
            }
            m.submodules[f"selector_{r}"] = Instance(
                self.selector.module, i_clk=ClockSignal(), i_rst=ResetSignal(),
                i_operands=port.data, i_outside=outside[r], i_padding=padding, i_delta=delta,
                i_advance=advance, i_issue=issue, i_place=place,
                **{f"o_{name}": signal for name, signal in outputs.items()},
            )  # fmt: skip
            lanes.append(outputs)
            more.append(outputs["more"])
            m.d.comb += active[r].eq(outputs["active"])
        # All rows take as many passes as the one that needs most.
        needed = Cat(Cat(row[j] for row in more).any() for j in range(mix.digits - 1))
        m.d.comb += last_pass.eq(~Cat(needed, Const(0, 1)).bit_select(place, 1))
        passes = {
            "valid": issue, "place": place, "first": tap.first & (place == 0),
            "last": tap.last & last_pass, "row_end": tap.row_end, "final": tap.final,
            "rows": tap.rows, "active": Mux(issue, active & tap.rows, 0),
            "load": issue & (place == 0), "next": valid[-2] & advance, "next_end": taps[-2].row_end,
        }  # fmt: skip
        return lanes, passes

    def _weights(
        self, m: Module, passes: dict[str, Value], first: Value, start: Signal
    ) -> list[Value]:
        """Weights of each column: word after word within a row block, read while a tap's outliers
        are ranked, registered for its first pass, and kept for the others."""
        port = self.weight
        base = Signal(address_bits(self.config.weight_words))
        address = Signal.like(base, name="weight_address")
        with m.If(start):
            m.d.sync += [base.eq(first), address.eq(first)]
        with m.Elif(passes["next"]):
            m.d.sync += address.eq(Mux(passes["next_end"], base, address + 1))
        m.d.comb += [port.en.eq(passes["next"]), port.addr.eq(address)]
        weights = Signal(len(port.data), name="weights", reset_less=True)
        with m.If(passes["load"]):
            m.d.sync += weights.eq(port.data)
        width = self.config.group * WEIGHT_BITS
        return [weights[at : at + width] for at in range(0, len(weights), width)]

    def _stages(self, m: Module, passes: dict[str, Value]) -> list[dict[str, Signal]]:
        """The pass in each stage of the PEs; the last one needs less to know."""
        last = ("active", "first")
        others = (*last, "valid", "place", "last", "row_end", "final", "rows")
        stages: list[dict[str, Signal]] = []
        before: dict[str, Value] = passes
        for i in range(self.mix.stages):
            names = last if i == self.mix.stages - 1 else others
            stage = {name: Signal(passes[name].shape(), name=f"{name}_{i}") for name in names}
            m.d.sync += [stage[name].eq(before[name]) for name in names]
            stages.append(stage)
            before = dict(stage)
        return stages

    def _row(
        self, m: Module, r: int, lanes: dict[str, Signal], weights: list[Value],
        stages: list[dict[str, Signal]], results: ArrayResults,
    ) -> list[Signal]:  # fmt: skip
        """The PEs of a row; their sums."""
        enable = Signal(self.mix.stages, name=f"enable_{r}")
        m.d.comb += enable.eq(Cat(stage["active"][r] for stage in stages))
        initial = getattr(results, f"initial_{r}")
        totals = []
        for c, column in enumerate(weights):
            total = Signal(ACCUMULATOR_BITS, name=f"total_{r}_{c}")
            m.submodules[f"pe_{r}_{c}"] = Instance(
                self.mix.module, i_clk=ClockSignal(), i_rst=ResetSignal(), i_enable=enable,
                i_digits=lanes["digits"], i_indices=lanes["indices"], i_values=lanes["values"],
                i_weights=column, i_place=stages[-2]["place"], i_first=stages[-1]["first"],
                i_add=results.accumulate,
                i_initial=initial[c * ACCUMULATOR_BITS : (c + 1) * ACCUMULATOR_BITS],
                o_total=total,
            )  # fmt: skip
            totals.append(total)
        return totals
