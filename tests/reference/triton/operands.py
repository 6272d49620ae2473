"""Operands of linear operators by the definition of their layout, as the kernels' tests need them:
plain int64 values in, what a kernel reads or should have written out."""

from __future__ import annotations

import torch

from signmask.reference.triton.layout import RUN, TILE, Columns, Operand


def laid_out(values: torch.Tensor, columns: Columns) -> torch.Tensor:
    """Channels (positions, channels) in their columns, zeros elsewhere."""
    made = values.new_zeros((len(values), columns.width))
    made[:, columns.places] = values
    return made


def levels_of(deltas: torch.Tensor) -> torch.Tensor:
    """int8 (runs, tiles) of deltas (positions, columns)."""
    runs, tiles = -(-len(deltas) // RUN), deltas.shape[1] // TILE
    made = torch.zeros((runs, tiles), dtype=torch.int8)
    for run in range(runs):
        for tile in range(tiles):
            part = deltas[run * RUN : (run + 1) * RUN, tile * TILE : (tile + 1) * TILE]
            if ((part < -128) | (part > 127)).any():
                made[run, tile] = 2
            elif part.any():
                made[run, tile] = 1
    return made


def spread_levels(levels: torch.Tensor, positions: int) -> torch.Tensor:
    """The level of every element, (positions, columns)."""
    return levels.repeat_interleave(RUN, 0)[:positions].repeat_interleave(TILE, 1)


def delta_operand(deltas: torch.Tensor, device: torch.device) -> Operand:
    """Deltas (positions, columns), -256..255."""
    levels = levels_of(deltas)
    wide = spread_levels(levels, len(deltas)) == 2
    # Another split than the encoder's: the operators must not depend on which one it is.
    rest = torch.where(wide, deltas.div(3, rounding_mode="floor"), 0)
    narrow = (deltas - 2 * rest).to(torch.int8).to(device)
    return Operand(narrow, 0, rest.to(torch.int8).to(device), levels.to(device))


def delta_values(operand: Operand) -> torch.Tensor:
    """int64 deltas (positions, columns) that an operand stands for."""
    if operand.rest is None:
        raise ValueError("an operand of codes has no deltas.")
    return operand.narrow.cpu().long() + 2 * operand.rest.cpu().long()
