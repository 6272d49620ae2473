"""The fused epilogue of a stream against its definition (`docs/numerics.md`)."""

from dataclasses import dataclass, replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from signmask.reference import arithmetic
from signmask.reference.triton.stream import Product, update_stream


@dataclass(frozen=True)
class Case:
    """Everything a stream is made of; products and addends are (positions, channels)."""

    bits: int
    images: int
    products: tuple[Product, ...]
    addends: tuple[torch.Tensor, ...]
    table: torch.Tensor
    table_last: torch.Tensor | None
    y_last: torch.Tensor | None
    offset: torch.Tensor | None
    stat_shift: int | None

    def total(self):
        """What enters the first saturation, int64."""
        table = self.table.long()
        if self.table_last is not None:
            table = table - self.table_last.long()
        shape = (self.products[0].value if self.products else self.addends[0]).shape
        size = shape[0] // self.images
        total = table.expand(self.images, -1).repeat_interleave(size, 0)
        if self.offset is not None:
            repeated = self.offset.long().repeat(self.images // len(self.offset), 1, 1)
            total = total + repeated.reshape(shape)
        for product in self.products:
            scale, value = product.multiplier.long(), product.value.long()
            total = total + arithmetic.requantise(value, scale, product.shift)
        for addend in self.addends:
            total = total + addend.long()
        return total

    def run(self, device, saturated):
        def on(tensor):
            return None if tensor is None else tensor.to(device)

        products = [
            replace(p, value=on(p.value), multiplier=on(p.multiplier)) for p in self.products
        ]
        return update_stream(
            products, [on(a) for a in self.addends], on(self.table), self.bits, self.images,
            saturated, stat_shift=self.stat_shift, offset=on(self.offset),
            table_last=on(self.table_last), y_last=on(self.y_last),
        )  # fmt: skip


@st.composite
def cases(draw, delta):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))

    def integers(reach, *shape):
        return torch.randint(-reach, reach, shape, generator=generator)

    bits, images = draw(st.sampled_from((16, 32))), draw(st.integers(1, 4))
    size, channels = draw(st.integers(1, 70)), draw(st.integers(1, 130))
    kind = torch.int16 if bits == 16 else torch.int32
    # Ends of the range at every count of terms, so that some elements saturate and some do not.
    reach = 1 << draw(st.sampled_from((bits - 1, bits - 4)))
    products, addends = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    if not products + addends:
        products = 1
    made = []
    for _ in range(products):
        shift = draw(st.integers(0, 30))
        value = integers(1 << 31, images * size, channels)
        value >>= draw(st.integers(0, 20))
        multiplier = integers(1 << 15, channels) >> max(0, 14 - shift)
        made.append(Product(value.int(), multiplier, shift))
    offset = None
    rows = draw(st.sampled_from((0, 1, images)))
    if rows and not delta:
        offset = integers(1 << 12, rows, size, channels).int()
    shape = (images * size, channels)
    constants = (draw(st.sampled_from((1, images))), channels)
    return Case(
        bits, images, tuple(made), tuple(integers(reach, *shape).to(kind) for _ in range(addends)),
        integers(1 << 12, *constants).int(),
        integers(1 << 12, *constants).int() if delta else None,
        integers(reach, *shape).to(kind) if delta else None, offset,
        draw(st.sampled_from((None, 0, 3) if bits == 16 else (None, 12))),
    )  # fmt: skip


def check(case, device):
    saturated = torch.tensor([5], dtype=torch.int32, device=device)
    y, dy, sums = case.run(device, saturated)
    total = case.total()
    want = arithmetic.saturate(total, case.bits)
    lost = int((want != total).sum())
    if case.y_last is None:
        assert dy is None
    else:
        assert dy.dtype == y.dtype and torch.equal(dy.cpu().long(), want)
        moved = case.y_last.long() + want
        want = arithmetic.saturate(moved, case.bits)
        lost += int((want != moved).sum())
    assert y.dtype == (torch.int16 if case.bits == 16 else torch.int32)
    assert torch.equal(y.cpu().long(), want)
    assert int(saturated) == 5 + lost  # added to what was counted before
    if case.stat_shift is None:
        assert sums is None
    else:
        shifted = (want >> case.stat_shift).reshape(case.images, -1, want.shape[1])
        both = torch.stack([shifted.sum(1), (shifted * shifted).sum(1)], -1)
        assert torch.equal(sums.cpu(), both)


@settings(deadline=None, max_examples=30)
@given(cases(delta=False))
def test_raw_values_are_the_saturated_sum(device, case):
    check(case, device)


@settings(deadline=None, max_examples=30)
@given(cases(delta=True))
def test_changes_are_saturated_and_added_to_the_values_before(device, case):
    check(case, device)


def test_sums_of_long_images_of_the_largest_values(device):
    """Squares of 32 bits, summed over more blocks than one: beyond 32 bits, and per image."""
    top = (1 << 31) - 1
    values = torch.full((2 * 100, 3), top, dtype=torch.int32)
    values[100:] = -top
    table = torch.zeros((1, 3), dtype=torch.int32)
    case = Case(32, 2, (), (values,), table, None, None, None, 8)
    check(case, device)
