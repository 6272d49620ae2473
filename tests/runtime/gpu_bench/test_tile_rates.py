"""Empty tiles: by hand, by brute force, and of a tiny network beside its own operands."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from signmask.reference.golden import GoldenModel
from signmask.reference.triton.layout import Columns
from signmask.runtime.gpu_bench.tile_rates import (
    TILES,
    DeltaObserver,
    empty_share,
    laid_out,
    operand_columns,
    operand_macs,
    rates,
    shares_of,
)
from signmask.runtime.session import Session
from tests.runtime.programs import tiny_program


def brute_force(values, rows, columns, kept):
    """Share of kept elements whose whole tile is zero, one element at a time."""
    empty = total = 0
    for i, j in np.ndindex(*values.shape):
        if kept[j]:
            top, left = i // rows * rows, j // columns * columns
            total += 1
            empty += not values[top : top + rows, left : left + columns].any()
    return empty / total


def test_a_tile_by_hand():
    values = torch.zeros(4, 6, dtype=torch.int64)
    values[0, 0] = 1  # of tiles 2x4: fills the first; 1x4 and 2x4 are cut to 2 columns on the right
    assert empty_share(values, 2, 4) == 16 / 24
    assert empty_share(values, 4, 6) == 0
    assert empty_share(values, 1, 1) == 23 / 24
    kept = torch.tensor([True, True, False, False, True, True])
    assert empty_share(values, 2, 4, kept) == 12 / 16
    assert empty_share(values * 0, 128, 128) == 1


@pytest.mark.parametrize("tile", [*TILES, (3, 5)])
def test_brute_force_agrees(tile):
    generator = torch.Generator().manual_seed(1)
    values = torch.randint(-3, 4, (70, 96), generator=generator)
    values *= torch.rand(values.shape, generator=generator) < 0.02
    values[16:40] = 0
    kept = torch.rand(96, generator=generator) < 0.8
    values[:, ~kept] = 0
    found = empty_share(values, *tile, kept)
    assert found == pytest.approx(brute_force(values.numpy(), *tile, kept.numpy()))


def test_a_larger_tile_is_never_emptier():
    assert all(big[0] % small[0] == big[1] % small[1] == 0 for small, big in pairwise(TILES))
    generator = torch.Generator().manual_seed(2)
    for density in (0.0, 1e-4, 1e-3, 1e-2, 0.3):
        values = (torch.rand(5, 7, 9, 80, generator=generator) < density).long()
        shares = shares_of(values, Columns((48, 32), 16))
        assert all(big <= small for small, big in pairwise(shares.tiles))
        assert shares.tiles[0] <= shares.zero and shares.wide == 0


def test_deltas_are_laid_out_as_the_kernels_read_them():
    values = torch.arange(1, 1 + 2 * 3 * 5 * 20).reshape(2, 3, 5, 20)
    flat, kept = laid_out(values, Columns((8, 12), 16))
    assert flat.shape == (30, 64) and kept.sum() == 20
    assert torch.equal(flat[:, :8], values.reshape(30, 20)[:, :8])
    assert torch.equal(flat[:, 32:44], values.reshape(30, 20)[:, 8:])
    assert not flat[:, ~kept].any()


def test_deltas_beyond_int8_are_counted_by_block():
    values = torch.zeros(1, 1, 32, 64, dtype=torch.int64)
    values[0, 0, 3, 40], values[0, 0, 20, 0], values[0, 0, 31, 63] = 128, 127, -128
    assert shares_of(values, Columns((64,), 16)).wide == 1 / 4


@pytest.mark.parametrize("dataflow", ["mask", "restore"])
def test_operands_of_a_network_are_those_of_its_steps(dataflow):
    program = tiny_program(dataflow=dataflow, overflow="spill")
    network = program.network
    observed = DeltaObserver(program)
    Session(program, observed).sample(4, 0)
    facts = rates(observed)
    # A second walk, with the sent codes kept by hand.
    operands = {}
    model = GoldenModel(
        network, program.tensors, program.batch,
        lambda kind, name, value: operands.setdefault((kind, name), []).append(value.clone()),
    )  # fmt: skip
    Session(program, model).sample(4, 0)
    macs, columns, totals = operand_macs(network), operand_columns(network), []
    for name, encoded in ((n, v) for (kind, n), v in operands.items() if kind == "dx"):
        shares = [shares_of(value, columns[name]).zero for value in encoded]
        row = next(row for row in facts["operands"] if row["operand"] == name)
        assert row["zero"] == pytest.approx(np.mean(shares))
        totals.append((macs[name], np.mean(shares)))
    modes = {network.shape_of(name).mode for name in macs}
    if "dense" not in modes:
        weights, means = zip(*totals, strict=True)
        assert facts["zero"] == pytest.approx(np.average(means, weights=weights))
    assert facts["steps_counted"] == list(range(1, network.steps))
    assert sum(macs.values()) == sum(linear.macs for linear in network.linears.values())
    assert 0 < facts["zero"] < 1
