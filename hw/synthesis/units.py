"""What is synthesised: units of the accelerator, and PEs of other lane mixes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from amaranth import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from signmask.hw.compressor import Compressor
from signmask.hw.control import Control
from signmask.hw.counters import Counters
from signmask.hw.dma.load import LoadUnit
from signmask.hw.dma.store import StoreUnit
from signmask.hw.float_pe import FloatPe
from signmask.hw.near_data.engine import NearDataEngine
from signmask.hw.normalisation import NormalisationUnit
from signmask.hw.outlier_selector import OutlierSelector
from signmask.hw.pe import WEIGHT_BITS, LaneMix, Pe
from signmask.hw.pe_array import PeArray
from signmask.hw.sequencer import Sequencer
from signmask.hw.sfu.sfu import Sfu
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.numerics import DELTA_BITS, digit_passes

PAPER_LANES = (60, 4)  # narrow and full lanes of a PE, Cambricon-D sec. VI-C
PAPER_INLIER_BITS = 3


@dataclass(frozen=True)
class Job:
    """One run of the flow: the component, and which of its modules keep their bounds or are left
    out (see `netlist.synthesise`)."""

    name: str
    make: Callable[[], Component]
    note: str = ""
    divide: bool = False
    keep: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()


class WeightSelectors(Component):
    """The multiplexers of a PE's full lanes alone: for each, the weight at its index."""

    def __init__(self, mix: LaneMix) -> None:
        self.mix = mix
        super().__init__(
            {
                "weights": In(mix.group * WEIGHT_BITS),
                "indices": In(mix.full_lanes * mix.index_bits),
                "chosen": Out(mix.full_lanes * WEIGHT_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Multiplexers without registers."""
        m = Module()
        mix = self.mix
        weights = Signal(len(self.weights))
        m.d.comb += weights.eq(self.weights)
        for j in range(mix.full_lanes):
            index = self.indices.word_select(j, mix.index_bits)
            chosen = self.chosen.word_select(j, WEIGHT_BITS)
            m.d.comb += chosen.eq(weights.word_select(index, WEIGHT_BITS))
        return m


def accelerator(config: HardwareConfig) -> list[Job]:
    """The units of an accelerator, in the order of its queues, and blocks that they share."""
    mix = LaneMix.of(config)
    # Several components of one name are one job's parts: kept so that they can be told apart.
    return [
        Job("Pe", lambda: Pe(mix), f"one of {config.rows * config.columns}"),
        Job("OutlierSelector", lambda: OutlierSelector(config), f"one of {config.rows}"),
        Job(
            "PeArray", lambda: PeArray(config), "without its PEs", divide=True,
            leave_out=(mix.module,),
        ),
        Job("Sfu", lambda: Sfu(config), divide=True, keep=("differencing",)),
        Job("LoadUnit", lambda: LoadUnit(config), divide=True, keep=("fields", "expander")),
        Job("StoreUnit", lambda: StoreUnit(config), divide=True, keep=("compressor",)),
        Job("NearDataEngine", lambda: NearDataEngine(config), divide=True),
        Job("Sequencer", lambda: Sequencer(config), divide=True),
        Job("Control", lambda: Control(config)),
        Job("Counters", lambda: Counters(config), divide=True),
        Job("Compressor", lambda: Compressor(config), "part of StoreUnit"),
        Job(
            "NormalisationUnit", lambda: NormalisationUnit(config, config.engine_words),
            "part of NearDataEngine and Sfu",
        ),
    ]  # fmt: skip


def other_pes(config: HardwareConfig) -> list[Job]:
    """PEs that the accelerator's is compared with, and the multiplexers of its full lanes."""
    mix = LaneMix.of(config)
    dense, narrow = LaneMix.dense(config.group), lanes(config.group, 0, config.inlier_bits)
    return [
        Job("Pe dense INT8", lambda: Pe(dense), "the PE of the dense accelerator"),
        Job("Pe without full lanes", lambda: Pe(narrow), "narrow lanes alone"),
        Job("WeightSelectors", lambda: WeightSelectors(mix), "multiplexers of one PE's full lanes"),
    ]


@dataclass(frozen=True)
class Mix:
    """A PE of the lane study: its name, lanes and component."""

    name: str
    narrow_lanes: int
    full_lanes: int
    make: Callable[[], Component]


def lanes(group: int, full_lanes: int, inlier_bits: int) -> LaneMix:
    """Lanes for inliers of that many bits."""
    return LaneMix(
        group, full_lanes, inlier_bits + 1, inlier_bits, digit_passes(DELTA_BITS, inlier_bits)
    )


def lane_mixes(group: int, full_lanes: int) -> list[Mix]:
    """PEs of `group` multipliers, INT8 dense first: with narrow lanes of INT3, 4 and 5 for our
    number of operands, and the paper's of FP16, of which the narrow and full ones together are
    `group`."""
    paper_full = max(1, group * PAPER_LANES[1] // sum(PAPER_LANES))
    paper_narrow = group - paper_full
    bits = PAPER_INLIER_BITS
    return [
        Mix("INT8 dense", 0, group, lambda: Pe(LaneMix.dense(group))),
        *(
            Mix(
                f"INT{k} + INT9", group, full_lanes,
                lambda k=k: Pe(lanes(group, full_lanes, k)),  # type: ignore[misc]
            )
            for k in (3, 4, 5)
        ),
        Mix("FP16 dense", 0, group, lambda: FloatPe(0, group)),
        Mix(
            f"INT{bits} x FP16 + FP16", paper_narrow, paper_full,
            lambda: FloatPe(paper_narrow, paper_full, bits),
        ),
    ]  # fmt: skip
