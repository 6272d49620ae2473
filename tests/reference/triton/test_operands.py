"""Operands over several steps: what the encode kernel leaves behind is what products read."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from signmask.reference.triton.encode import RESTORED, Encoded, Format, Values, encode
from signmask.reference.triton.layout import Columns, Operand, level_shape
from signmask.reference.triton.linear import TritonLinear
from signmask.reference.triton.tiles import Geometry


@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.integers(1, 70), min_size=1, max_size=2),
    st.lists(st.sampled_from((3, 100, 255)), min_size=2, max_size=4),
    st.sampled_from((0.001, 0.02)), st.integers(0, 1000),
)  # fmt: skip
def test_accumulators_follow_codes_over_steps_with_and_without_wide_deltas(
    device, parts, reaches, density, seed
):
    columns, positions = Columns(tuple(parts), 16), 144
    generator = torch.Generator().manual_seed(seed)

    def integers(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    weight = integers(-128, 128, 20, 1, 1, sum(parts)).to(torch.int8)
    linear = TritonLinear(weight.to(device), Geometry(1, 1, positions, 1, positions), columns)
    codes = integers(-128, 128, positions, sum(parts))
    shape = (positions, columns.width)
    narrow, rest = (torch.zeros(shape, dtype=torch.int8, device=device) for _ in range(2))
    levels = torch.full(level_shape(positions, columns), 77, dtype=torch.int8, device=device)
    sent = torch.zeros(shape, dtype=torch.int16)
    sent[:, columns.places] = codes.to(torch.int16)
    counts = torch.zeros(4, dtype=torch.int32, device=device)
    encoded = Encoded(Operand(narrow, 0, rest, levels), sent.to(device), counts)
    matrix = weight.reshape(20, -1).long().T
    made = (codes @ matrix).int().to(device)
    for reach in reaches:
        moved = torch.rand(codes.shape, generator=generator) < density
        target = (codes + integers(-reach, reach + 1, *codes.shape)).clamp(-128, 127)
        codes = torch.where(moved, target, codes)
        at = 0
        for part, size in enumerate(parts):
            values = codes[:, at : at + size].to(torch.int8).to(device).contiguous()
            encode(part, Values(codes=values), encoded, Format(columns, 3, 2, True), RESTORED, 1)
            at += size
        linear(encoded.operand, made)
        assert torch.equal(made.cpu().long(), codes @ matrix)
