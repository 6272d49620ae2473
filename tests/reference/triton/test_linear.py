"""Products on the kernels against the reference's operator on int64 tensors."""

from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from signmask.hw.spec.network import CodeSource, Linear
from signmask.reference.linear import LinearOperator
from signmask.reference.tensors import TensorReader
from signmask.reference.triton.layout import Columns, Operand
from signmask.reference.triton.linear import Blocks, TritonLinear
from signmask.reference.triton.tiles import Geometry
from tests.reference.triton.operands import delta_operand, laid_out

BLOCKS = (None, Blocks(16, 16, 32), Blocks(64, 32, 32), Blocks(32, 64, 32, warps=8, stages=2))


@dataclass(frozen=True)
class Case:
    """One operator with random weights, and a generator of its operands."""

    linear: Linear
    source: CodeSource
    images: int
    columns: Columns
    weight: torch.Tensor  # int8
    generator: torch.Generator

    @property
    def positions(self):
        return self.images * self.source.height * self.source.width

    def integers(self, low, high, *shape):
        return torch.randint(low, high, shape, generator=self.generator)

    def on(self, device, blocks=None):
        geometry = Geometry.of(self.linear, self.source, self.images)
        weight = self.weight.to(device)
        return TritonLinear(weight, geometry, self.columns, self.linear.groups, blocks)

    def reference(self, values, pad):
        """int64 (outputs, out_channels) of operands (positions, channels)."""
        read = TensorReader({"w": self.weight.numpy()}, torch.device("cpu"))
        source = self.source
        image = values.reshape(self.images, source.height, source.width, source.channels)
        made = LinearOperator(self.linear, source, read)(image, pad, 256)
        return made.reshape(-1, self.linear.out_channels)

    def deltas(self, elements, tiles, reach):
        """Differences up to `reach` at a share of elements of a share of positions' runs."""
        shape = (self.positions, sum(self.columns.parts))
        kept = torch.rand(shape, generator=self.generator) < elements
        runs = torch.rand((-(-shape[0] // 16), -(-shape[1] // 32)), generator=self.generator)
        blocks = (runs < tiles).repeat_interleave(16, 0).repeat_interleave(32, 1)
        values = self.integers(-reach, reach, *shape)
        return torch.where(kept & blocks[: shape[0], : shape[1]], values, 0)


@st.composite
def cases(draw, kinds=("full", "depthwise", "grouped")):
    kind = draw(st.sampled_from(kinds))
    # Grouped operators walk over the inputs of a group, one by one.
    most = 12 if kind == "grouped" else 70
    parts = draw(st.lists(st.integers(1, most), min_size=1, max_size=3))
    outputs, groups = draw(st.integers(1, 70)), 1
    if kind == "depthwise":
        outputs = groups = sum(parts)
    elif kind == "grouped":
        groups = draw(st.integers(2, 5))
        parts[0] += -sum(parts) % groups
        outputs = groups * draw(st.integers(1, 12))
    kernel, stride = draw(st.sampled_from((1, 3))), draw(st.integers(1, 2))
    padding, upsample = draw(st.integers(0, 1)), draw(st.integers(1, 2))
    height, width = draw(st.integers(3, 7)), draw(st.integers(3, 7))
    # One more than symmetric padding reaches, at the far edges.
    far = draw(st.booleans()) and stride == 2
    rows, columns = (
        (size * upsample + 2 * padding - kernel + far) // stride + 1 for size in (height, width)
    )
    linear = Linear(
        "l", "s", "", "w", kernel=kernel, stride=stride, padding=padding, upsample=upsample,
        out_channels=outputs, out_height=rows, out_width=columns, groups=groups,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    shape = (outputs, kernel, kernel, sum(parts) // groups)
    weight = torch.randint(-128, 128, shape, generator=generator).to(torch.int8)
    source = CodeSource("s", sum(parts), height, width, 1.0, 0)
    group = draw(st.sampled_from((8, 16, 64)))
    images = draw(st.integers(1, 3))
    return Case(linear, source, images, Columns(tuple(parts), group), weight, generator)


shares = st.sampled_from((0.0, 0.03, 0.3, 1.0))


@settings(deadline=None, max_examples=20)
@given(cases(), st.sampled_from((0, -128, 57)), st.sampled_from(BLOCKS), st.booleans())
def test_codes_give_the_padded_sum(device, case, pad, blocks, added):
    codes = case.integers(-128, 128, case.positions, case.source.channels)
    operand = Operand(laid_out(codes, case.columns).to(torch.int8).to(device), pad)
    want, onto = case.reference(codes, pad), None
    if added:
        before = case.integers(-(1 << 20), 1 << 20, *want.shape)
        onto, want = before.int().to(device), want + before
    made = case.on(device, blocks)(operand, onto)
    assert made.dtype == torch.int32
    assert torch.equal(made.cpu().long(), want)
    assert onto is None or made is onto


def check_deltas(case, device, deltas, blocks, added):
    operand = delta_operand(laid_out(deltas, case.columns), device)
    want, onto = case.reference(deltas, 0), None
    if added:
        before = case.integers(-(1 << 20), 1 << 20, *want.shape)
        onto, want = before.int().to(device), want + before
    made = case.on(device, blocks)(operand, onto)
    assert torch.equal(made.cpu().long(), want)
    assert onto is None or made is onto


@settings(deadline=None, max_examples=40)
@given(cases(("full",)), shares, shares, st.sampled_from((2, 128, 256)),
       st.sampled_from(BLOCKS), st.booleans())  # fmt: skip
def test_deltas_give_the_sum_over_tiles_that_hold_any(
    device, case, elements, tiles, reach, blocks, added
):
    check_deltas(case, device, case.deltas(elements, tiles, reach), blocks, added)


@settings(deadline=None, max_examples=20)
@given(cases(("depthwise", "grouped")), shares, st.sampled_from((2, 256)), st.booleans())
def test_deltas_of_grouped_operators(device, case, elements, reach, added):
    check_deltas(case, device, case.deltas(elements, 0.5, reach), None, added)


@settings(deadline=None, max_examples=10)
@given(cases(("full",)), st.integers(0, 1 << 30), st.booleans())
def test_a_single_delta_of_nine_bits_reaches_all_its_outputs(device, case, place, negative):
    """An outlier among nothing else: the tile that it lies in and its rest may not be missed."""
    deltas = torch.zeros((case.positions, case.source.channels), dtype=torch.int64)
    deltas.view(-1)[place % deltas.numel()] = -256 if negative else 255
    check_deltas(case, device, deltas, Blocks(16, 16, 32), True)


@settings(deadline=None, max_examples=10)
@given(cases())
def test_nothing_sent_leaves_accumulators_untouched(device, case):
    deltas = torch.zeros((case.positions, case.columns.width), dtype=torch.int64)
    operand = delta_operand(deltas, device)
    shape = (case.images * case.linear.out_height * case.linear.out_width, case.linear.out_channels)
    onto = case.integers(-(1 << 31), 1 << 31, *shape).int().to(device)
    before = onto.clone()
    operator = case.on(device)
    assert torch.equal(operator(operand, onto), before)
    assert not operator(operand).any()
