"""Widths of the hardware's registers that a network has to fit."""

from __future__ import annotations

TOTAL_LIMIT = 1 << 32  # of a group's sum: its square stays below 2**63
VARIANCE_LIMIT = 1 << 63  # of count * squares + epsilon
COUNT_LIMIT = 1 << 32
STAT_SHIFT_LIMIT = 1 << 4  # a field of REQUANTISE
EPSILON_LIMIT = 1 << 47  # a parameter entry
MEAN_LIMIT = 1 << 39
FACTOR_LIMIT = 1 << 31  # of gains, of r moved by a trend, of a trend's tables
RATIO_LIMIT = 1 << 39
GAIN_SHIFT_LIMIT = 56  # with h it stays below 64
MEAN_SHIFT_LIMIT = 64
TREND_GROUPS = 64
TOKEN_SHIFTS = range(24, 55)  # of a token's normalisation: with h it is within 1..62

PARAMETER_LIMIT = 1 << 47  # of table entries
SLOPE_LIMIT = 1 << 23  # of a segment's slope and of a fixed gain A
MULTIPLIER_BITS = 15
MULTIPLIER_LIMIT = 1 << MULTIPLIER_BITS
