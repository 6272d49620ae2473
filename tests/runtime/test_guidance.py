"""Classifier-free guidance: a pipeline whose batch holds a label and its empty counterpart."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

import signmask

LABEL, EMPTY = 3, 1000
STEPS = 3


@pytest.fixture(scope="module")
def pipeline():
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, num_layers=1,
        sample_size=8, patch_size=2, norm_num_groups=4,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in transformer.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    found = DiTPipeline(transformer.eval(), vae, DDIMScheduler(), id2label={LABEL: "a"})
    found.set_progress_bar_config(disable=True)
    return found


def image(pipeline, transformer):
    pipeline.transformer = transformer
    generator = torch.Generator().manual_seed(1)
    arguments = dict(guidance_scale=2.0, num_inference_steps=STEPS, output_type="np")
    return pipeline([LABEL], generator=generator, **arguments).images


def test_a_guided_pipeline_runs_on_the_simulator(pipeline):
    model = pipeline.transformer
    expected = image(pipeline, model)
    labels = {"class_labels": torch.tensor([LABEL, EMPTY])}
    found = {
        backend: image(
            pipeline,
            signmask.compile(
                model, scheduler=DDIMScheduler(), steps=STEPS, batch=2, backend=backend,
                conditions=labels, calibration_images=4, dataflow="dense",
            ),
        )
        for backend in ("reference", "sim")
    }  # fmt: skip
    assert np.array_equal(found["reference"], found["sim"])
    assert float(((found["sim"] - expected) ** 2).mean()) < 1e-3 < float(expected.var())
