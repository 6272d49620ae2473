"""Random legal runs of the normalisation unit, with the simulator's results."""

import numpy as np

from signmask.hw.spec import timing
from signmask.sim.errors import Fault
from signmask.sim.normalisation import TREND_GROUPS, Normalisation, Part

TABLES = ("mean_last", "mean_now", "inverse_now", "sigma_last")
ENTRY = 1 << 48
# (channels of each part, groups): single channels, groups of one, parts and groups that straddle.
CORNERS = (
    ((1,), 1), ((1, 1, 1, 1), 1), ((1, 1, 1, 1), 4), ((5,), 5), ((40,), 40), ((64,), 64),
    ((17, 1, 33, 1), 2), ((17, 17, 17, 17), 4), ((17, 17, 17, 17), 2), ((9, 9, 9, 9), 3),
    ((9, 33), 21), ((16, 16), 8), ((65, 65, 65, 65), 5),
)  # fmt: skip


def sizes(rng, trend):
    """Channels of each part, and a number of groups."""
    if rng.random() < 0.3:
        return CORNERS[rng.integers(len(CORNERS))]
    n = int(rng.choice([8, 16]))
    parts = [
        int(rng.choice([1, n, n + 1, rng.integers(1, 3 * n)])) for _ in range(rng.integers(1, 5))
    ]
    total = sum(parts)
    fit = [g for g in range(1, total + 1) if total % g == 0 and (g <= TREND_GROUPS or not trend)]
    return tuple(parts), int(rng.choice(fit))


def _sums(rng, shape, positions, extent):
    """Sums and sums of squares, (2, *shape), that `positions` values within `extent` can have."""
    centre = rng.integers(-extent, extent + 1, shape)
    spread = rng.integers(0, max(1, extent // rng.choice([1, 30])) + 1, shape)
    total = centre * positions
    squares = centre * centre * positions + spread * positions
    if rng.random() < 0.1:
        total, squares = np.zeros_like(total), np.zeros_like(squares)
    return np.stack([total, squares])


class Run:
    """One run: `fields` of the unit, `before` and `after` (depth, n) of its memory, `cycles`."""

    def __init__(self, config, rng, depth, trend=False, gain_only=False):
        self.config, self.rng, self.depth = config, rng, depth
        self.trend, self.gain_only = trend, gain_only
        while True:
            try:
                self._draw()
                return
            except Fault:
                continue

    def _put(self, values):
        """Address of a block of words (any shape ending in n), behind a random gap."""
        words = values.reshape(-1, self.config.group)
        self._at += int(self.rng.integers(0, 3))
        at, self._at = self._at, self._at + len(words)
        if self._at > self.depth:
            raise Fault("does not fit")
        self.before[at : self._at] = words
        return at

    def _draw(self):
        rng, n = self.rng, self.config.group
        channels, groups = sizes(rng, self.trend)
        images = int(rng.integers(1, 4))
        parts = tuple(Part(-(-c // n), c) for c in channels)
        planes, each = sum(part.planes for part in parts), sum(channels) // groups
        positions = int(rng.choice([1, 4, 64, 1024]))
        extent = int(rng.choice([1, 100, 5000]))
        fields = {
            "images": images, "parts": len(parts), "groups": groups, "count": positions * each,
            "epsilon": int(rng.choice([1, 12345678, 1 << 45])),
            "gain_shift": int(rng.choice([0, 10, 30, 37, 40, 55])),
            "mean_shift": int(rng.choice([-8, 0, 8, 8, 20, 63])),
            **{f"channels_{i}": part.channels for i, part in enumerate(parts)},
        }  # fmt: skip
        self.before = rng.integers(-ENTRY // 2, ENTRY // 2, (self.depth, n))
        self._at = 0
        shape = (planes, images, n)
        sums = _sums(rng, shape, positions, extent).transpose(1, 2, 0, 3)
        start = 0
        for i, part in enumerate(parts):
            fields[f"sums_{i}"] = self._put(sums[start : start + part.planes])
            start += part.planes
        high = int(rng.choice([100, 1 << 20, (1 << 31) - 1]))
        gain = rng.integers(-high, high, (planes, n), endpoint=True)
        offset = rng.integers(-(1 << 45), 1 << 45, (planes, n))
        fields |= {"gain": self._put(gain), "offset": self._put(offset)}
        tables = {}
        for name in TABLES if self.trend else ():
            limit = 1 << 35 if "mean" in name else 1 << 15
            words = rng.integers(0, limit, (-(-groups // n), n))
            fields[name] = self._put(words)
            tables[name] = words.reshape(-1)[:groups]
        written = np.zeros(((1 if self.gain_only else 2) * planes * images, n), np.int64)
        fields["output"] = self._put(rng.integers(-9, 9, written.shape))
        unit = Normalisation(fields, parts, n, gain.reshape(-1), offset.reshape(-1))
        moments = unit.moments(sums)
        if self.trend:
            moments = unit.moved(moments, **tables)
        a, b = unit.constants(moments)
        if not self.gain_only and (b.min() < -ENTRY // 2 or b.max() >= ENTRY // 2):
            raise Fault("writes a parameter that exceeds 48 bits")
        written = a if self.gain_only else np.stack([a, b], 2)
        self.after = self.before.copy()
        words = written.reshape(-1, n)
        self.after[fields["output"] : fields["output"] + len(words)] = words
        self.fields, self.parts, self.planes = fields, parts, planes
        self.cycles = timing.normalisation(self.config, images, channels, groups, self.trend)
