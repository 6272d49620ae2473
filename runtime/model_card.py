"""Evaluation and model card of a bundled model: `python -m signmask.runtime.model_card NAME`.

Writes evaluation.json, samples.png (64 images, 50 DDIM steps, seed 0) and MODEL_CARD.md beside the
model's weights. Needs the `torch` and `report` extras, and the data set for the comparison column.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from signmask.reference.models import bundled, classifier
from signmask.runtime import metrics
from signmask.runtime.pixels import grid, png

GRID = 8
FRECHET_SIZES = (256, 1024)

CARD = """# Model card: {name}

![{grid} samples: {steps} DDIM steps, eta 0, seed {sample_seed}](samples.png)

A denoising diffusion model (DDPM, noise prediction) of Fashion-MNIST images, unconditional. It is
bundled so that every part of the project can be run and tested on a trained network; it is not
meant for anything else.

| | |
|---|---|
| Data | {data} |
| Licence of the weights | {licence} |
| Architecture | diffusers `UNet2DModel`, channels 32, 64, 64, one residual block per level, \
attention at 8x8, 8 groups per normalisation; {description} |
| Input | images padded to 32x32 and folded 2x2 into channels: {input_shape} |
| Parameters | {parameters:,} |
| Noise schedule | linear beta 1e-4 to 0.02, 1000 steps, trailing spacing |
| Training | {start}; {iterations:,} iterations of batch {batch}, {minutes} minutes on two shared \
CPU cores, seed {seed}, AdamW, exponential moving average of weights 0.998 |
| Training loss (mean of the last 500 iterations) | {train_loss} |
| Validation loss (1,024 test images, averaged weights) | {validation_loss} |
| Recipe | `{recipe}` |

## Samples

{steps} DDIM steps, eta 0, float32, seed {sample_seed}. The Frechet distance is to the 10,000 real
test images, in the 96 features of the bundled classifier ({classifier_accuracy:.1%} of the test
images classified correctly); it is comparable only with distances in the same features and of
equally many images. Real training images, put through the same measurement, are the last column.

| measure | samples | real images |
|---|---|---|
{rows}

Of the {grid} images above, {by_eye} are recognisable as a garment, shoe or bag to the eye.
{judgement}
"""

_START = {
    "fashion-silu": "from random weights",
    "fashion-relu": "fine-tuned from the weights of `fashion-silu`",
}
_DESCRIPTION = {
    "silu": "SiLU",
    "relu": "ReLU in the residual blocks and before the output, SiLU in the time embedding",
}


def evaluate(name: str, steps: int = 50, seed: int = 0) -> tuple[np.ndarray, dict[str, Any]]:
    """Sample max(FRECHET_SIZES) images: the first GRID**2 of them, and the figures of all."""
    images = bundled.sample(name, max(FRECHET_SIZES), steps, seed).numpy()
    figures = {
        "steps": steps,
        "sample_seed": seed,
        "samples": len(images),
        "frechet": {str(n): round(metrics.frechet(images[:n]), 3) for n in FRECHET_SIZES},
        "confident_share": round(metrics.recognisable(images), 4),
    }
    return images[: GRID**2], figures


def real_figures() -> dict[str, Any]:
    """The same figures of the first training images; raises DatasetMissing without the data set."""
    from signmask.reference.models import data

    images = data.load("train")[0][: max(FRECHET_SIZES)].numpy()
    return {
        "frechet": {str(n): round(metrics.frechet(images[:n]), 3) for n in FRECHET_SIZES},
        "confident_share": round(metrics.recognisable(images), 4),
    }


def card(name: str) -> str:
    """The model card as Markdown, from the recorded facts alone."""
    facts = bundled.facts(name)
    real = facts["real_images"]
    rows = [
        f"| Frechet distance, {n} images | {facts['frechet'][n]} | {real['frechet'][n]} |"
        for n in facts["frechet"]
    ]
    rows.append(
        f"| share of {facts['samples']} images that the classifier assigns with more than 0.9 | "
        f"{facts['confident_share']:.1%} | {real['confident_share']:.1%} |"
    )
    return CARD.format(
        **facts,
        grid=GRID**2,
        rows="\n".join(rows),
        start=_START[name],
        description=_DESCRIPTION[facts["activation"]],
        classifier_accuracy=classifier.facts()["test_accuracy"],
    )


def main() -> None:
    """Command line: evaluate, or with --by-eye only record a judgement, then write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=bundled.names())
    parser.add_argument("--by-eye", type=int, help="recognisable images of the grid, as counted")
    parser.add_argument("--judgement", default="", help="a sentence on the images that are not")
    args = parser.parse_args()
    home = bundled.folder(args.name)
    record = home / "evaluation.json"
    if args.by_eye is None:
        images, figures = evaluate(args.name)
        figures["real_images"] = real_figures()
        (home / "samples.png").write_bytes(png(grid(images, GRID)))
    else:
        figures = json.loads(record.read_text())
        figures |= {"by_eye": args.by_eye, "judgement": args.judgement}
    record.write_text(json.dumps(figures, indent=1) + "\n")
    if "by_eye" in figures:
        (home / "MODEL_CARD.md").write_text(card(args.name))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
