"""Constants of encodings. Needs: formats and grids. Guarantees: integers for z, segments and group
normalisation that keep A within 24 bits and the variance within int64.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor, log2
from typing import Any

import networkx as nx
import numpy as np

from signmask.compiler.calibration import Calibration
from signmask.compiler.errors import CompileError
from signmask.compiler.graph import EncodingOp, NormOp, TensorGraph
from signmask.compiler.passes.code_formats import CodeFormat
from signmask.compiler.passes.grids import Grid
from signmask.hw.spec.network import Encoding, Norm, TokenNorm
from signmask.hw.spec.numerics import (
    GAIN_BITS,
    MEAN_FRACTION,
    RSQRT_FRACTION,
    TREND_FRACTION,
    Z_BITS,
)
from signmask.hw.spec.widths import EPSILON_LIMIT, PARAMETER_LIMIT, STAT_SHIFT_LIMIT

Tensors = dict[str, np.ndarray]
Z_STEPS_PER_CODE = 7  # log2
SLOPE_BITS = 14
GAIN_PRECISION = 18  # bits of the largest typical A: five bits are left for unusual images
LARGEST = (1 << (Z_BITS - 1)) - 1
PARAMETER_PRECISION = 45  # bits of the largest B
TOKEN_FRACTION = 20  # fraction bits of a normalised token


def stat_shifts(
    graph: TensorGraph, grids: Mapping[str, Grid], calibration: Calibration
) -> dict[str, int]:
    """Right shift of y before its sums, for each encoding with group normalisation: the largest
    that any norm on its streams needs, because a stream has one set of sums."""
    shared = nx.Graph()
    needed: dict[str, int] = {}
    for name, op in graph.of(EncodingOp):
        if op.norm is not None and op.norm.axis == "image":
            count = op.channels // op.norm.groups * op.height * op.width
            grid = grids[op.streams[0]]
            # A channel's sum of squares is a parameter entry of its own.
            entry = op.height * op.width
            needed[name] = _stat_shift(name, op, count, grid, calibration, entry)
            shared.add_edges_from((name, stream) for stream in op.streams)
    shifts: dict[str, int] = {}
    for members in nx.connected_components(shared):
        names = members & needed.keys()
        shifts.update(dict.fromkeys(names, max(needed[n] for n in names)))
    return shifts


def build_encoding(
    name: str, op: EncodingOp, form: CodeFormat, grid: Grid, calibration: Calibration,
    tensors: Tensors, stat_shift: int,
) -> Encoding:  # fmt: skip
    """The integer Encoding of `op`; its tensors are added to `tensors`. `stat_shift` of the sums of
    a group normalisation."""
    if form.segments is None:
        raise CompileError(f"encoding '{name}' has no activation segments; fit them first.")
    slope = max(float(np.abs(form.segments.slopes).max()), 1e-6)
    fraction = ceil(log2(2.0**Z_STEPS_PER_CODE * slope / form.scale))
    fraction = min(fraction, floor(log2(LARGEST / (2 * max(calibration.extent(name), 1e-9)))))
    fields: dict[str, Any]
    if op.norm is None:
        gain = grid.step if op.affine is None else op.affine.gain * grid.step
        offset = np.zeros(1) if op.affine is None else op.affine.offset
        fields = _affine(name, op, fraction, gain, offset, tensors)
    elif op.norm.axis == "token":
        fields = _token_norm(name, op, op.norm, fraction, grid, calibration, tensors)
    else:
        fields = _norm(name, op, fraction, grid, calibration, tensors, stat_shift)
    fields.update(_segments(name, form, fraction, tensors))
    return Encoding(
        name=name, streams=op.streams, channels=op.channels, height=op.height, width=op.width,
        scale=form.scale, zero=form.zero, **fields,
    )  # fmt: skip


def _segments(name: str, form: CodeFormat, fraction: int, tensors: Tensors) -> dict[str, Any]:
    """breaks, slopes and intercepts; code = slope * z + intercept, the zero point included."""
    segments = form.segments
    if segments is None:
        raise CompileError(f"encoding '{name}' has no activation segments; fit them first.")
    per_z = segments.slopes / form.scale * 2.0**-fraction  # codes per unit of z
    code_shift = floor(SLOPE_BITS - log2(max(float(np.abs(per_z).max()), 1e-12)))
    code_shift = max(1, min(code_shift, 40))
    edges = np.clip(np.rint(segments.breaks * 2.0**fraction), -LARGEST, LARGEST)
    tensors[f"{name}.breaks"] = edges.astype(np.int64)
    tensors[f"{name}.slopes"] = np.rint(per_z * 2.0**code_shift).astype(np.int64)
    offset = segments.intercepts / form.scale + form.zero
    tensors[f"{name}.intercepts"] = np.rint(offset * 2.0**code_shift).astype(np.int64)
    return {
        "code_shift": code_shift,
        "breaks": f"{name}.breaks",
        "slopes": f"{name}.slopes",
        "intercepts": f"{name}.intercepts",
    }


def _affine(
    name: str, op: EncodingOp, fraction: int, gain: float | np.ndarray, offset: np.ndarray,
    tensors: Tensors,
) -> dict[str, Any]:  # fmt: skip
    """A and B of real value gain * (integer) + offset, either (channels or 1,), (steps, channels)
    or (steps, images, channels); rows of equal images and of equal steps become one."""
    ideal = np.atleast_1d(np.asarray(gain, np.float64)) * 2.0**fraction
    z_shift = max(0, floor(GAIN_PRECISION - log2(max(float(np.abs(ideal).max()), 1e-12))))
    # B takes 48 bits at most.
    largest = max(float(np.abs(offset).max()) * 2.0**fraction, 1e-12)
    z_shift = max(0, min(z_shift, floor(PARAMETER_PRECISION - log2(largest))))
    a, b = np.rint(ideal * 2.0**z_shift), np.rint(offset * 2.0 ** (fraction + z_shift))
    if np.abs(a).max() >= 1 << (GAIN_BITS - 1):
        raise CompileError(
            f"encoding '{name}' needs a gain of {np.abs(a).max():.0f}, beyond 24 bits; lower "
            "grid_bits."
        )
    for key, rows in (("affine_a", a), ("affine_b", b)):
        if rows.ndim == 3 and (rows == rows[:, :1]).all():
            rows = rows[:, 0]
        if rows.ndim == 2 and (rows == rows[0]).all():
            rows = rows[0]
        shape = (*rows.shape[:-1], op.channels)
        tensors[f"{name}.{key}"] = np.broadcast_to(rows, shape).astype(np.int64)
    return {
        "z_shift": z_shift,
        "affine_a": f"{name}.affine_a",
        "affine_b": f"{name}.affine_b",
    }


def _token_norm(
    name: str, op: EncodingOp, norm: NormOp, fraction: int, grid: Grid, calibration: Calibration,
    tensors: Tensors,
) -> dict[str, Any]:  # fmt: skip
    """Fixed point of layer and RMS normalisation: tokens are normalised to TOKEN_FRACTION bits,
    then scale and bias are the encoding's A and B."""
    if norm.groups != 1 or len(op.streams) != 1:
        raise CompileError(f"normalisation '{name}' splits tokens; give it one group.")
    count = op.channels
    stat_shift = _stat_shift(name, op, count, grid, calibration)
    unit = grid.step * 2.0**stat_shift
    # normalised = centred * r * 2**-(shift + h) * scale, where centred * r * 2**-(46 + h) * count
    # is the true value in steps of 2**-(8 + stat_shift).
    ideal = MEAN_FRACTION + RSQRT_FRACTION + stat_shift - TOKEN_FRACTION
    shift = max(24, min(54, ideal - floor(log2(count))))
    scale = count * 2.0 ** (shift - MEAN_FRACTION - RSQRT_FRACTION - stat_shift)
    fields = _affine(name, op, fraction, norm.weight * scale, norm.bias, tensors)
    epsilon = _epsilon(name, norm, count, unit)
    fields["token_norm"] = TokenNorm(count, epsilon, stat_shift, shift, norm.centred)
    return fields


def _norm(
    name: str, op: EncodingOp, fraction: int, grid: Grid, calibration: Calibration,
    tensors: Tensors, stat_shift: int,
) -> dict[str, Any]:  # fmt: skip
    """Fixed point of group normalisation and its calibrated tables."""
    norm = op.norm
    if norm is None:
        raise CompileError(f"encoding '{name}' has no normalisation.")
    if op.channels % norm.groups:
        raise CompileError(
            f"normalisation '{name}' splits {op.channels} channels into {norm.groups} groups; use "
            "a divisor."
        )
    per_group = op.channels // norm.groups
    count = per_group * op.height * op.width
    unit = grid.step * 2.0**stat_shift  # real value of a step of the sums
    deviation = calibration.group_deviation[name] / unit  # (steps, groups)
    mean = calibration.group_mean[name] / unit
    weight, bias = norm.weight, norm.bias
    if weight.ndim != bias.ndim:
        weight, bias = np.broadcast_arrays(weight, bias)
    # A per step of y: gamma / sigma * 2**(fraction + z_shift), sigma in grid steps.
    gamma = weight.reshape(-1, norm.groups, per_group)
    ideal = gamma / (deviation * 2.0**stat_shift)[:, :, None] * 2.0**fraction
    z_shift = max(0, floor(GAIN_PRECISION - log2(max(float(np.abs(ideal).max()), 1e-12))))
    a = np.rint(ideal * 2.0**z_shift)
    if np.abs(a).max() >= 1 << (GAIN_BITS - 1):
        raise CompileError(
            f"normalisation '{name}' needs a gain beyond 24 bits on calibration data; lower "
            "grid_bits."
        )
    offset = np.rint(bias * 2.0 ** (fraction + z_shift))
    # gain * r * 2**-(gain_shift + h) = A, with r * 2**-(46 + h) = 1 / (count * sigma).
    weight = weight * count * 2.0 ** (fraction + z_shift - stat_shift - RSQRT_FRACTION)
    gain_shift = floor(30 - log2(max(float(np.abs(weight).max()), 1e-30)))
    mean_shift = MEAN_FRACTION - stat_shift
    fixed_mean = np.rint(mean * 2.0**MEAN_FRACTION)
    b = offset - np.rint(a * np.repeat(fixed_mean, per_group, 1).reshape(a.shape)
                         * 2.0**-mean_shift).reshape(len(a), -1)  # fmt: skip
    reference = np.exp(np.log(deviation).mean(0))
    tables = {
        "gain": np.rint(weight * 2.0**gain_shift),
        "offset": offset,
        "cal_mean": fixed_mean,
        "cal_inverse": np.rint(reference / deviation * 2.0**TREND_FRACTION),
        "cal_sigma": np.rint(deviation / reference * 2.0**TREND_FRACTION),
        "cal_a": a.reshape(len(a), -1),
        "cal_b": b,
    }
    for key, table in tables.items():
        tensors[f"{name}.{key}"] = table.astype(np.int64)
    return {
        "z_shift": z_shift,
        "norm": Norm(
            groups=norm.groups, count=count, epsilon=_epsilon(name, norm, count, unit),
            gain_shift=gain_shift,
            mean_shift=mean_shift, stat_shift=stat_shift, gain=f"{name}.gain",
            offset=f"{name}.offset", cal_mean=f"{name}.cal_mean",
            cal_inverse=f"{name}.cal_inverse", cal_sigma=f"{name}.cal_sigma",
            cal_a=f"{name}.cal_a", cal_b=f"{name}.cal_b",
        ),
    }  # fmt: skip


def _epsilon(name: str, norm: NormOp, count: int, unit: float) -> int:
    """The norm's epsilon in squares of steps `unit` of a sum over `count` elements."""
    epsilon = max(1, int(np.rint(norm.epsilon * count**2 / unit**2)))
    if epsilon >= EPSILON_LIMIT:
        raise CompileError(
            f"normalisation '{name}' adds {norm.epsilon:g} to variances of values in steps of "
            f"{unit:.3g}, which takes more than 47 bits; lower grid_bits or its epsilon."
        )
    return epsilon


def _stat_shift(
    name: str, op: EncodingOp, count: int, grid: Grid, calibration: Calibration, entry: int = 0
) -> int:
    """Smallest shift that keeps count**2 * (y >> shift)**2 + epsilon below 2**62, and the sum of
    `entry` squares within a parameter entry."""
    extent = max(calibration.extent(s) for s in op.streams) / grid.step
    largest = log2(max(1.0, min(2.0 ** (grid.bits - 1), 16 * extent)))
    shift = max(0, ceil(log2(count) + largest - 30.5))
    if entry:
        shift = max(shift, ceil((log2(entry) - log2(PARAMETER_LIMIT)) / 2 + largest))
    if shift >= STAT_SHIFT_LIMIT:
        raise CompileError(
            f"normalisation '{name}' sums {count} elements of up to {2**largest:.3g} steps, beyond "
            "the hardware's sums; use more groups or smaller images."
        )
    return shift
