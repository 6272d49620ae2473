"""Lists of tiles that are not empty, against a walk over every output and tap."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from signmask.reference.triton.layout import RUN, TILE
from signmask.reference.triton.tiles import Geometry, TileLister


@st.composite
def geometries(draw):
    kernel, stride = draw(st.sampled_from((1, 3, 5))), draw(st.integers(1, 2))
    padding, upsample = draw(st.integers(0, kernel // 2)), draw(st.integers(1, 2))
    height, width = draw(st.integers(5, 9)), draw(st.integers(5, 9))
    outs = ((n * upsample + 2 * padding - kernel) // stride + 1 for n in (height, width))
    images = draw(st.integers(1, 3))
    return Geometry(images, height, width, *outs, kernel, stride, padding, upsample)


def positions_read(geometry, rows):
    """Sets of operand positions by (block of outputs, tap)."""
    found = {}
    g = geometry
    for output in range(g.outputs):
        image, inner = divmod(output, g.out_height * g.out_width)
        y, x = divmod(inner, g.out_width)
        for tap in range(g.taps):
            reads = found.setdefault((output // rows, tap), set())
            row = y * g.stride + tap // g.kernel - g.padding
            column = x * g.stride + tap % g.kernel - g.padding
            if 0 <= row < g.height * g.upsample and 0 <= column < g.width * g.upsample:
                row, column = row // g.upsample, column // g.upsample
                reads.add((image * g.height + row) * g.width + column)
    return found


@settings(deadline=None, max_examples=25)
@given(geometries(), st.sampled_from((16, 32, 128)))
def test_runs_are_those_from_the_first_to_the_last_position_read(geometry, rows):
    first, last = geometry.runs(rows)
    reads = positions_read(geometry, rows)
    assert first.shape == last.shape == (-(-geometry.outputs // rows), geometry.taps)
    for (block, tap), positions in reads.items():
        if positions:
            assert first[block, tap] == min(positions) // RUN
            assert last[block, tap] == max(positions) // RUN + 1
        else:
            assert first[block, tap] == last[block, tap]


@settings(deadline=None, max_examples=25)
@given(
    geometries(), st.sampled_from((16, 64)), st.integers(1, 4), st.sampled_from((1, 2, 4)),
    st.sampled_from((0.0, 0.1, 0.5, 1.0)), st.integers(0, 1000),
)  # fmt: skip
def test_lists_hold_every_tile_that_is_read_and_not_empty(
    device, geometry, rows, blocks, step, density, seed
):
    generator = torch.Generator().manual_seed(seed)
    shape = (-(-geometry.positions // RUN), blocks * step)
    levels = torch.randint(1, 3, shape, generator=generator)
    levels *= torch.rand(shape, generator=generator) < density
    depth = step * TILE
    lister = TileLister(geometry, blocks * depth, rows, depth, device)
    made = lister(levels.to(torch.int8).to(device))
    first, last = geometry.runs(rows)
    reads = positions_read(geometry, rows)
    total = 0
    pairs = ((1, made.lists, made.counts), (2, made.wide_lists, made.wide_counts))
    for level, lists, counts in pairs:
        for block in range(len(counts)):
            listed = lists[block, : counts[block]].tolist()
            assert listed == sorted(set(listed))
            for entry in range(geometry.taps * blocks):
                tap, at = divmod(entry, blocks)
                tiles = levels[:, at * step : (at + 1) * step]
                runs = {position // RUN for position in reads[block, tap]}
                needed = any(int(tiles[run].max()) >= level for run in runs)
                within = tiles[first[block, tap] : last[block, tap]]
                spanned = within.numel() > 0 and int(within.max()) >= level
                assert (entry in listed) == spanned
                assert spanned or not needed
            if level == 1:
                total += len(listed)
    assert made.filled() == total / made.lists.numel()
    if not density:
        assert total == 0
