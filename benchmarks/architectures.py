"""Compiles the published architectures and runs their small versions; prints docs/architectures.md.

    python -m benchmarks.architectures FOLDER > docs/architectures.md

Results lie in FOLDER as JSON; what is there already is not measured again.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STEPS, SMALL_STEPS, CALIBRATION_IMAGES = 50, 4, 4
# Configuration and batch; maps of 256 x 256 and videos exceed the scratchpads of `paper`.
FULL = {
    "ddpm-cifar10": ("paper", 1), "adm-128": ("paper", 1), "adm-256": ("large", 1),
    "adm-512": ("large", 1), "sd-v1-4": ("paper", 1), "sdxl": ("paper", 1),
    "dit-xl-2-256": ("paper", 1), "controlnet-sd": ("paper", 1), "sd-v1-4-lora": ("paper", 1),
    "sd-v1-4-lora-merged": ("paper", 1), "latte-xl-2": ("large", 16),
}  # fmt: skip
SMALL = {**dict.fromkeys(FULL, 1), "latte-xl-2": 4}
SIGNMASK = [str(Path(sys.executable).parent / "signmask")]


def call(arguments: list[str]) -> tuple[dict[str, Any], float, float]:
    """(JSON that a command printed, seconds, peak GB); its error as {"error": sentence}."""
    start = time.perf_counter()
    timed = ["/usr/bin/time", "-f", "peak %M", *SIGNMASK, *arguments]
    ended = subprocess.run(timed, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    peak = re.search(r"peak (\d+)", ended.stderr)
    gigabytes = int(peak.group(1)) / 1e6 if peak else 0.0
    if ended.returncode:
        return {"error": ended.stderr.strip().splitlines()[0]}, seconds, gigabytes
    return json.loads(ended.stdout), seconds, gigabytes


def measured(folder: Path, name: str, work: Any) -> dict[str, Any]:
    """What a file of the folder holds, or `work()` written there."""
    path = folder / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(work()))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def full(folder: Path, name: str) -> dict[str, Any]:
    """A full compilation without weights."""
    config, batch = FULL[name]
    facts, seconds, gigabytes = call(
        ["compile", name, "--no-weights", "--config", config, "--batch", str(batch),
         "--steps", str(STEPS), "-o", str(folder / "program.smk"), "--json"]
    )  # fmt: skip
    return {"config": config, "seconds": seconds, "gigabytes": gigabytes, "facts": facts}


def small(folder: Path, name: str, flow: str) -> dict[str, Any]:
    """A small version on the golden model and the simulator."""
    program = str(folder / "small.smk")
    facts, _, _ = call(
        ["compile", f"{name}-small", "--dataflow", flow, "--batch", str(SMALL[name]), "--steps",
         str(SMALL_STEPS), "--calibration-images", str(CALIBRATION_IMAGES), "-o", program,
         "--json"]
    )  # fmt: skip
    found: dict[str, Any] = {"facts": facts}
    for backend in ("reference", "sim"):
        run = ["run", program, "--backend", backend, "--images", str(SMALL[name]), "--json"]
        found[backend] = call(run)[0] if "error" not in facts else facts
    return found


def full_rows(folder: Path) -> list[str]:
    """Markdown rows of the full compilations."""
    rows = []
    for name in FULL:
        found = measured(folder, name, lambda name=name: full(folder, name))
        facts, totals = found["facts"], found["facts"].get("totals", {})
        if "error" in facts:
            rows.append(f"| `{name}` | {found['config']} | {facts['error']} | | | | | | |")
            continue
        speedup = totals["dense_cycles"] / totals["delta_cycles"]
        rows.append(
            f"| `{name}` | {found['config']} | {found['seconds']:.0f} | {found['gigabytes']:.1f} | "
            f"{totals['layers']} | {totals['macs'] / 1e9:,.1f} | {totals['delta_macs_share']:.1%} "
            f"| {totals['state_bytes'] / 1e6:,.0f} | {speedup:.2f} |"
        )
    return rows


def small_rows(folder: Path) -> list[str]:
    """Markdown rows of the numeric runs."""
    rows = []
    for name in SMALL:
        for flow in ("dense", "restore", "mask"):
            key = f"{name}-small-{flow}"
            found = measured(folder, key, lambda n=name, f=flow: small(folder, n, f))
            golden, sim = found["reference"], found["sim"]
            if "error" in golden or "error" in sim:
                rows.append(f"| `{name}-small` | {flow} | {golden.get('error', sim)} | | | |")
                continue
            equal = "yes" if golden["output_sha256"] == sim["output_sha256"] else "**no**"
            expected = found["facts"]["totals"]
            phases = expected["dense_cycles"] * SMALL_STEPS
            if flow != "dense":
                later = expected["delta_cycles"] * (SMALL_STEPS - 1)
                phases = expected["dense_cycles"] + later
            rows.append(
                f"| `{name}-small` | {flow} | {golden['output_sha256'][:16]} | {equal} | "
                f"{golden['psnr_db_vs_fp32']:.1f} | {sim['cycles']:,} | "
                f"{phases / sim['cycles']:.2f} |"
            )
    return rows


def main() -> None:
    """Measure what is missing and print the page."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    print(f"""# Published architectures

This page is the output of `python -m benchmarks.architectures FOLDER`. Names are those of `signmask
models`, which gives their sources. No operator of any of them is rejected.

## Compiled in full, without weights

`signmask compile NAME --no-weights --config CONFIG --steps {STEPS}`, dataflow `mask`, one image
(`latte-xl-2`: a video, `--batch 16`); seconds and peak memory of the whole command on two shared
cores. Layers are linear operators, attentions and products; the share is that of
multiply-accumulates (attention included) in operators that work on differences. State is what
differencing keeps in memory. The last column is expected dense cycles over expected differential
cycles: sums over layers of the busiest queue, with the assumed shares of wide differences that the
program names; an estimate, not a simulation.

| model | config | seconds | GB | layers | GMAC per step | in differences | state MB | speedup |
|---|---|---:|---:|---:|---:|---:|---:|---:|""")
    print("\n".join(full_rows(folder)))
    print(f"""
## Small versions, run

The same structure with tiny widths and random weights, {SMALL_STEPS} DDIM steps, calibrated on
{CALIBRATION_IMAGES} trajectories, config `nano`: golden model beside simulator. PSNR is that of
the final sample against torch in float32; what an untrained network predicts changes more from step
to step than a trained one's, so `mask` says little here (docs/accuracy.md has trained models). The
last column is expected cycles over simulated ones.

| model | dataflow | hash | simulator equal | PSNR dB | cycles | expected / simulated |
|---|---|---|---|---:|---:|---:|""")
    print("\n".join(small_rows(folder)))


if __name__ == "__main__":
    main()
