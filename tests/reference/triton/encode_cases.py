"""Random operands and layers for the tests of the encode kernel."""

from dataclasses import dataclass, field

import torch
from hypothesis import strategies as st

from signmask.reference import arithmetic
from signmask.reference.delta_encoder import DeltaEncoder
from signmask.reference.triton.encode import Activation, Values
from signmask.reference.triton.layout import Columns

LOW, HIGH = -120, 119
Z_SHIFT, CODE_SHIFT = 12, 20


@dataclass(frozen=True)
class Case:
    """A format, the size of an operand and a generator of what it holds."""

    parts: tuple[int, ...]
    group: int
    bits: int
    lanes: int
    spill: bool
    images: int
    image_positions: int
    density: float  # of what changes
    generator: torch.Generator = field(repr=False)

    @property
    def columns(self):
        return Columns(self.parts, self.group)

    @property
    def positions(self):
        return self.images * self.image_positions

    @property
    def cuts(self):
        """The channels of each part."""
        ends = torch.tensor(self.parts).cumsum(0).tolist()
        return [slice(end - size, end) for end, size in zip(ends, self.parts, strict=True)]

    def integers(self, low, high, *shape):
        return torch.randint(low, high, shape, generator=self.generator)

    def codes(self):
        return self.integers(-128, 128, self.positions, sum(self.parts))

    def changed(self, codes, spread):
        """Codes where some differ, most of them by less than `spread`."""
        moved = self.sparse(self.integers(-spread, spread + 1, *codes.shape))
        return (codes + moved).clamp(-128, 127)

    def sparse(self, values):
        """Zeros but for a share of elements, and nothing at all at half of the positions."""
        kept = torch.rand(values.shape, generator=self.generator) < self.density
        whole = torch.rand((len(values), 1), generator=self.generator) < 0.5
        return torch.where(kept & whole, values, 0)

    def encoder(self):
        return DeltaEncoder(self.parts, self.group, self.bits, self.lanes, self.spill)


@st.composite
def cases(draw):
    return Case(
        tuple(draw(st.lists(st.integers(1, 90), min_size=1, max_size=3))),
        draw(st.sampled_from((8, 16, 32, 64, 128))), draw(st.integers(3, 5)),
        draw(st.integers(1, 4)), draw(st.booleans()), draw(st.integers(1, 3)),
        draw(st.integers(1, 25)), draw(st.sampled_from((0.0, 0.02, 0.3, 1.0))),
        torch.Generator().manual_seed(draw(st.integers(0, 1000))),
    )  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """Constants (images or 1, channels) and tables of an activation, int64."""

    a: torch.Tensor
    b: torch.Tensor
    gain: torch.Tensor
    breaks: torch.Tensor
    slopes: torch.Tensor
    intercepts: torch.Tensor

    @classmethod
    def random(cls, case, own, segments):
        """own: every image has constants of its own."""
        shape = (case.images if own else 1, sum(case.parts))
        return cls(
            case.integers(-(1 << 13), 1 << 13, *shape), case.integers(-(1 << 20), 1 << 20, *shape),
            case.integers(-(1 << 13), 1 << 13, *shape),
            case.integers(-1500, 1500, segments - 1).sort()[0],
            case.integers(-(1 << 18), 1 << 18, segments),
            case.integers(-(1 << 25), 1 << 25, segments),
        )  # fmt: skip

    def of(self, constant, case):
        """A constant at every position, (positions, channels)."""
        return constant.expand(case.images, -1).repeat_interleave(case.image_positions, 0)

    def activation(self, device):
        tables = (self.breaks, self.slopes, self.intercepts)
        return Activation(*(t.to(device) for t in tables), Z_SHIFT, CODE_SHIFT, LOW, HIGH)

    def values(self, device, y, dy=None, gain=None):
        def cut_values(cut):
            def part(values):
                return None if values is None else values[:, cut].to(device).contiguous()

            return Values(
                y=part(y), dy=part(dy), a=part(self.a), b=part(self.b), gain=part(gain),
                activation=self.activation(device),
            )  # fmt: skip

        return cut_values

    def segments_of(self, case, y):
        """(z, segments, codes) of raw values."""
        a, b = self.of(self.a, case), self.of(self.b, case)
        z = arithmetic.pre_activation(y.long(), a, b, Z_SHIFT)
        segments = arithmetic.segment_index(z, self.breaks)
        slope, intercept = self.slopes[segments], self.intercepts[segments]
        return segments, arithmetic.activation_code(z, slope, intercept, CODE_SHIFT, LOW, HIGH)


def raw_values(case, wide):
    """Mostly moderate raw values with some at the ends of their 16 or 32 bits."""
    shape = (case.positions, sum(case.parts))
    edge = 1 << (31 if wide else 15)
    ends = torch.tensor([-edge, edge - 1])[case.integers(0, 2, *shape)]
    rare = torch.rand(shape, generator=case.generator) < 0.02
    values = torch.where(rare, ends, case.integers(-1200, 1200, *shape))
    return values.to(torch.int32 if wide else torch.int16)
