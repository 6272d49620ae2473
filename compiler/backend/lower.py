"""From a quantised network to a program: the back end as one function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from signmask.compiler.backend.context import Context, Phase
from signmask.compiler.backend.descriptors import boundary_descriptor, stream_descriptor
from signmask.compiler.backend.layout import Layout
from signmask.compiler.backend.phase import emit_phase
from signmask.compiler.backend.report import layer_report
from signmask.compiler.backend.streams import stat_shift
from signmask.compiler.backend.widths import check_engine_tables, check_widths
from signmask.compiler.errors import CompileError, check_batch
from signmask.compiler.passes.weights import check_accumulator
from signmask.compiler.synthetic import is_absent
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.container import Program
from signmask.hw.spec.isa import IsaError
from signmask.hw.spec.network import Network


def lower(
    network: Network, tensors: Mapping[str, np.ndarray], config: HardwareConfig, batch: int
) -> Program:
    """A program with code for every phase of the network's dataflow.

    Raises CompileError where the hardware is too small. Settings that only the golden model
    executes (live norm in a mask step) give a program without code.
    """
    knobs = network.knobs
    if (config.group, config.full_lanes, config.inlier_bits) != (
        knobs.group,
        knobs.full_lanes,
        knobs.inlier_bits,
    ):
        raise CompileError(
            f"the network was quantised for groups of {knobs.group} with {knobs.full_lanes} full "
            f"lanes and INT{knobs.inlier_bits}, config '{config.name}' has {config.group}, "
            f"{config.full_lanes} and INT{config.inlier_bits}; quantise it for this config."
        )
    check_batch(network.name, network.images, batch)
    _check_accumulators(network, tensors)
    check_widths(network, tensors, config)
    missing = {n.weight for n in network.linears.values() if is_absent(tensors[n.weight])}
    kept = {name: value for name, value in tensors.items() if name not in missing}
    program = Program(config, network, kept, batch)
    if knobs.dataflow == "mask" and knobs.norm == "live":
        return program
    layout = Layout(network, tensors, config, batch)
    if knobs.dataflow == "mask":
        check_engine_tables(layout)
    context = Context(layout, "dense", frozenset())
    chunk_words = {
        name: context.chunks(stream)[0].planes * layout.plane_words(stream)
        for name, stream in network.streams.items()
    }
    for encoding in network.encodings.values():
        boundary_descriptor(layout, encoding, chunk_words)
    for stream in network.streams.values():
        stream_descriptor(layout, stream, chunk_words, stat_shift(context, stream))
    phases: tuple[Phase, ...] = ("dense",) if knobs.dataflow == "dense" else ("dense", "delta")
    try:
        emitted = {phase: emit_phase(layout, phase) for phase in phases}
    except IsaError as error:
        raise CompileError(
            f"the program does not fit the instruction set ({str(error).rstrip('.')}); lower "
            f"--batch (now {batch}) or choose a smaller config than '{config.name}'."
        ) from None
    return replace(
        program,
        code={phase: part.code for phase, part in emitted.items()},
        image=layout.image(),
        memory_map=layout.map.to_json(),
        report=tuple(layer_report(layout, emitted)),
    )


def _check_accumulators(network: Network, tensors: Mapping[str, np.ndarray]) -> None:
    """Proof that int32 accumulators suffice, for any code or delta."""
    for linear in network.linears.values():
        if is_absent(tensors[linear.weight]):
            continue
        weight = np.abs(tensors[linear.weight].astype(np.int64))
        rows = weight.reshape(weight.shape[0], -1).sum(axis=1)
        check_accumulator(linear.name, int(rows.max(initial=0)))
