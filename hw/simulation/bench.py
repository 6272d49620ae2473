"""The system test bench: the emitted accelerator with memory at its AXI4 ports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from signmask.hw.emit import Design, Port
from signmask.hw.errors import RtlError
from signmask.hw.simulation.memory import SOURCES, checked
from signmask.hw.spec.config import HardwareConfig

BENCH = "signmask_bench"
READS, WRITES = ("instruction", "load", "near"), ("store", "near")
# A memory port's index is its place here.
PORTS = (*((name, "read") for name in READS), *((name, "write") for name in WRITES))
READ_MEMBERS = "arvalid arready araddr arlen rvalid rready rdata rlast".split()
WRITE_MEMBERS = "awvalid awready awaddr awlen wvalid wready wdata wstrb wlast bvalid bready".split()
PASSED = ("clk", "rst", "interrupt")
TRACES = ("trace_start", "trace_done")
SLOWEST = 1_000_000  # cycles without a beat after which a program counts as stuck


def bench(design: Design, config: HardwareConfig) -> Design:
    """The test bench around an emitted accelerator.

    Its ports are the clock, the reset, the interrupt and those whose names begin with `control_`;
    memory is at the ports of READS and WRITES, named like AXI4's (`load_araddr`). Further inputs
    are 0. Plusargs are those of the memory, patience=CYCLES and trace=PATH, a file that gets a
    line "cycle queue s" or "cycle queue d" for every instruction that starts or is done. Raises
    RtlError where the design lacks a port or the memory cannot serve one.
    """
    ports = {port.name: port for port in design.ports}
    wanted = [*PASSED, *TRACES, *(f"{p}_{m}" for p in READS for m in READ_MEMBERS)]
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
        index: config.near_data_latency if name == "near" else config.memory_latency
        for index, (name, _) in enumerate(PORTS)
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
        if name in memory or name in TRACES:
            yield f"    wire {_range(port)}{name};"
    connections = []
    for name, port in ports.items():
        if name == "rst":
            connections.append("        .rst(reset)")
        elif name in memory or name in shown or name in TRACES:
            connections.append(f"        .{name}({name})")
        elif port.direction == "input":
            connections.append(f"        .{name}({port.width}'d0)")
        else:
            connections.append(f"        .{name}()")
    # A register of the bench: simulation is half as fast where reset is an input of the top.
    yield "    logic reset = 1'b1;"
    yield "    always @(posedge clk) reset <= rst;"
    yield f"    {top} dut (\n" + ",\n".join(connections) + "\n    );"
    for index, (name, kind) in enumerate(PORTS):
        members = READ_MEMBERS if kind == "read" else WRITE_MEMBERS
        width = ports[f"{name}_{'rdata' if kind == 'read' else 'wdata'}"].width
        yield f"    signmask_{kind}_memory #("
        yield f"        .INDEX({index}), .BYTES({width // 8})"
        yield f"    ) {name}_{kind} (\n        .clk(clk), .rst(reset),"
        yield ",\n".join(f"        .{m}({name}_{m})" for m in members) + "\n    );"
    beats = " | ".join(
        [f"{p}_rvalid & {p}_rready" for p in READS] + [f"{p}_wvalid & {p}_wready" for p in WRITES]
    )
    yield f"    int quiet = 0, patience = {SLOWEST};"
    yield '    initial void\'($value$plusargs("patience=%d", patience));'
    yield "    always @(posedge clk) begin"
    yield f"        quiet <= reset | {beats} ? 0 : quiet + 1;"
    yield "        if (quiet > patience)"
    yield '            $fatal(1, "it moved no byte for %0d cycles and is stuck.", quiet);'
    yield "    end"
    queues = ports["trace_start"].width
    yield "    longint now = 0;"
    yield "    int trace = 0;"
    yield "    string path;"
    yield '    initial if ($value$plusargs("trace=%s", path)) trace = $fopen(path, "w");'
    yield "    always @(posedge clk) begin"
    yield "        now <= now + 1;"
    yield "        if (trace != 0 && !reset)"
    yield f"            for (int i = 0; i < {queues}; i = i + 1) begin"
    yield '                if (trace_done[i]) $fdisplay(trace, "%0d %0d d", now, i);'
    yield '                if (trace_start[i]) $fdisplay(trace, "%0d %0d s", now, i);'
    yield "                if (trace_done[i] | trace_start[i]) $fflush(trace);"
    yield "            end"
    yield "    end"
    yield "    final if (trace != 0) $fclose(trace);"
    yield "endmodule"
