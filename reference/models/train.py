"""Training recipe of the bundled models: `python -m signmask.reference.models.train VARIANT`.

`fashion-silu` is trained from scratch; `fashion-relu` starts from the trained `fashion-silu`
weights and is fine-tuned. Weights are an exponential moving average, saved as safetensors.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from signmask.reference.models import data
from signmask.reference.models.unet import build_unet, scheduler

HERE = Path(__file__).parent
ITERATIONS = {"fashion-silu": 9000, "fashion-relu": 4000}
PEAK_LR = {"fashion-silu": 1.2e-3, "fashion-relu": 6e-4}
BATCH, WARMUP, EMA, CLIP = 64, 150, 0.998, 1.0


def validation_loss(unet: torch.nn.Module, images: torch.Tensor) -> float:
    """Mean epsilon-prediction error on `images` (N, 4, 16, 16) with fixed noise and timesteps."""
    g = torch.Generator().manual_seed(1)
    t = torch.randint(0, 1000, (len(images),), generator=g)
    noise = torch.randn(images.shape, generator=g)
    noisy = scheduler().add_noise(images, noise, t)
    with torch.no_grad():
        errors = [
            (unet(n, s).sample - e).pow(2).mean().item()
            for n, s, e in zip(noisy.split(128), t.split(128), noise.split(128), strict=True)
        ]
    return sum(errors) / len(errors)


def train(variant: str, out: Path, iterations: int, start: Path | None, seed: int = 0) -> dict:
    """Train `variant` and write the averaged weights to `out`; returns the facts of the run."""
    torch.manual_seed(seed)
    unet = build_unet(variant).to(memory_format=torch.channels_last)
    if start is not None:
        unet.load_state_dict(load_file(start))
    average = build_unet(variant).eval()
    average.load_state_dict(unet.state_dict())
    images = data.fold(data.load("train")[0])
    held_out = data.fold(data.load("t10k")[0])[:1024]
    noiser = scheduler()
    optimiser = torch.optim.AdamW(unet.parameters(), lr=PEAK_LR[variant])
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda i: min(1.0, (i + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * i / iterations)),
    )
    began, log = time.monotonic(), []
    for i in range(iterations):
        x = images[torch.randint(0, len(images), (BATCH,))]
        noise = torch.randn_like(x)
        t = torch.randint(0, 1000, (BATCH,))
        noisy = noiser.add_noise(x, noise, t).to(memory_format=torch.channels_last)
        loss = (unet(noisy, t).sample - noise).pow(2).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), CLIP)
        optimiser.step()
        rate.step()
        with torch.no_grad():
            torch._foreach_lerp_(
                list(average.parameters()), list(unet.parameters()), 1 - min(EMA, i / (i + 10))
            )
        log.append(loss.item())
        if (i + 1) % 500 == 0 or i + 1 == iterations:
            facts = {
                "variant": variant,
                "iterations": i + 1,
                "batch": BATCH,
                "seed": seed,
                "minutes": round((time.monotonic() - began) / 60, 1),
                "train_loss": round(sum(log[-500:]) / len(log[-500:]), 5),
                "validation_loss": round(validation_loss(average, held_out), 5),
            }
            weights = {k: v.contiguous() for k, v in average.state_dict().items()}
            save_file(weights, out, metadata={"variant": variant, "iterations": str(i + 1)})
            print(json.dumps(facts), flush=True)
    return facts


def main() -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=sorted(ITERATIONS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    out = args.out or HERE / args.variant / "weights.safetensors"
    out.parent.mkdir(parents=True, exist_ok=True)
    start = HERE / "fashion-silu" / "weights.safetensors" if "relu" in args.variant else None
    facts = train(args.variant, out, args.iterations or ITERATIONS[args.variant], start)
    out.with_name("training.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
