"""Small random-weight versions of published architectures: the fused graph computes what torch
computes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import nn

from signmask.compiler.errors import CompileError, UnsupportedOperators
from signmask.compiler.float_model import FloatModel
from signmask.compiler.frontend import trace
from signmask.compiler.graph import (
    AttentionOp,
    EncodingOp,
    LinearOp,
    NormOp,
    StreamOp,
    TensorGraph,
)

TIMESTEPS = (901, 37)
TIME = torch.tensor([1])
UNET = dict(sample_size=8, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8)
SD = dict(
    in_channels=4, out_channels=4, cross_attention_dim=24,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
)  # fmt: skip
PROMPT = torch.randn(1, 7, 24, generator=torch.Generator().manual_seed(5))


def random_weights(model: nn.Module) -> nn.Module:
    """The model with weights that leave no branch at zero, as some initial values do."""
    torch.manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.any():
                parameter.normal_(std=0.05 if name.endswith("bias") else 0.15)
    return model.eval()


def result(output: Any) -> torch.Tensor:
    """The tensor of whatever a diffusers model returns."""
    output = getattr(output, "sample", output)
    return output[0] if isinstance(output, tuple) else output


def check(model: nn.Module, example: tuple | dict, images: int = 1) -> TensorGraph:
    """Trace, and compare with torch on a random sample; `images` is the exported batch."""
    graph = trace(model, TIMESTEPS, example)
    float_model = FloatModel(graph)
    generator = torch.Generator().manual_seed(2)
    first = next(iter(example.values())) if isinstance(example, dict) else example[0]
    sample = torch.randn(images, *first.shape[1:], generator=generator)
    for step, timestep in enumerate(TIMESTEPS):
        with torch.no_grad():
            if isinstance(example, dict):
                name = next(iter(example))
                given = {**example, name: sample, "timestep": torch.full_like(TIME, timestep)}
                expected = result(model(**given))
            else:
                expected = result(model(sample, torch.full_like(TIME, timestep), *example[2:]))
        found = float_model(sample, step)
        assert found.shape == expected.shape
        assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())
    return graph


def kinds(graph: TensorGraph) -> Counter[str]:
    """How many operators of each kind a graph has."""
    return Counter(type(graph.op(n)).__name__ for n in graph.order())


def sd_unet() -> nn.Module:
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(**UNET, **SD, attention_head_dim=4)


def norms(graph: TensorGraph) -> list[NormOp]:
    return [op.norm for _, op in graph.of(EncodingOp) if op.norm is not None]


def test_stable_diffusion_unet():
    graph = check(random_weights(sd_unet()), (torch.zeros(1, 4, 8, 8), TIME, PROMPT))
    attentions = [op for _, op in graph.of(AttentionOp)]
    cross = [op for op in attentions if op.keys is not None]
    assert (len(attentions), len(cross)) == (8, 4)
    assert all(op.keys.shape == (1, 7, op.channels) for op in cross)
    assert kinds(graph)["ProductOp"] == 4
    assert sum(norm.axis == "token" for norm in norms(graph)) == 12


def test_stable_diffusion_xl_unet():
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(
        **UNET, in_channels=4, out_channels=4, cross_attention_dim=24,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(2, 4),
        use_linear_projection=True, transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + 16,
    )  # fmt: skip
    example = {
        "sample": torch.zeros(1, 4, 8, 8),
        "timestep": TIME,
        "encoder_hidden_states": PROMPT,
        "added_cond_kwargs": {
            "text_embeds": torch.randn(1, 16),
            "time_ids": torch.tensor([[8.0, 8.0, 0.0, 0.0, 8.0, 8.0]]),
        },
    }
    graph = check(random_weights(model), example)
    assert kinds(graph)["AttentionOp"] == 16


def dit(**more: Any) -> nn.Module:
    torch.manual_seed(0)
    return random_weights(
        diffusers.DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=10,
            **more,
        )
    )


def test_diffusion_transformer():
    example = {
        "hidden_states": torch.zeros(1, 4, 8, 8),
        "timestep": TIME,
        "class_labels": torch.tensor([3]),
    }
    graph = check(dit(), example)
    assert graph.patch == 2
    assert graph.op(graph.output).weight.shape[0] == 8 * 2 * 2
    assert any(s.offset is not None for _, s in graph.of(StreamOp))
    assert all(norm.weight.shape == (2, 32) for norm in norms(graph))
    gates = [e for _, e in graph.of(EncodingOp) if e.affine is not None]
    assert len(gates) == 4


def adm() -> nn.Module:
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        **UNET, in_channels=3, out_channels=6, attention_head_dim=16, num_class_embeds=10,
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        resnet_time_scale_shift="scale_shift", downsample_type="resnet", upsample_type="resnet",
    )  # fmt: skip


def test_guided_diffusion_unet():
    example = (torch.zeros(1, 3, 8, 8), TIME, torch.tensor([2]))
    graph = check(random_weights(adm()), example)
    assert {norm.weight.ndim for norm in norms(graph)} == {1, 2}
    assert graph.op(graph.output).weight.shape[0] == 6


def test_ddpm_unet_with_asymmetric_padding():
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(
        **UNET, in_channels=3, out_channels=3, attention_head_dim=None, downsample_padding=0,
        flip_sin_to_cos=False, freq_shift=1, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    graph = check(random_weights(model), (torch.zeros(1, 3, 8, 8), TIME))
    strided = [op for _, op in graph.of(LinearOp) if op.stride == 2]
    assert [(op.weight.shape[2], op.padding) for op in strided] == [(4, 1)]


class Controlled(nn.Module):
    """A U-Net and its ControlNet."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = sd_unet()
        self.control = diffusers.ControlNetModel.from_unet(
            self.unet, conditioning_channels=3, conditioning_embedding_out_channels=(8, 16)
        )

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, prompt: torch.Tensor,
        picture: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        down, middle = self.control(sample, timestep, prompt, picture, return_dict=False)
        return self.unet(
            sample, timestep, prompt, down_block_additional_residuals=down,
            mid_block_additional_residual=middle, return_dict=False,
        )[0]  # fmt: skip


def test_controlnet():
    generator = torch.Generator().manual_seed(4)
    picture = torch.randn(1, 3, 16, 16, generator=generator)
    model = random_weights(Controlled())
    graph = check(model, (torch.zeros(1, 4, 8, 8), TIME, PROMPT, picture))
    assert any(s.offset is not None for _, s in graph.of(StreamOp))


class LowRank(nn.Module):
    """A linear layer with a low-rank branch, added to its result or merged into its weight."""

    def __init__(self, base: nn.Linear, merged: bool) -> None:
        super().__init__()
        self.base, self.merged, self.scale = base, merged, 0.75
        self.down = nn.Parameter(torch.randn(4, base.in_features) / 4)
        self.up = nn.Parameter(torch.randn(base.out_features, 4) / 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.merged:
            weight = self.base.weight + self.scale * (self.up @ self.down)
            return nn.functional.linear(x, weight, self.base.bias)
        low = nn.functional.linear(x, self.down)
        return self.base(x) + self.scale * nn.functional.linear(low, self.up)


@pytest.mark.parametrize("merged", [False, True])
def test_low_rank_adaptation(merged):
    model = random_weights(sd_unet())
    plain = kinds(trace(model, TIMESTEPS, (torch.zeros(1, 4, 8, 8), TIME, PROMPT)))
    for module in list(model.modules()):
        for name in ("to_q", "to_k", "to_v"):
            if hasattr(module, name):
                setattr(module, name, LowRank(getattr(module, name), merged))
    found = kinds(check(model, (torch.zeros(1, 4, 8, 8), TIME, PROMPT)))
    # Self-attention has three adapted layers and cross-attention one, besides its constants.
    assert found["LinearOp"] - plain["LinearOp"] == (0 if merged else 2 * 4 * (3 + 1))


def test_threads_change_no_constant():
    model, threads = random_weights(sd_unet()), torch.get_num_threads()
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        graph = trace(model, TIMESTEPS, (torch.zeros(1, 4, 8, 8), TIME, PROMPT))
        found.append([op.keys for _, op in graph.of(AttentionOp) if op.keys is not None])
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    assert found[0] and all(map(np.array_equal, *found))


def test_prompts_of_a_batch_keep_a_row_each():
    prompts = torch.cat([PROMPT, -PROMPT])
    model = random_weights(sd_unet())
    graph = check(model, (torch.zeros(2, 4, 8, 8), TIME, prompts), images=2)
    assert {len(op.keys) for _, op in graph.of(AttentionOp) if op.keys is not None} == {2}


@pytest.mark.parametrize("labels", [[2, 2], [2, 5]], ids=["equal", "different"])
def test_class_labels_of_a_batch_may_differ(labels):
    model, sample = random_weights(adm()), torch.zeros(2, 3, 8, 8)
    graph = check(model, (sample, TIME, torch.tensor(labels)), images=2)
    assert graph.images == len(set(labels))


def test_an_archive_takes_its_conditions_by_name(tmp_path):
    model = random_weights(sd_unet())
    path = tmp_path / "sd.pt2"
    example = {"sample": torch.zeros(1, 4, 8, 8), "timestep": TIME,
               "encoder_hidden_states": PROMPT}  # fmt: skip
    torch.export.save(torch.export.export(model, (), kwargs=example, strict=False), path)
    graph = trace(path, TIMESTEPS, {"encoder_hidden_states": PROMPT})
    expected = trace(model, TIMESTEPS, example)
    sample = torch.randn(1, 4, 8, 8)
    assert (FloatModel(graph)(sample, 0) == FloatModel(expected)(sample, 0)).all()
    with pytest.raises(CompileError, match=r"not given: encoder_hidden_states \(1, 7, 24\)"):
        trace(path, TIMESTEPS)
    with pytest.raises(CompileError, match="has shape"):
        trace(path, TIMESTEPS, {"encoder_hidden_states": PROMPT[:, :3]})
    with pytest.raises(CompileError, match="no input 'prompt'; its inputs are sample"):
        trace(path, TIMESTEPS, {"prompt": PROMPT})
    with pytest.raises(CompileError, match="NaN"):
        trace(path, TIMESTEPS, {"encoder_hidden_states": PROMPT * np.nan})


def test_the_timestep_may_be_given_as_a_number():
    model = dit()
    example = {"hidden_states": torch.zeros(1, 4, 8, 8), "timestep": 1,
               "class_labels": torch.tensor([3])}  # fmt: skip
    graph = trace(model, TIMESTEPS, example)
    tables = [norm.bias for norm in norms(graph)]
    assert all((bias[0] != bias[1]).any() for bias in tables)


def test_missing_conditions_of_a_module_are_asked_for():
    with pytest.raises(CompileError, match="give all its inputs in example_inputs"):
        trace(sd_unet(), TIMESTEPS)


class Video(nn.Module):
    """A video transformer that takes the frames of one video as images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = diffusers.LatteTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=8,
            num_layers=1, sample_size=8, patch_size=2, caption_channels=12, cross_attention_dim=32,
            video_length=3, attention_bias=True, activation_fn="gelu-approximate",
            norm_type="ada_norm_single", num_embeds_ada_norm=1000, norm_elementwise_affine=False,
        )  # fmt: skip

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor
    ) -> torch.Tensor:
        video = sample.transpose(0, 1)[None]
        return self.inner(video, timestep, text, return_dict=False)[0][0].transpose(0, 1)


def test_video_transformer():
    text = torch.randn(1, 7, 12, generator=torch.Generator().manual_seed(6))
    graph = check(random_weights(Video()), (torch.zeros(3, 4, 8, 8), TIME, text), images=3)
    assert graph.images == 3
    assert sorted(op.frames for _, op in graph.of(AttentionOp)) == [0, 0, 3]
    assert {len(s.offset) for _, s in graph.of(StreamOp) if s.offset is not None} == {1, 3}


def test_constants_of_images_may_differ():
    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)
            self.register_buffer("place", torch.randn(2, 4, 8, 8))

        def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(sample) + self.place)

    assert check(Places(), (torch.zeros(2, 4, 8, 8), TIME), images=2).images == 2


def test_a_sample_of_five_dimensions_is_refused_with_what_to_do():
    example = (torch.zeros(1, 4, 3, 8, 8), TIME, torch.zeros(1, 7, 12))
    with pytest.raises(UnsupportedOperators, match="neither an image nor a sequence; make the"):
        trace(Video().inner, TIMESTEPS, example)
