"""The bundled classifier and its feature statistics, against the data that they came from."""

from __future__ import annotations

import numpy as np
import pytest

from signmask.reference.models import classifier, data

needs_dataset = pytest.mark.skipif(
    not data.FOLDER.is_dir(), reason="Debian package dataset-fashion-mnist is not installed"
)


@pytest.fixture(scope="module")
def real() -> tuple[np.ndarray, np.ndarray]:
    """The test images (10000, 1, 32, 32) and their labels."""
    images, labels = data.load("t10k")
    return images.numpy(), labels.numpy()


@needs_dataset
def test_accuracy_is_the_recorded_one(real: tuple[np.ndarray, np.ndarray]) -> None:
    found = classifier.probabilities(real[0]).argmax(axis=1)
    # Another machine's convolutions may turn a few of the 10,000 near ties.
    recorded = classifier.facts()["test_accuracy"]
    assert (found == real[1]).mean() == pytest.approx(recorded, abs=5e-4)


@needs_dataset
def test_statistics_are_those_of_the_test_images(real: tuple[np.ndarray, np.ndarray]) -> None:
    features = classifier.features(real[0])
    mean, covariance = classifier.real_statistics()
    np.testing.assert_allclose(features.mean(0), mean, atol=1e-4)
    np.testing.assert_allclose(np.cov(features, rowvar=False), covariance, atol=1e-3)


def test_features_feed_the_head() -> None:
    import torch

    images = np.random.default_rng(0).uniform(-1, 1, (3, 1, 32, 32))
    features = torch.from_numpy(classifier.features(images)).float()
    scores = classifier.load().head(features).softmax(1).detach().numpy()
    np.testing.assert_allclose(scores, classifier.probabilities(images), atol=1e-6)
    assert features.shape == (3, classifier.FEATURES)


def test_pixels_outside_the_range_count_as_its_ends() -> None:
    images = np.random.default_rng(0).uniform(-3, 3, (2, 1, 32, 32))
    np.testing.assert_array_equal(
        classifier.features(images), classifier.features(np.clip(images, -1, 1))
    )


@pytest.mark.parametrize("shape", [(2, 4, 16, 16), (32, 32)])
def test_another_shape_is_refused(shape: tuple) -> None:
    with pytest.raises(ValueError, match="cannot be classified"):
        classifier.features(np.zeros(shape))


def test_recorded_parameters_are_those_of_the_network() -> None:
    count = sum(p.numel() for p in classifier.load().parameters())
    assert count == classifier.facts()["parameters"]


def test_two_short_trainings_are_equal(tmp_path, monkeypatch) -> None:
    """The recipe is reproducible: same seed, same bytes (on a toy data set, one thread)."""
    import torch

    def toy(split: str) -> tuple[torch.Tensor, torch.Tensor]:
        g = torch.Generator().manual_seed(len(split))
        labels = torch.arange(256) % 10
        return torch.rand((256, 1, 32, 32), generator=g) * 2 - 1, labels

    monkeypatch.setattr(data, "load", toy)
    for name in ("a", "b"):
        classifier.train(tmp_path / name, epochs=1)
    for file in ("weights.safetensors", "statistics.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
