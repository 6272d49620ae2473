"""One self-contained HTML page of a comparison: figures, tables, images, plots."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from signmask.runtime.comparison import Comparison
from signmask.runtime.files import write_whole
from signmask.runtime.pixels import grid, png
from signmask.runtime.plots import draw

PAGE_FILE = "report.html"

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c1f23; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #d9dde2; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.images { display: flex; flex-wrap: wrap; gap: 1.2rem; } figure { margin: 0; }
figcaption { font-size: .85rem; }
img { max-width: 100%; } .images img { image-rendering: pixelated; }
.scroll { overflow-x: auto; }
.note { color: #565d66; font-size: .9rem; } code { font-size: .85rem; }
"""

CAPTIONS = {
    "error": "Distance of the sample from the fp32 run and from the dense run of the same "
    "quantised network, after each step. A dataflow that is missing on the right is exact.",
    "widths": "Differences by layer boundary and step: zero, and wider than an inlier or clipped.",
    "traffic": "Bytes moved over the whole run.",
    "cycles": "Cycles of each step, all batches together.",
}

COLUMNS = (
    ("cycles", "cycles", "{:,}"),
    ("milliseconds", "ms", "{:.2f}"),
    ("speedup", "speedup", "{:.2f}"),
    ("utilisation", "array busy", "{:.1%}"),
    ("psnr_db_vs_fp32", "PSNR fp32, dB", "{:.2f}"),
    ("psnr_db_vs_dense", "PSNR dense, dB", "{:.2f}"),
    ("ssim_vs_fp32", "SSIM fp32", "{:.4f}"),
    ("ssim_vs_dense", "SSIM dense", "{:.4f}"),
)


def write_report(comparison: Comparison, folder: Path) -> list[Path]:
    """Write the plots and report.html into an existing folder; returns what was written.

    Raises MissingExtra without Pillow or matplotlib, RunError where the folder is not writable.
    """
    plots = draw(comparison.data)
    page = render(comparison, plots)
    files = {folder / f"plot-{name}.png": content for name, content in plots.items()}
    files[folder / PAGE_FILE] = page.encode()
    for path, content in files.items():
        write_whole(path, content)
    return list(files)


def render(comparison: Comparison, plots: dict[str, bytes]) -> str:
    """The page, with every picture embedded as a data URI."""
    data = comparison.data
    title = f"{data['model']} on signmask {data['config']}"
    sections = [
        f"<h1>{_text(title)}</h1>",
        f"<p>{data['steps']} steps ({_text(data['scheduler'].get('_class_name', ''))}), "
        f"{data['images']} images, batch {data['batch']}, seed {data['seed']}, backend "
        f"{_text(data['backend'])}. Every dataflow starts from the same noise.</p>",
        "<h2>Dataflows</h2>",
        _table(
            ["dataflow", *(title for _, title, _ in COLUMNS)],
            ([row["label"], *(_cell(row, key, form) for key, _, form in COLUMNS)]
             for row in data["dataflows"]),
        ),
        _reading(data),
        "<h2>Images</h2>",
        _images(comparison),
    ]  # fmt: skip
    for name, content in plots.items():
        caption = CAPTIONS[name]
        sections.append(f"<h2>{_text(name.capitalize())}</h2><p>{_text(caption)}</p>")
        sections.append(_picture(content, caption))
    sections += [*_traffic(data), *_host(data), *_reproduction(data)]
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _reading(data: dict[str, Any]) -> str:
    exact = [row["label"] for row in data["dataflows"] if row["identical_to_dense"]]
    notes = [
        "Speedup is over the first row. PSNR has a peak of 2 (pixels in [-1, 1]) and is the mean "
        "over the images that differ; 'dense' is the same quantised network with every step dense.",
    ]
    if exact:
        notes.append(f"Identical to it bit for bit: {', '.join(exact)}.")
    if not any(row["cycles"] for row in data["dataflows"]):
        notes.append("The reference backend is untimed: it has no cycles and no traffic.")
    return f'<p class="note">{_text(" ".join(notes))}</p>'


def _images(comparison: Comparison) -> str:
    figures = (
        f"<figure>{_picture(png(grid(pixels)), label)}<figcaption>{_text(label)}</figcaption>"
        "</figure>"
        for label, pixels in _in_order(comparison)
    )
    return f'<div class="images">{"".join(figures)}</div>'


def _in_order(comparison: Comparison) -> Iterable[tuple[str, Any]]:
    """fp32 first, then the dataflows as tabulated."""
    labels = [row["label"] for row in comparison.data["dataflows"]]
    others = [label for label in comparison.pixels if label not in labels]
    return ((label, comparison.pixels[label]) for label in (*others, *labels))


def _traffic(data: dict[str, Any]) -> list[str]:
    rows = [row for row in data["dataflows"] if row["traffic_bytes"]]
    if not rows:
        return []
    kinds = dict.fromkeys(kind for row in rows for kind in row["traffic_bytes"])
    return [
        "<h2>Bytes by kind</h2>",
        _table(
            ["kind", *(row["label"] for row in rows)],
            ([kind.replace("_", " "), *(f"{row['traffic_bytes'].get(kind, 0):,}" for row in rows)]
             for kind in kinds),
        ),
    ]  # fmt: skip


def _host(data: dict[str, Any]) -> list[str]:
    last = data["dataflows"][-1]["host_operations"]
    return [
        f"<h2>Work on the host ({_text(data['dataflows'][-1]['label'])})</h2>",
        _table(
            ["operation", "calls", "elements", "seconds"],
            ([o["name"], f"{o['calls']:,}", f"{o['elements']:,}", f"{o['seconds']:.3f}"]
             for o in last),
        ),
    ]  # fmt: skip


def _reproduction(data: dict[str, Any]) -> list[str]:
    return [
        "<h2>Digests</h2><p>SHA-256 over the output accumulators of every step.</p>",
        _table(
            ["dataflow", "output_sha256"],
            ([row["label"], row["output_sha256"]] for row in data["dataflows"]),
        ),
        "<h2>Knobs</h2>",
        _table(
            ["knob", *(row["label"] for row in data["dataflows"])],
            ([name, *(str(row["knobs"][name]) for row in data["dataflows"])]
             for name in data["dataflows"][0]["knobs"]),
        ),
    ]  # fmt: skip


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'


def _cell(row: dict[str, Any], key: str, form: str) -> str:
    if row[key] is None:
        return "identical" if key == "psnr_db_vs_dense" and row["identical_to_dense"] else "-"
    return form.format(row[key])


def _picture(content: bytes, text: str) -> str:
    encoded = base64.b64encode(content).decode()
    return f'<img src="data:image/png;base64,{encoded}" alt="{_text(text)}">'


def _text(value: str) -> str:
    return html.escape(value)
