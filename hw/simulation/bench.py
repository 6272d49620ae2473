"""The system test bench: the emitted accelerator with memory at its AXI4 ports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from signmask.hw.emit import Design, Port
from signmask.hw.errors import RtlError
from signmask.hw.simulation.memory import SOURCES, checked
from signmask.hw.spec.config import HardwareConfig

BENCH = "signmask_bench"
READS, WRITES = ("instruction_port", "load_port", "near_read"), ("store_port", "near_write")
PORTS = (*READS, *WRITES)  # a memory port's index is its place here
READ_MEMBERS = "arvalid arready araddr arlen rvalid rready rdata rlast".split()
WRITE_MEMBERS = "awvalid awready awaddr awlen wvalid wready wdata wstrb wlast bvalid bready".split()
PASSED = ("clk", "rst", "interrupt")
SLOWEST = 1_000_000  # cycles without a beat after which a program counts as stuck


def bench(design: Design, config: HardwareConfig) -> Design:
    """The test bench around an emitted accelerator.

    Its ports are the clock, the reset, the interrupt and those whose names begin with `control_`;
    memory is at `instruction_port_*`, `load_port_*`, `store_port_*`, `near_read_*` and
    `near_write_*`, named like AXI4's channels (`load_port_araddr`). Further inputs are 0. Plusargs
    are those of the memory and patience=CYCLES. Raises RtlError where the design lacks a port.
    """
    ports = {port.name: port for port in design.ports}
    wanted = [*PASSED, *(f"{p}_{m}" for p in READS for m in READ_MEMBERS)]
    wanted += [f"{p}_{m}" for p in WRITES for m in WRITE_MEMBERS]
    missing = [name for name in wanted if name not in ports]
    if missing:
        raise RtlError(
            f"module '{design.top}' has no port {missing[0]}, which the test bench connects; name "
            "it so."
        )
    for name, port in ports.items():
        if name.endswith(("_rdata", "_wdata")) and name.split("_")[0] != "control":
            checked(port.width // 8)
    outside = tuple(
        port for port in design.ports if port.name in PASSED or port.name.startswith("control_")
    )
    sources = dict(design.sources) | {path.name: _text(path) for path in SOURCES}
    sources[f"{BENCH}.sv"] = "\n".join(_lines(design.top, ports, outside)) + "\n"
    return Design(BENCH, sources, outside)


def latencies(config: HardwareConfig) -> dict[int, int]:
    """Cycles of each memory port, by index."""
    return {
        index: config.near_data_latency if name.startswith("near") else config.memory_latency
        for index, name in enumerate(PORTS)
    }


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _range(port: Port) -> str:
    return f"[{port.width - 1}:0] " if port.width > 1 else ""


def _lines(top: str, ports: dict[str, Port], outside: tuple[Port, ...]) -> Iterator[str]:
    shown = {port.name for port in outside}
    yield f"module {BENCH} ("
    yield ",\n".join(f"    {port.direction} wire {_range(port)}{port.name}" for port in outside)
    yield ");"
    memory = {f"{p}_{m}" for p in READS for m in READ_MEMBERS}
    memory |= {f"{p}_{m}" for p in WRITES for m in WRITE_MEMBERS}
    for name, port in ports.items():
        if name in memory:
            yield f"    wire {_range(port)}{name};"
    connections = []
    for name, port in ports.items():
        if name in memory or name in shown:
            connections.append(f"        .{name}({name})")
        elif port.direction == "input":
            connections.append(f"        .{name}({port.width}'d0)")
        else:
            connections.append(f"        .{name}()")
    yield f"    {top} dut (\n" + ",\n".join(connections) + "\n    );"
    for index, name in enumerate(PORTS):
        read = name in READS
        members = READ_MEMBERS if read else WRITE_MEMBERS
        width = ports[f"{name}_{'rdata' if read else 'wdata'}"].width
        yield f"    signmask_{'read' if read else 'write'}_memory #("
        yield f"        .INDEX({index}), .BYTES({width // 8})"
        yield f"    ) {name} (\n        .clk(clk), .rst(rst),"
        yield ",\n".join(f"        .{m}({name}_{m})" for m in members) + "\n    );"
    beats = " | ".join(
        [f"{p}_rvalid & {p}_rready" for p in READS] + [f"{p}_wvalid & {p}_wready" for p in WRITES]
    )
    yield f"    int quiet = 0, patience = {SLOWEST};"
    yield '    initial void\'($value$plusargs("patience=%d", patience));'
    yield "    always @(posedge clk) begin"
    yield f"        quiet <= rst | {beats} ? 0 : quiet + 1;"
    yield "        if (quiet > patience)"
    yield '            $fatal(1, "it moved no byte for %0d cycles and is stuck.", quiet);'
    yield "    end"
    yield "endmodule"
