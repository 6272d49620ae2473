"""The PE array against a convolution and a cycle count written out as loops."""

import numpy as np
import pytest

from signmask.hw.spec import timing
from signmask.hw.spec.numerics import delta_passes, digit_passes
from signmask.sim.errors import Fault
from tests.sim.programs import CONFIG, Bench

SHAPES = {
    "pointwise": dict(in_height=3, in_width=3, planes=2, kernel=1, step=1, padding=0, upsample=1,
                      out_height=3, out_width=3, blocks=2),
    "3x3": dict(in_height=4, in_width=5, planes=1, kernel=3, step=1, padding=1, upsample=1,
                out_height=4, out_width=5, blocks=3),
    "stride": dict(in_height=5, in_width=4, planes=2, kernel=3, step=2, padding=1, upsample=1,
                   out_height=3, out_width=2, blocks=1),
    "upsample": dict(in_height=2, in_width=3, planes=1, kernel=3, step=1, padding=1, upsample=2,
                     out_height=4, out_width=6, blocks=2),
    "beyond the edge": dict(in_height=4, in_width=4, planes=1, kernel=3, step=2, padding=0,
                            upsample=1, out_height=2, out_width=2, blocks=1),
}  # fmt: skip


def expected(f, operands, weights, images):
    """(products int (channels, positions), array cycles) by the definition in docs/isa.md."""
    columns, n = weights.shape[1:]
    taps = f["kernel"] ** 2 * f["planes"]
    positions = [(i, y, x) for i in range(images) for y in range(f["out_height"])
                 for x in range(f["out_width"])]  # fmt: skip
    products = np.zeros((f["blocks"] * columns, len(positions)), np.int64)
    cost = np.zeros((len(positions), taps), int)
    for q, (image, row, column) in enumerate(positions):
        tap = 0
        for ky in range(f["kernel"]):
            for kx in range(f["kernel"]):
                y = (row * f["step"] + ky - f["padding"]) // f["upsample"]
                x = (column * f["step"] + kx - f["padding"]) // f["upsample"]
                inside = 0 <= y < f["in_height"] and 0 <= x < f["in_width"]
                for plane in range(f["planes"]):
                    vector = operands[plane, image, y, x] if inside else np.full(n, f["zero"])
                    if f["delta"] and not inside:
                        vector = np.zeros(n, int)
                    for block in range(f["blocks"]):
                        word = weights[block * taps + tap]
                        products[block * columns : (block + 1) * columns, q] += word @ vector
                    outliers = int(((vector < -4) | (vector > 3)).sum())
                    cost[q, tap] = delta_passes(outliers, CONFIG.full_lanes, 3)
                    tap += 1
    blocks = [cost[at : at + CONFIG.rows].max(axis=0) for at in range(0, len(cost), CONFIG.rows)]
    cycles = np.sum(blocks) if f["delta"] else len(blocks) * taps * digit_passes(8, 3)
    return products, int(cycles) * f["blocks"] + timing.array_fill(CONFIG)


@pytest.mark.parametrize("delta", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_against_loops(shape, delta):
    rng = np.random.default_rng(len(shape))
    bench, images, f = Bench(), 2, SHAPES[shape] | dict(delta=delta, zero=-7)
    plane = images * f["in_height"] * f["in_width"]
    stride, positions = plane + 3, images * f["out_height"] * f["out_width"]
    low, high = (-256, 256) if delta else (-128, 128)
    operands = rng.integers(low, high, (f["planes"], plane, 16))
    operands[rng.random(operands.shape) < 0.8] = 1
    weights = rng.integers(-128, 128, (f["blocks"] * f["kernel"] ** 2 * f["planes"], 8, 16))
    for p in range(f["planes"]):
        bench.core.input.data[5 + p * stride : 5 + p * stride + plane] = operands[p]
    bench.core.weight.data[9 : 9 + len(weights)] = weights
    target = bench.core.accumulator.data
    target[:] = before = rng.integers(-1000, 1000, target.shape)
    shaped = operands.reshape(f["planes"], images, f["in_height"], f["in_width"], 16)
    products, cycles = expected(f, shaped, weights, images)
    planes = -(-f["blocks"] * 8 // 16)
    for accumulate in (0, 1):
        cost = bench.execute(
            "MATMUL", input=5, input_stride=stride, images=images, weight=9, accumulator=2,
            accumulator_stride=positions + 1, accumulate=accumulate, **f,
        )  # fmt: skip
        assert cost.done == cost.occupied == cycles
        for p in range(planes):
            at = 2 + p * (positions + 1)
            channels = products[p * 16 : (p + 1) * 16].T
            want = np.zeros((positions, 16), int)
            want[:, : channels.shape[1]] = channels * (1 + accumulate)
            assert np.array_equal(target[at : at + positions], want)
    untouched = 2 + (planes - 1) * (positions + 1) + positions
    assert np.array_equal(target[untouched:], before[untouched:])


def test_products_beyond_float32_stay_exact():
    bench = Bench()
    bench.core.input.data[:] = 255
    bench.core.weight.data[:] = -128
    bench.core.weight.data[3, 0, 0] = -127  # odd sums show a lost bit
    bench.execute(
        "MATMUL", input_stride=1, images=1, in_height=1, in_width=1, planes=256, kernel=1, step=1,
        upsample=1, out_height=1, out_width=1, blocks=1, delta=1,
    )  # fmt: skip
    full = -255 * 128 * 256 * 16
    assert bench.core.accumulator.data[0, :8].tolist() == [full + 255] + [full] * 7
    assert abs(full) > 1 << 24


def test_a_sum_beyond_32_bits_is_a_fault():
    bench = Bench()
    bench.core.input.data[:] = 255
    bench.core.weight.data[:] = -128
    fields = dict(
        input_stride=1, images=1, in_height=1, in_width=1, planes=256, kernel=1, step=1, upsample=1,
        out_height=1, out_width=1, blocks=1, delta=1, accumulate=1,
    )  # fmt: skip
    bench.core.accumulator.data[:] = 255 * 128 * 256 * 16 - (1 << 31)
    bench.execute("MATMUL", **fields)
    assert bench.core.accumulator.data[0, :8].tolist() == [-(1 << 31)] * 8
    with pytest.raises(Fault, match="more than 32 bits"):
        bench.execute("MATMUL", **fields)
