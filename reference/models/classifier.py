"""The feature network of the Frechet distance: a small CNN that classifies Fashion-MNIST.

Its weights and the statistics of its features over the 10,000 test images are part of the package,
so that judging samples needs no data set. Recipe: `python -m signmask.reference.models.classifier`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from signmask.reference.models import data

FOLDER = Path(__file__).parent / "classifier"
FEATURES = 96
EPOCHS, BATCH, PEAK_LR = 4, 128, 4e-3


class Classifier(nn.Module):
    """Four convolutions, global average pooling to FEATURES numbers, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *self._block(1, 16, stride=2),
            *self._block(16, 32),
            nn.MaxPool2d(2),
            *self._block(32, 64),
            nn.MaxPool2d(2),
            *self._block(64, FEATURES),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(FEATURES, len(data.CLASSES))

    @staticmethod
    def _block(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
        conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return conv, nn.BatchNorm2d(outputs), nn.ReLU()

    def features(self, images: Tensor) -> Tensor:
        """(N, 1, 32, 32) float32 in [-1, 1] to (N, FEATURES) float32."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, 32, 32) float32 in [-1, 1] to class scores (N, 10) float32, before softmax."""
        return self.head(self.features(images))


@cache
def load() -> Classifier:
    """The bundled classifier in evaluation mode."""
    network = Classifier()
    network.load_state_dict(load_file(FOLDER / "weights.safetensors"))
    return network.eval()


def _batches(images: np.ndarray) -> Iterator[Tensor]:
    if images.ndim != 4 or images.shape[1:] != (1, 32, 32):
        raise ValueError(
            f"images of shape {images.shape} cannot be classified; give (N, 1, 32, 32) pixels "
            "in [-1, 1]."
        )
    # An image outside the range is shown clipped, and judged as it is shown.
    yield from torch.from_numpy(np.clip(images, -1, 1).astype(np.float32)).split(500)


@torch.no_grad()
def features(images: np.ndarray) -> np.ndarray:
    """Features (N, FEATURES) float64 of images (N, 1, 32, 32) in [-1, 1]."""
    network = load()
    return np.concatenate([network.features(b).double().numpy() for b in _batches(images)])


@torch.no_grad()
def probabilities(images: np.ndarray) -> np.ndarray:
    """Class probabilities (N, 10) float64 of images (N, 1, 32, 32) in [-1, 1]."""
    network = load()
    return np.concatenate([network(b).double().softmax(1).numpy() for b in _batches(images)])


@cache
def real_statistics() -> tuple[np.ndarray, np.ndarray]:
    """Mean (FEATURES,) and covariance (FEATURES, FEATURES) of the test images, float64."""
    arrays = load_arrays(FOLDER / "statistics.safetensors")
    return arrays["mean"], arrays["covariance"]


def facts() -> dict[str, int | float]:
    """What the recipe recorded: parameters, epochs, minutes, test accuracy."""
    return json.loads((FOLDER / "training.json").read_text())


def train(out: Path, epochs: int = EPOCHS, seed: int = 0) -> dict[str, int | float]:
    """Train, write weights, feature statistics and facts into the folder `out`; returns the facts.

    Raises DatasetMissing where the Debian package with the images is not installed.
    """
    torch.manual_seed(seed)
    images, labels = data.load("train")
    test_images, test_labels = data.load("t10k")
    network = Classifier()
    steps = epochs * (len(images) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK_LR, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_LR, total_steps=steps)
    began = time.monotonic()
    for _ in range(epochs):
        order = torch.randperm(len(images))[: len(images) // BATCH * BATCH]
        for chosen in order.split(BATCH):
            loss = nn.functional.cross_entropy(network(images[chosen]), labels[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            rate.step()
    minutes = (time.monotonic() - began) / 60
    network.eval()
    with torch.no_grad():
        found = torch.cat([network.features(b) for b in test_images.split(500)])
        accuracy = (network.head(found).argmax(1) == test_labels).double().mean().item()
    out.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), out / "weights.safetensors")
    rows = found.double().numpy()
    statistics = {"mean": rows.mean(0), "covariance": np.cov(rows, rowvar=False)}
    save_arrays(statistics, out / "statistics.safetensors")
    result: dict[str, int | float] = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "epochs": epochs,
        "batch": BATCH,
        "seed": seed,
        "minutes": round(minutes, 1),
        "test_accuracy": round(accuracy, 4),
    }
    (out / "training.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def main() -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(json.dumps(train(args.out, args.epochs)))


if __name__ == "__main__":
    main()
