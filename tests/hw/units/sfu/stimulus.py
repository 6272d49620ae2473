"""Random legal vector instructions, and scratchpads that suit them."""

import numpy as np

TOP = {bits: (1 << bits - 1) - 1 for bits in range(1, 64)}


def shape(rng, limit):
    """(planes, images, positions): single words, short and long frames."""
    while True:
        planes, images = int(rng.integers(1, 5)), int(rng.integers(1, 4))
        positions = int(rng.choice([1, 2, 9, 15, 16, 17, int(rng.integers(1, 60))]))
        if rng.random() < 0.2:
            planes = images = 1
        if planes * images * positions <= limit:
            return planes, images, positions


def wide(rng, bits, size):
    """Signed numbers of at most `bits` bits, of every magnitude, the extremes among them."""
    low, high = -TOP[bits] - 1, TOP[bits]
    values = rng.integers(low, high, size, endpoint=True)
    values >>= rng.integers(0, bits, size)
    edges = rng.random(size)
    return np.where(edges < 0.03, low, np.where(edges > 0.97, high, values))


def near(rng, values, spread):
    """Numbers close to `values`, some of them far off, within 16 bits."""
    moved = values + (rng.integers(-spread, spread + 1, values.shape))
    far = rng.random(values.shape) < rng.choice([0, 0.1, 0.5, 1])
    return np.where(far, wide(rng, 15, values.shape), moved)


class Stimulus:
    """Fills the simulator's scratchpads and gives (opcode, fields)."""

    def __init__(self, core, rng):
        self.core, self.rng, self.config = core, rng, core.config
        self.n = core.config.group

    def next(self):
        """A random instruction; its operands are in the scratchpads."""
        make = self.rng.choice(
            [
                self.requantise, self.requantise, self.quantise, self.copy, self.encode_raw,
                self.encode_raw, self.encode_mask, self.encode_mask, self.encode_source,
                self.multiply,
            ]
        )  # fmt: skip
        return make()

    def _fill(self, pad, at, values):
        getattr(self.core, pad).data[at : at + len(values)] = values

    def _places(self, depth, *sizes):
        """Starts of disjoint blocks in random order."""
        order = self.rng.permutation(len(sizes))
        spare, at, starts = depth - sum(sizes), 0, [0] * len(sizes)
        for i in order:
            gap = int(self.rng.integers(0, spare + 1)) if spare else 0
            starts[i] = at + gap
            at, spare = starts[i] + sizes[i], spare - gap
        return starts

    def _size(self, blocks):
        planes, images, positions = shape(self.rng, self.config.accumulator_words // blocks)
        return planes, images, positions, planes * images * positions

    def requantise(self):
        rng, n = self.rng, self.n
        planes, images, _, words = self._size(2)
        value, add = self._places(self.config.accumulator_words, words, words)
        multiplier, now, last, sums = self._places(
            self.config.parameter_words, planes, planes, planes, 2 * planes * images
        )
        has_sums = int(rng.integers(2))
        bits = int(rng.choice([0, 1, 8, 16, 17, 32])) if not has_sums else int(rng.integers(2, 33))
        magnitude = int(rng.integers(4, 33))
        self._fill("accumulator", value, wide(rng, magnitude, (words, n)))
        self._fill("accumulator", add, wide(rng, int(rng.integers(4, 33)), (words, n)))
        scale = wide(rng, 16, (planes, n))
        self._fill("parameter", multiplier, np.where(rng.random() < 0.5, scale & TOP[16], scale))
        for at in (now, last):
            self._fill("parameter", at, wide(rng, int(rng.choice([8, 32, 48])), (planes, n)))
        shift = int(rng.choice([0, 1, 14, magnitude, 40, 62, 63, 63]))
        return "REQUANTISE", dict(
            accumulator=value, words=words, planes=planes, images=images, multiplier=multiplier,
            shift=shift, has_table=int(rng.integers(2)), has_last=int(rng.integers(2)), now=now,
            last=last, has_add=int(rng.integers(2)), add=add, bits=bits, has_sums=has_sums,
            sums=sums, stat_shift=max(0, bits - 17) if has_sums else int(rng.integers(16)),
            lanes=int(rng.integers(1, n + 1)), stream=int(rng.integers(2)),
        )  # fmt: skip

    def quantise(self):
        rng = self.rng
        words = int(rng.choice([1, 2, 50]))
        (at,) = self._places(self.config.accumulator_words, words)
        self._fill("accumulator", at, wide(rng, 32, (words, self.n)))
        return "QUANTISE", dict(
            accumulator=at, words=words, multiplier=int(rng.integers(1 << 16)),
            shift=int(rng.integers(64)),
        )  # fmt: skip

    def copy(self):
        words = int(self.rng.choice([1, 2, 50]))
        source, target = self._places(self.config.accumulator_words, words, words)
        self._fill("accumulator", source, wide(self.rng, 32, (words, self.n)))
        return "COPY", dict(accumulator=source, words=words, output=target)

    def multiply(self):
        rng, n = self.rng, self.n
        words = int(rng.choice([1, 2, 50]))
        a, b, output = self._places(self.config.accumulator_words, words, words, words)
        for at in (a, b):
            low = int(rng.choice([-128, -5, 127]))
            self._fill("accumulator", at, rng.integers(low, 128, (words, n)))
        zeros = [int(rng.choice([-128, 0, 127, rng.integers(-128, 128)])) for _ in range(3)]
        return "MULTIPLY", dict(
            accumulator=a, other=b if rng.random() < 0.9 else a, words=words, zero_a=zeros[0],
            zero_b=zeros[1], multiplier=int(rng.choice([0, 1, 50000, 65535])),
            shift=int(rng.choice([0, 1, 20, 24, 34, 63])), zero=zeros[2],
            output=int(rng.choice([a, b, output])),
        )  # fmt: skip

    def _segments(self, at):
        """Random breaks, slopes and intercepts; the used breaks ascend."""
        rng = self.rng
        used = int(rng.integers(0, 8))
        table = wide(rng, 48, (3, self.n))
        table[0, :7] = 1 << 40
        table[0, :used] = np.sort(wide(rng, int(rng.choice([12, 24])), used))
        table[1, :8] = wide(rng, 24, 8)
        table[2, :8] = wide(rng, int(rng.choice([20, 48])), 8)
        self._fill("parameter", at, table)

    def encode_raw(self):
        rng, n = self.rng, self.n
        planes, images, _, words = self._size(3)
        y, codes, previous = self._places(self.config.accumulator_words, words, words, words)
        if rng.random() < 0.3:
            codes = int(rng.choice([y, previous]))
        stride = int(rng.integers(2, 5))
        shared = int(rng.integers(2))
        frames = planes if shared else planes * images
        constants, segments = self._places(
            self.config.parameter_words, 2 * frames if shared else stride * frames, 3
        )
        pairs = wide(rng, 24, (frames, 2, n))
        pairs[:, 1] = wide(rng, int(rng.choice([24, 48])), (frames, n))
        for i, pair in enumerate(pairs):
            self._fill("parameter", constants + i * (2 if shared else stride), pair)
        self._segments(segments)
        self._fill("accumulator", y, wide(rng, int(rng.choice([8, 16, 32])), (words, n)))
        low, high = sorted(rng.integers(-128, 128, 2).tolist())
        around = np.full((words, n), rng.integers(low, high, endpoint=True))
        self._fill("accumulator", previous, near(rng, around, int(rng.choice([0, 3, 5, 300]))))
        (operand,) = self._places(self.config.input_words, words)
        return "ENCODE_RAW", dict(
            accumulator=y, words=words, planes=planes, images=images, constants=constants,
            constants_stride=stride, shared_constants=shared, segments=segments,
            z_shift=int(rng.choice([0, 1, 18, 30, 63])),
            code_shift=int(rng.choice([0, 14, 35, 63])),
            low=low, high=high, codes=codes, input=operand, difference=int(rng.integers(2)),
            previous=previous, spill=int(rng.integers(2)), lanes=int(rng.integers(1, n + 1)),
            source=int(rng.integers(2)),
        )  # fmt: skip

    def encode_mask(self):
        rng, n = self.rng, self.n
        planes, images, _, words = self._size(1)
        (dy,) = self._places(self.config.accumulator_words, words)
        (mask,) = self._places(self.config.mask_words, words)
        (operand,) = self._places(self.config.input_words, words)
        shared = int(rng.integers(2))
        frames = planes if shared else planes * images
        gain, segments = self._places(self.config.parameter_words, frames, 3)
        self._fill("parameter", gain, wide(rng, 24, (frames, n)))
        self._segments(segments)
        z_shift = int(rng.choice([0, 5, 18, 30]))
        self._fill("accumulator", dy, wide(rng, int(rng.choice([4, 10, 17, 32])), (words, n)))
        loop, carry = int(rng.integers(3)), int(rng.integers(0, 9))
        self._fill("segments", mask, rng.integers(0, 8, (words, n)))
        residue = wide(rng, max(1, carry), (words, n)) if carry else np.zeros((words, n), int)
        correction = residue if loop == 2 else wide(rng, int(rng.choice([2, 5, 9])), (words, n))
        self._fill("corrections", mask, correction)
        return "ENCODE_MASK", dict(
            accumulator=dy, words=words, planes=planes, images=images, gain=gain,
            shared_constants=shared, segments=segments, z_shift=z_shift,
            code_shift=int(rng.choice([carry, carry + 1, 30, 40, 63])), mask=mask, loop=loop,
            carry_bits=carry, input=operand, spill=int(rng.integers(2)),
            lanes=int(rng.integers(1, n + 1)), source=int(rng.integers(2)),
        )  # fmt: skip

    def encode_source(self):
        rng, n = self.rng, self.n
        planes, _, positions, _ = self._size(6)
        words = planes * positions
        codes, previous = self._places(self.config.accumulator_words, words, words)
        (operand,) = self._places(self.config.input_words, words)
        now = rng.integers(-128, 128, (words, n))
        self._fill("accumulator", codes, now)
        self._fill("accumulator", previous, near(rng, now, int(rng.choice([0, 2, 4, 200]))))
        return "ENCODE_SOURCE", dict(
            accumulator=codes, words=words, planes=planes, input=operand,
            difference=int(rng.integers(2)), previous=previous, track=int(rng.integers(2)),
            spill=int(rng.integers(2)), lanes=int(rng.integers(1, n + 1)),
            source=int(rng.integers(2)),
        )  # fmt: skip
