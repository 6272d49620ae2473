"""Everything `signmask bench gpu` measures, as one JSON object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from signmask.runtime.build import CALIBRATION_IMAGES
from signmask.runtime.gpu_bench import end_to_end, kernels, shapes, tile_rates
from signmask.runtime.gpu_bench.break_even import break_evens
from signmask.runtime.gpu_bench.ceilings import Ceilings, measure_ceilings
from signmask.runtime.gpu_bench.kernels import Case, Contenders, library_rows
from signmask.runtime.gpu_bench.passes import pass_rows
from signmask.runtime.gpu_bench.timing import Bench

FORMAT = 1
NOT_MEASURED = "not measured"
NO_DEVICE = (
    "No CUDA device: kernel times, ceilings and step times were not measured; empty-tile rates of "
    "real deltas were."
)
Progress = Callable[[str, float], None]  # what is being done, fraction of it


@dataclass(frozen=True)
class Scope:
    """What is timed on a device. candidates: `kernels.CANDIDATES`; images: in a kernel's batch."""

    shapes: tuple[shapes.Shape, ...]
    sparsities: tuple[float, ...]
    candidates: tuple[tuple[int, ...], ...]
    images: int

    @classmethod
    def of(cls, quick: bool, images: int) -> Scope:
        """All of it, or a quarter."""
        sparsities = kernels.QUICK_SPARSITIES if quick else kernels.SPARSITIES
        candidates = kernels.CANDIDATES[:4] if quick else kernels.CANDIDATES
        return cls(shapes.layer_shapes(quick), sparsities, candidates, images)


def study(
    bench: Bench | None, scope: Scope, models: tuple[str, ...], steps: int, images: int,
    calibration_images: int = CALIBRATION_IMAGES, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure. Without a bench, what needs one is there with the device "not measured" and null
    for every time. Raises RunError and the compiler's errors."""
    tell = progress or (lambda text, fraction: None)
    device = bench.name if bench else NOT_MEASURED
    facts: dict[str, Any] = {
        "format": FORMAT,
        "device": device,
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda if bench else None},
        "note": "" if bench else NO_DEVICE,
    }
    facts["tile_rates"] = tile_rates.measure_rates(
        models, steps, images, 0, tell, calibration_images
    )
    if bench is None:
        return facts | unmeasured(scope, steps, images)
    tell("ceilings", 0.0)
    ceilings = measure_ceilings(bench)
    facts |= {"ceilings": ceilings.to_json()} | measure_kernels(bench, ceilings, scope, tell)
    facts["steps"] = []
    for workload in end_to_end.WORKLOADS:
        facts["steps"] += end_to_end.step_rows(
            workload, steps, images, device, tell, calibration_images=calibration_images
        )
    return facts


def measure_kernels(
    bench: Bench, ceilings: Ceilings, scope: Scope, tell: Progress | None = None
) -> dict[str, Any]:
    """Rows of products and passes, and the break-evens that they give."""
    tell = tell or (lambda text, fraction: None)
    products: list[dict[str, Any]] = []
    for place, shape in enumerate(scope.shapes):
        tell(f"kernels: {shape.name}", place / len(scope.shapes))
        case = Case(bench, shape, scope.images, ceilings)
        try:
            products += library_rows(case)
            contenders = Contenders(case, scope.candidates)
            products.append(contenders.dense_row())
            products += contenders.delta_rows(scope.sparsities)
        except torch.OutOfMemoryError:
            products.append(case.missing("all further", "not measured: out of device memory"))
    passes: list[dict[str, Any]] = []
    sizes = shapes.stream_shapes(scope.shapes)
    for place, shape in enumerate(sizes):
        tell(f"passes: {shape.height}x{shape.width}x{shape.out_channels}", place / len(sizes))
        passes += pass_rows(bench, shape, scope.images, ceilings)
    return {"products": products, "break_even": break_evens(products), "passes": passes}


def unmeasured(scope: Scope, steps: int, images: int) -> dict[str, Any]:
    """The same keys where nothing can be timed."""
    missing = {"device": NOT_MEASURED, "seconds": None}
    return {
        "ceilings": {"device": NOT_MEASURED},
        "products": [
            {"shape": s.name, "layer": s.layer, "images": scope.images,
             "macs": s.macs(scope.images), **missing}
            for s in scope.shapes
        ],
        "break_even": [],
        "passes": [
            {"height": s.height, "width": s.width, "channels": s.out_channels,
             "images": scope.images, **missing}
            for s in shapes.stream_shapes(scope.shapes)
        ],
        "steps": [
            end_to_end.unmeasured_step(workload, flow, steps, images)
            for workload in end_to_end.WORKLOADS
            for flow in end_to_end.FLOWS
        ],
    }  # fmt: skip
