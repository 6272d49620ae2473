"""How many tiles of real deltas are empty, by tile size: needs no GPU.

A bundled, trained model is sampled on the golden model; its observer shows every delta operand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from signmask.hw.spec.config import NANO
from signmask.hw.spec.container import Program
from signmask.hw.spec.network import Network
from signmask.hw.spec.step import StepResult
from signmask.reference.golden import GoldenModel
from signmask.reference.triton.layout import RUN, TILE, Columns
from signmask.runtime.baseline import GOLDEN_BATCH
from signmask.runtime.build import CALIBRATION_IMAGES, build_program, calibrate_source
from signmask.runtime.presets import knobs_for
from signmask.runtime.session import Session
from signmask.runtime.sources import resolve

MODELS = ("fashion-silu", "fashion-relu")
FLOWS = ("mask", "restore")
# positions x channels; (RUN, TILE) is the smallest that the kernels can tell apart
TILES = ((1, 16), (1, 32), (RUN, TILE), (16, 64), (32, 64), (64, 64), (128, 64), (128, 128))
DEVICE = "CPU (golden model)"
INT8 = 127

Progress = Callable[[str, float], None]  # what is being done, fraction of it


def empty_share(deltas: Tensor, rows: int, columns: int, kept: Tensor | None = None) -> float:
    """Share of elements that lie in empty tiles of `rows` x `columns`.

    deltas: integers (positions, columns); tiles at the edges are cut off. kept: bool (columns,),
    those that count; the others are padding. Counted by elements, not by tiles, a cut tile weighs
    what it holds, and a tile that consists of smaller ones is never emptier than they are.
    """
    positions, width = deltas.shape
    kept = torch.ones(width, dtype=torch.bool) if kept is None else kept
    fill = (0, -width % columns, 0, -positions % rows)
    filled = functional.pad(deltas != 0, fill)
    filled = filled.reshape(filled.shape[0] // rows, rows, -1, columns).any(3).any(1)
    wide = functional.pad(kept, fill[:2]).reshape(-1, columns).sum(1)
    high = functional.pad(torch.ones(positions, dtype=torch.bool), fill[2:]).reshape(-1, rows)
    sizes = high.sum(1)[:, None] * wide[None, :]
    return float((sizes * ~filled).sum()) / float(sizes.sum())


def laid_out(deltas: Tensor, columns: Columns) -> tuple[Tensor, Tensor]:
    """Deltas (batch, height, width, channels) as the kernels read them, (positions, columns), and
    which columns (bool) are channels."""
    places = columns.places
    flat = deltas.new_zeros(deltas.shape[:-1].numel(), columns.width)
    flat[:, places] = deltas.reshape(len(flat), -1)
    kept = torch.zeros(columns.width, dtype=torch.bool)
    kept[places] = True
    return flat, kept


@dataclass(frozen=True)
class Shares:
    """Of one operand at one step: by tile size, and of single elements; wide: of elements in
    blocks of RUN x TILE with a delta beyond int8, which the kernels multiply twice."""

    tiles: np.ndarray  # float64, in the order of TILES
    zero: float
    wide: float


def shares_of(deltas: Tensor, columns: Columns) -> Shares:
    """Shares of an operand (batch, height, width, channels)."""
    flat, kept = laid_out(deltas, columns)
    beyond = (flat > INT8) | (flat < -INT8 - 1)
    return Shares(
        np.array([empty_share(flat, *tile, kept) for tile in TILES]),
        float((deltas == 0).double().mean()),
        1 - empty_share(beyond, RUN, TILE, kept),
    )


class DeltaObserver:
    """Backend of a session and observer of its golden model: shares by step and operand."""

    def __init__(self, program: Program) -> None:
        network = self.network = program.network
        self.columns = operand_columns(network)
        self.found: dict[int, dict[str, list[Shares]]] = defaultdict(lambda: defaultdict(list))
        self._step: int | None = None  # a delta step under way
        self._codes: dict[str, Tensor] = {}
        self._model = GoldenModel(network, program.tensors, program.batch, self.observe)

    def dense_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Step of the golden model; its operands are codes and are not counted."""
        self._step = None
        return self._model.dense_step(index, codes)

    def delta_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Step of the golden model, its deltas counted."""
        self._step = index
        return self._model.delta_step(index, codes)

    def observe(self, kind: str, name: str, value: Tensor) -> None:
        """Observer of `GoldenModel`."""
        if kind == "codes" and self.network.shape_of(name).mode == "dense":
            # Sent as the plain difference of codes, which the golden model does not show.
            last, self._codes[name] = self._codes.get(name), value
            if last is not None:
                self._count(name, value - last)
        elif kind == "dx":
            self._count(name, value)

    def _count(self, name: str, deltas: Tensor) -> None:
        if self._step is not None:
            self.found[self._step][name].append(shares_of(deltas, self.columns[name]))


def operand_columns(network: Network) -> dict[str, Columns]:
    """Columns of every operand, as the kernels lay them out."""
    parts = {name: (source.channels,) for name, source in network.sources.items()} | {
        name: tuple(network.streams[s].channels for s in encoding.streams)
        for name, encoding in network.encodings.items()
    }
    return {name: Columns(channels, network.knobs.group) for name, channels in parts.items()}


def operand_macs(network: Network) -> dict[str, int]:
    """Multiply-accumulates per image of the linear operators that read each operand."""
    macs: dict[str, int] = defaultdict(int)
    for linear in network.linears.values():
        macs[linear.source] += linear.macs
    return dict(macs)


def rates(observed: DeltaObserver) -> dict[str, Any]:
    """Shares weighted by multiply-accumulates: by step, their mean, and by operand."""
    macs = operand_macs(observed.network)
    steps, tiles, zero, wide = sorted(observed.found), [], [], []
    for step in steps:
        operands = {n: s for n, s in observed.found[step].items() if macs.get(n)}
        weights = [macs[name] for name in operands]
        means = [mean_of(shares) for shares in operands.values()]
        tiles.append(np.average([m.tiles for m in means], axis=0, weights=weights))
        zero.append(float(np.average([m.zero for m in means], weights=weights)))
        wide.append(float(np.average([m.wide for m in means], weights=weights)))
    return {
        "steps_counted": steps,
        "zero": float(np.mean(zero)),
        "zero_by_step": zero,
        "wide_units": float(np.mean(wide)),
        "tiles": [
            {
                "rows": rows,
                "columns": columns,
                "empty": float(np.mean([row[place] for row in tiles])),
                "empty_by_step": [float(row[place]) for row in tiles],
            }
            for place, (rows, columns) in enumerate(TILES)
        ],
        "operands": [operand_facts(observed, name, count) for name, count in macs.items()],
    }


def operand_facts(observed: DeltaObserver, name: str, macs: int) -> dict[str, Any]:
    """Shares of one operand, the mean over the steps."""
    shape = observed.network.shape_of(name)
    mean = mean_of([s for step in observed.found.values() for s in step[name]])
    return {
        "operand": name, "height": shape.height, "width": shape.width, "channels": shape.channels,
        "macs": macs, "zero": mean.zero, "empty": mean.tiles.tolist(),
    }  # fmt: skip


def mean_of(shares: Sequence[Shares]) -> Shares:
    """Mean of several, each with the same weight."""
    return Shares(
        np.mean([s.tiles for s in shares], axis=0),
        float(np.mean([s.zero for s in shares])),
        float(np.mean([s.wide for s in shares])),
    )


def measure_rates(
    models: Sequence[str], steps: int, images: int, seed: int = 0, progress: Progress | None = None,
    calibration_images: int = CALIBRATION_IMAGES,
) -> list[dict[str, Any]]:  # fmt: skip
    """One row per model and dataflow. Raises RunError and the compiler's errors."""
    tell = progress or (lambda text, fraction: None)
    rows = []
    for name in models:
        source = resolve(name)
        model = source.load()
        calibration = calibrate_source(source, steps, model, tell, calibration_images)
        for flow in FLOWS:
            label = f"deltas of {name}, {flow}"
            knobs, config = knobs_for(flow, NANO, source.relu)
            program = build_program(source, config, knobs, steps, 1, model, calibration=calibration)
            # One batch where it fits: the kernels' tiles go on from one image to the next.
            program = replace(program, batch=min(images, GOLDEN_BATCH))
            observed = DeltaObserver(program)
            Session(program, observed).sample(images, seed, fraction_of(tell, label))
            facts = {
                "model": name, "dataflow": flow, "device": DEVICE, "steps": steps,
                "images": images, "batch": program.batch, "seed": seed,
            }  # fmt: skip
            rows.append(facts | rates(observed))
    return rows


def fraction_of(tell: Progress, label: str) -> Callable[[int, int], None]:
    """Progress of a session, told under a label."""
    return lambda done, total: tell(label, done / total)
