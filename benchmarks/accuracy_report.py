"""Tables and curves of docs/accuracy.md from the results of accuracy.py.

`python benchmarks/accuracy_report.py` renews the part of the page below its marker and the plots.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DATA, PAGE = Path("docs/data"), Path("docs/accuracy.md")
MARKER = "<!-- generated below by benchmarks/accuracy_report.py -->"


def table(data: dict[str, Any]) -> list[str]:
    """One row per setting."""
    lines = [
        f"## {data['model']}, {data['steps']} steps, {data['images']} images",
        "",
        f"Frechet distance of the fp32 samples to the real test images: "
        f"{data['frechet_fp32_real']:.2f}.",
        "",
        "| setting | PSNR to fp32, mean / median dB | minus dense (± standard error) | Frechet | "
        "dense Frechet | zero / inlier / outlier / clipped % | segments changed % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in data["settings"].items():
        shares = " / ".join(
            f"{100 * row['shares'][key]:.1f}" for key in ("zero", "inlier", "outlier", "clipped")
        )
        lines.append(
            f"| {name} | {row['psnr_mean']:.2f} / {row['psnr_median']:.2f} | "
            f"{row['difference_mean']:+.2f} ± {row['difference_error']:.2f} | "
            f"{row['frechet_real']:.2f} | {row['dense_frechet_real']:.2f} | {shares} | "
            f"{100 * row['shares']['segment_changes']:.2f} |"
        )
    return [*lines, ""]


def curve(data: dict[str, Any]) -> Path:
    """PSNR over the state grid f, mask bits and inlier width, of mask and of dense."""
    rows = data["settings"]
    panels = {
        "state grid f, bits": [
            (r["knobs"]["grid_bits"], r) for n, r in rows.items() if n == "mask" or "mask f=" in n
        ],
        "mask bits": [
            (r["knobs"]["mask_bits"], r) for n, r in rows.items() if n == "mask" or " bit" in n[4:]
            if n.startswith("mask")
        ],
        "inlier bits k, 2 outliers of 16 then clipped": [
            (r["knobs"]["inlier_bits"], r) for n, r in rows.items() if n.endswith("clip m=2")
        ],
    }  # fmt: skip
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 3.4), sharey=True)
    for axis, (label, points) in zip(axes, panels.items(), strict=True):
        points.sort(key=lambda point: point[0])
        x = [p[0] for p in points]
        axis.plot(x, [p[1]["psnr_mean"] for p in points], "o-", label="mask")
        axis.plot(x, [p[1]["dense_psnr_mean"] for p in points], "s--", label="dense int8")
        axis.set_xlabel(label)
        axis.set_xticks(x)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("PSNR to fp32, dB (mean)")
    axes[0].legend()
    figure.suptitle(f"{data['model']}, {data['steps']} steps, {data['images']} images")
    figure.tight_layout()
    path = PAGE.parent / f"accuracy-{data['model']}-{data['steps']}.png"
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return path


def main() -> None:
    """Write the page."""
    head = PAGE.read_text().split(MARKER)[0]
    lines = [MARKER, ""]
    for path in sorted(DATA.glob("accuracy-*.json"), reverse=True):
        data = json.loads(path.read_text())
        lines += table(data)
        if "mask f=0" in data["settings"]:
            lines += [f"![PSNR over f, mask bits and k]({curve(data).name})", ""]
    PAGE.write_text(head + "\n".join(lines))


if __name__ == "__main__":
    main()
