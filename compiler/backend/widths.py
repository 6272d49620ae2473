"""Proof that a quantised network fits the hardware's registers, before anything is emitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from signmask.compiler.backend.layout import Layout
from signmask.compiler.errors import CompileError
from signmask.hw.spec import widths
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.engine_timing import table_words
from signmask.hw.spec.network import Encoding, Network

Tensors = Mapping[str, np.ndarray]


def check_widths(network: Network, tensors: Tensors, config: HardwareConfig) -> None:
    """Raise CompileError for the first value that exceeds its register."""
    for what, count in (
        ("encodings and sources", len(network.encodings) + len(network.sources)),
        ("streams", len(network.streams)),
    ):
        if count > config.counter_entries:
            raise CompileError(
                f"the network has {count} {what} and config '{config.name}' counts "
                f"{config.counter_entries}; raise counter_entries."
            )
    for encoding in network.encodings.values():
        place = f"encoding '{encoding.name}'"
        for what, found, limit in _of_encoding(encoding, tensors, network.knobs.norm == "trend"):
            if found >= limit:
                raise CompileError(
                    f"{place} has {what} of {found}, beyond {limit - 1} of the hardware; quantise "
                    "it on a coarser grid."
                )
    for linear in network.linears.values():
        if linear.out:
            found = _largest(tensors[linear.multiplier])
            if found >= widths.MULTIPLIER_LIMIT:
                raise CompileError(
                    f"'{linear.name}' has a multiplier of {found}, beyond "
                    f"{widths.MULTIPLIER_LIMIT - 1} of the hardware; lower it and its shift."
                )


def _largest(values: np.ndarray) -> int:
    return int(np.abs(values.astype(np.int64)).max(initial=0))


def _of_encoding(
    encoding: Encoding, tensors: Tensors, trend: bool
) -> Iterator[tuple[str, int, int]]:
    """(what, largest magnitude, limit) of the values of a boundary."""
    yield "a slope", _largest(tensors[encoding.slopes]), widths.SLOPE_LIMIT
    yield "an intercept", _largest(tensors[encoding.intercepts]), widths.PARAMETER_LIMIT
    yield "a break", _largest(tensors[encoding.breaks]), widths.PARAMETER_LIMIT
    norm = encoding.norm
    if norm is None:
        yield "a gain", _largest(tensors[encoding.affine_a]), widths.SLOPE_LIMIT
        yield "an offset", _largest(tensors[encoding.affine_b]), widths.PARAMETER_LIMIT
        return
    yield "a norm gain", _largest(tensors[norm.gain]), widths.FACTOR_LIMIT
    yield "a norm offset", _largest(tensors[norm.offset]), widths.PARAMETER_LIMIT
    yield "a norm gain_shift", norm.gain_shift, widths.GAIN_SHIFT_LIMIT
    yield "a norm mean_shift", abs(norm.mean_shift), widths.MEAN_SHIFT_LIMIT
    yield "a norm count", norm.count, widths.COUNT_LIMIT
    yield "a norm epsilon", norm.epsilon, widths.EPSILON_LIMIT
    yield "a calibrated gain", _largest(tensors[norm.cal_a]), widths.SLOPE_LIMIT
    yield "a calibrated offset", _largest(tensors[norm.cal_b]), widths.PARAMETER_LIMIT
    if trend:
        yield "norm groups", norm.groups, widths.TREND_GROUPS + 1
        for name in (norm.cal_inverse, norm.cal_sigma):
            yield "a calibrated deviation", _largest(tensors[name]), widths.FACTOR_LIMIT


def check_engine_tables(layout: Layout) -> None:
    """Raise CompileError for a boundary whose tables exceed the near-data engine's memory."""
    config, knobs = layout.config, layout.network.knobs
    for encoding in layout.network.encodings.values():
        if encoding.mode != "mask":
            continue
        needed = table_words(
            config, sum(layout.encoding_planes(encoding)), layout.batch,
            encoding.norm.groups if encoding.norm else 0,
            knobs.norm if encoding.norm else "affine", knobs.loop,
            layout.segment_bits(encoding) > 0,
            layout.row_stride(f"gain_table/{encoding.name}") > 0,
        )  # fmt: skip
        if needed > config.engine_words:
            raise CompileError(
                f"encoding '{encoding.name}' needs {needed} table words in the near-data engine "
                f"and config '{config.name}' has {config.engine_words}; lower --batch (now "
                f"{layout.batch}) or raise engine_words."
            )
