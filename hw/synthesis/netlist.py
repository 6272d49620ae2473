"""From Verilog to mapped cells: yosys, then the critical path by OpenSTA."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signmask.hw.emit import Design
from signmask.hw.synthesis import tools
from signmask.hw.synthesis.errors import SynthesisError
from signmask.hw.synthesis.technology import Technology
from signmask.hw.synthesis.verilog import bitwise_assignments

Statistics = Mapping[str, Mapping[str, int]]  # by module and type of cell
SRAM = "signmask_sram"
SRAM_BITS = 1024  # memories of at least as many bits are SRAM, smaller ones flip-flops
MODULE = re.compile(r"^module (\\\S+|\w+)\s*\(", re.MULTILINE)
MAXIMUM_FANOUT = 12
LOAD_FEMTOFARADS = 10  # on outputs, about one flip-flop's input
# What `synth` does, without sharing of arithmetic, and with one round of optimisation after the
# mapping to gates: further rounds take most of its time on wide datapaths and find next to nothing.
OPTIMISE = (
    "opt_expr", "opt_clean", "wreduce", "peepopt", "opt_clean", "alumacc", "opt", "memory_map",
    "opt_expr -undriven -fine", "opt_clean", "techmap", "opt_expr", "opt_merge", "opt_clean",
)  # fmt: skip
# Technology mapping for delay, trees of buffers, then smaller cells wherever the target allows.
MAP = "+strash;&get,-n;&dch,-f;&nf;&put;buffer,-N,{fanout},-p;upsize,-D,{delay};dnsize,-D,{delay}"


@dataclass(frozen=True)
class Part:
    """What a module holds, with everything inside it: cells and flip-flops, their area in um2, and
    bits of SRAM, which has no area here."""

    area: float
    cells: int
    registers: int
    memory_bits: int


@dataclass(frozen=True)
class Netlist:
    """A mapped design. `parts` are its kept submodules, one each; `outside` counts instances of
    modules that were left out. `path_ns` is the longest path, `path_kind` where it leads."""

    top: Part
    parts: Mapping[str, Part]
    outside: Mapping[str, int]
    path_ns: float | None
    path_kind: str


def synthesise(
    design: Design,
    library: Technology,
    period_ns: float,
    *,
    divide: bool = False,
    keep: Collection[str] = (),
    leave_out: Collection[str] = (),
    folder: Path | None = None,
) -> Netlist:
    """Map a design to the cells of `library`, aiming at `period_ns`.

    Modules in files of their own keep their bounds, with `divide` so do the top's submodules, and
    those at any depth whose own name is in `keep`; all else is flattened. Modules in leave_out,
    SRAM included, are black boxes. folder: keeps the files of the tools. Raises SynthesisError when
    a tool is missing or refuses the design.
    """
    tools.require("yosys", "yosys-abc", "sta")
    library.areas  # noqa: B018 - the file must be there before yosys looks for it
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="signmask-") as made:
            return _synthesise(
                design, library, period_ns, _kept(design, divide, keep), leave_out, Path(made)
            )
    folder.mkdir(parents=True, exist_ok=True)
    return _synthesise(design, library, period_ns, _kept(design, divide, keep), leave_out, folder)


def _synthesise(
    design: Design, library: Technology, period_ns: float, kept: Collection[str],
    leave_out: Collection[str], folder: Path,
) -> Netlist:  # fmt: skip
    for name, text in design.sources.items():
        (folder / name).write_text(text, encoding="utf-8")
    boxes = {name for name in kept if name in leave_out or name == SRAM}
    memory_bits, inner = _elaborate(design, kept, boxes, folder)
    stat = _map(design.top, inner, library, period_ns, folder)
    parts = _parts(stat, memory_bits, {*boxes, *inner}, library)
    top = f"\\{design.top}"
    outside = {
        kind.lstrip("\\"): number
        for kind, number in _instances(stat, top).items()
        if kind.lstrip("\\") in boxes - {SRAM}
    }
    path_ns, path_kind = _critical_path(design.top, library, period_ns, folder)
    shown = {
        name.lstrip("\\").removeprefix(f"{design.top}."): part
        for name, part in sorted(parts.items())
        if name.lstrip("\\") in set(kept) - boxes
    }
    return Netlist(parts[top], shown, outside, path_ns, path_kind)


def _kept(design: Design, divide: bool, keep: Collection[str]) -> set[str]:
    """Modules that are not flattened; Amaranth names a submodule after all that it is in."""
    found = {Path(name).stem for name in design.sources} - {design.top}
    prefix = f"{design.top}."
    for text in design.sources.values():
        for name in (name.lstrip("\\") for name in MODULE.findall(text)):
            direct = name.startswith(prefix) and "." not in name[len(prefix) :]
            if (divide and direct) or ("." in name and name.rpartition(".")[2] in keep):
                found.add(name)
    return found


def _elaborate(
    design: Design, kept: Collection[str], boxes: Collection[str], folder: Path
) -> tuple[Counter[str], list[str]]:
    """Read and flatten the design; returns the bits of SRAM directly inside each module, and the
    submodules that are made for those memories that were not SRAM instances."""
    lines = [f"read_verilog {name}" for name in sorted(design.sources)]
    lines += [f"blackbox {name}" for name in sorted(boxes)]
    lines.append(f"hierarchy -check -top {design.top}")
    inside = sorted(set(kept) - set(boxes))
    lines += [f"setattr -mod -set keep_hierarchy 1 {name}" for name in inside]
    lines += [
        "proc", "flatten", "opt_expr", "opt_clean", "opt -nodffe -nosdff", "memory -nomap",
        "opt_clean -purge", "write_rtlil flat.il", "write_json flat.json",
    ]  # fmt: skip
    _yosys(lines, folder, "elaborate")
    modules = json.loads((folder / "flat.json").read_text(encoding="utf-8"))["modules"]
    bits: Counter[str] = Counter()
    made: list[str] = []
    lines = []
    for module, body in modules.items():
        for cell, facts in body["cells"].items():
            if facts["type"] == SRAM:
                bits[f"\\{module}"] += _number(facts, "WIDTH") * _number(facts, "DEPTH")
            elif facts["type"] == "$mem_v2" and _number(facts, "WR_PORTS"):
                size = _number(facts, "WIDTH") * _number(facts, "SIZE")
                if size >= SRAM_BITS:
                    bits[f"\\{module}"] += size
                    made.append(f"memory_{len(made)}")
                    lines += [f"cd {module}", f"submod -name {made[-1]} c:{cell}", "cd"]
    (folder / "submodules.ys").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return bits, made


def _number(cell: Mapping[str, Any], parameter: str) -> int:
    value = cell["parameters"][parameter]
    return int(value, 2) if isinstance(value, str) else int(value)


def _map(
    top: str, boxes: Collection[str], library: Technology, period_ns: float, folder: Path
) -> Statistics:
    """Map to cells; leaves mapped.v, and returns the number of cells by module and type."""
    script = MAP.format(delay=round(1000 * period_ns), fanout=MAXIMUM_FANOUT)
    lines = [
        "read_rtlil flat.il",
        "script submodules.ys",
        *(f"blackbox {name}" for name in boxes),
        f"hierarchy -check -top {top}",
        *OPTIMISE,
        f"dfflibmap -liberty {library.liberty}",
        f"abc -liberty {library.liberty} -constr drive.constr -script {script}",
        "setundef -zero",
        "opt_clean -purge",
        "tee -q -o stat.json stat -json",
        "rename -hide",
        "splitnets",
        "opt_clean -purge",
        "write_verilog -noattr -noexpr -nohex mapped.v",
    ]
    # Without a driving cell ABC leaves the nets of flip-flops and ports unbuffered.
    drive = f"set_driving_cell {library.buffer}\nset_load {LOAD_FEMTOFARADS}\n"
    (folder / "drive.constr").write_text(drive, encoding="utf-8")
    _yosys(lines, folder, "map")
    return cells_by_module((folder / "stat.json").read_text(encoding="utf-8"))


def cells_by_module(text: str) -> dict[str, dict[str, int]]:
    """Number of cells of each type in each module, from yosys' statistics.

    Read line by line: yosys leaves a comma too many where its last module is a black box.
    """
    found: dict[str, dict[str, int]] = {}
    kinds: dict[str, int] | None = None
    module = ""
    for line in text.splitlines():
        if line.lstrip().startswith('"design"'):
            break
        opened = re.match(r'^      ("\\\\.*"): \{$', line)
        counted = re.match(r'^            (".*"): (\d+),?$', line)
        if opened:
            module, kinds = json.loads(opened[1]), None
            found[module] = {}
        elif '"num_cells_by_type"' in line:
            kinds = found[module]
        elif counted and kinds is not None:
            kinds[json.loads(counted[1])] = int(counted[2])
    return found


def _yosys(lines: list[str], folder: Path, name: str) -> None:
    (folder / f"{name}.ys").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tools.run(["yosys", "-q", "-l", f"{name}.log", f"{name}.ys"], folder)


def _instances(stat: Statistics, top: str) -> Counter[str]:
    """Number of cells of each type below `top`, through all modules."""
    total: Counter[str] = Counter()
    for kind, number in stat[top].items():
        inner = _module(stat, kind)
        total[kind] += number
        if inner in stat:
            for deeper, count in _instances(stat, inner).items():
                total[deeper] += number * count
    return total


def _module(stat: Statistics, kind: str) -> str:
    """Name of a cell's module among the statistics, which drop some backslashes."""
    return kind if kind in stat else f"\\{kind}"


def _parts(
    stat: Statistics,
    memory_bits: Counter[str],
    boxes: Collection[str],
    library: Technology,
) -> dict[str, Part]:
    """Totals of every module, those of the modules inside it included."""
    areas, registers = library.areas, library.registers
    found = {}

    def box_or_module(kind: str) -> bool:
        return kind.lstrip("\\") in boxes or _module(stat, kind) in stat

    for module in stat:
        inside = _instances(stat, module)
        unknown = [kind for kind in inside if kind not in areas and not box_or_module(kind)]
        if unknown:
            raise SynthesisError(
                f"yosys left {unknown[0]} in {module}, of which {library.name} has no area; "
                "choose another library."
            )
        cells = {kind: n for kind, n in inside.items() if kind in areas}
        modules = {_module(stat, kind): n for kind, n in inside.items()} | {module: 1}
        found[module] = Part(
            area=sum(areas[kind] * n for kind, n in cells.items()),
            cells=sum(cells.values()),
            registers=sum(n for kind, n in cells.items() if kind in registers),
            memory_bits=sum(memory_bits[name] * n for name, n in modules.items()),
        )
    return found


def _critical_path(
    top: str, library: Technology, period_ns: float, folder: Path
) -> tuple[float | None, str]:
    """Longest path in ns and its kind: inputs arrive with the clock edge, outputs are wanted with
    the next; the clock is ideal and wires are free. None for a design without paths."""
    text = (folder / "mapped.v").read_text(encoding="utf-8")
    (folder / "netlist.v").write_text(bitwise_assignments(text), encoding="utf-8")
    (folder / "timing.tcl").write_text(
        f"read_liberty {library.liberty}\n"
        "read_verilog netlist.v\n"
        f"link_design {top}\n"
        f"create_clock -name clk -period {period_ns} [get_ports -quiet clk]\n"
        "set_input_delay 0 -clock clk [all_inputs]\n"
        "set_output_delay 0 -clock clk [all_outputs]\n"
        "report_checks -path_delay max -format full -digits 4\n"
        "exit\n",
        encoding="utf-8",
    )
    said = tools.run(["sta", "-no_splash", "-exit", "timing.tcl"], folder)
    (folder / "timing.log").write_text(said, encoding="utf-8")
    slack = re.search(r"^\s*(-?[\d.]+)\s+slack", said, re.MULTILINE)
    if slack is None:
        if "Error" in said or "No paths" not in said:
            raise SynthesisError(f"OpenSTA gave no path of '{top}':\n{said[-1500:]}")
        return None, "no path"
    start, end = ("input" if "input" in said_of else "register" if "flip-flop" in said_of
                  else "output" for said_of in _ends(said))  # fmt: skip
    return period_ns - float(slack[1]), f"{start} to {end}"


def _ends(report: str) -> tuple[str, str]:
    """What OpenSTA says of the path's ends."""
    start = re.search(r"Startpoint:(.*?)Endpoint:(.*?)Path Group", report, re.DOTALL)
    return (start[1], start[2]) if start else ("", "")
