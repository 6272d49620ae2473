"""Which opcodes ran in which mode, and which values of every one-bit or small field they had."""

from __future__ import annotations

from collections import Counter

from rich.table import Table

from signmask.hw.spec.container import Program
from signmask.hw.spec.isa import FORMATS, decode_all
from tests.fuzz.cases import DATAFLOWS, LOOPS, Case

KNOB_BITS = 3  # fields of at most so many bits are knobs: each value counts
MODES = (*DATAFLOWS[:2], *(f"mask {loop}" for loop in LOOPS))


class Coverage:
    """Executed instructions by opcode and mode, and the values of their knobs."""

    def __init__(self) -> None:
        self.cells: Counter[tuple[str, str]] = Counter()
        self.knobs: Counter[tuple[str, str, int]] = Counter()
        self.settings: Counter[str] = Counter()
        self.cases = 0

    def add(self, case: Case, program: Program) -> None:
        """Count the instructions of every phase of a program once."""
        mode = f"mask {case.loop}" if case.dataflow == "mask" else case.dataflow
        self.cases += 1
        for setting in (
            f"machine {case.machine}", f"overflow {case.overflow}", f"norm {case.norm}",
            f"mask bits {case.mask_bits}", f"grid bits {case.grid_bits}", f"batch {case.batch}",
            f"latency {case.memory_latency}", f"near latency {case.near_data_latency}",
            "random stalls" if case.stall_seed else "no stalls",
        ):  # fmt: skip
            self.settings[setting] += 1
        network = program.network
        features = {
            "attention over frames": any(a.frames for a in network.attentions.values()),
            "attention to constant keys": any(a.keys for a in network.attentions.values()),
            "grouped operators": any(linear.groups > 1 for linear in network.linears.values()),
            "norms of groups with a row per step": any(
                e.norm and program.tensors[e.norm.gain].ndim == 2
                for e in network.encodings.values()
            ),
            "tables with a row per image": any(
                program.tensors[stream.table].ndim == 3 for stream in network.streams.values()
            ),
            "scales with a row per image": any(
                e.affine_a and program.tensors[e.affine_a].ndim == 3
                for e in network.encodings.values()
            ),
            "offsets": any(stream.offset for stream in network.streams.values()),
        }
        for feature, there in features.items():
            self.settings[f"with {feature}"] += there
        for code in program.code.values():
            for instruction in decode_all(code):
                self.cells[instruction.name, mode] += 1
                for field, bits, _ in FORMATS[instruction.name].fields:
                    if bits <= KNOB_BITS:
                        self.knobs[instruction.name, field, instruction.fields[field]] += 1

    def missing(self) -> list[str]:
        """Opcodes that no program had."""
        seen = {name for name, _ in self.cells}
        return [name for name in FORMATS if name not in seen]

    def table(self) -> Table:
        """Opcode by mode, with the knob values seen."""
        table = Table(title=f"coverage of {self.cases} programs (instructions)")
        table.add_column("opcode")
        for mode in MODES:
            table.add_column(mode, justify="right")
        table.add_column("knob values seen", overflow="fold")
        for name in FORMATS:
            values: dict[str, list[int]] = {}
            for opcode, field, value in sorted(self.knobs):
                if opcode == name:
                    values.setdefault(field, []).append(value)
            knobs = "  ".join(f"{f}:{','.join(map(str, v))}" for f, v in values.items())
            table.add_row(name, *(str(self.cells[name, mode]) for mode in MODES), knobs)
        return table
