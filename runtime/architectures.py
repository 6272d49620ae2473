"""Published architectures by name: configuration, conditions and noise schedule, without weights.

`NAME` is the published model, `NAME-small` the same structure with tiny widths and one or two
layers per block, for numeric runs. Weights are random, from a fixed seed, or absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from signmask.runtime.errors import RunError

SMALL = "-small"
# Noise schedules as the models' own pipelines state them, for the DDIM sampler.
_LINEAR = {
    "_class_name": "DDIMScheduler", "beta_schedule": "linear", "beta_start": 0.0001,
    "beta_end": 0.02, "num_train_timesteps": 1000, "clip_sample": False,
}  # fmt: skip
_LATENT = {
    "_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "beta_end": 0.012, "num_train_timesteps": 1000, "clip_sample": False,
    "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip


# Parameters of the diffusers form, by name.
_PARAMETERS = {
    "ddpm-cifar10": 35_746_307,
    "ddpm-cifar10-small": 1_525_411,
    "adm-128": 421_529_606,
    "adm-128-small": 2_317_734,
    "adm-256": 553_838_086,
    "adm-256-small": 1_550_278,
    "adm-512": 558_866_566,
    "adm-512-small": 1_027_110,
    "sd-v1-4": 859_520_964,
    "sd-v1-4-small": 2_140_036,
    "sdxl": 2_567_463_684,
    "sdxl-small": 2_001_508,
    "dit-xl-2-256": 749_826_464,
    "dit-xl-2-256-small": 330_208,
    "controlnet-sd": 1_220_800_084,
    "controlnet-sd-small": 2_989_100,
    "sd-v1-4-lora": 860_318_148,
    "sd-v1-4-lora-small": 2_173_060,
    "sd-v1-4-lora-merged": 859_520_964,
    "sd-v1-4-lora-merged-small": 2_140_036,
    "latte-xl-2": 1_057_246_880,
    "latte-xl-2-small": 288_864,
}


@dataclass(frozen=True)
class Condition:
    """An input besides sample and timestep. kind: "normal" or "image" (uniform in 0 to 1) float32
    of `shape`, "label" int64 (1,) below `limit`, "values" float32 `values`."""

    kind: str
    shape: tuple[int, ...] = (1,)
    limit: int = 0
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Architecture:
    """A model as published.

    parts: diffusers class and configuration by the name of its folder in a pipeline; the first is
    the denoiser. sample: (channels, height, width). published: the authors' count of parameters in
    millions, None where they give none. conditions: by keyword, dotted where nested. images: rows
    of the sample that belong together (video frames). lora_rank: of branches beside the attention
    projections, 0 for none; `merged` into the weights or not.
    """

    name: str
    parts: Mapping[str, tuple[str, Mapping[str, Any]]]
    sample: tuple[int, int, int]
    published: float | None
    source: str
    scheduler: Mapping[str, Any]
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    images: int = 1
    lora_rank: int = 0
    merged: bool = True
    note: str = ""

    @property
    def parameters(self) -> int:
        """Number of parameters of the diffusers form."""
        return _PARAMETERS[self.name]

    def facts(self) -> dict[str, Any]:
        """What `signmask models` prints, in JSON's types."""
        return {
            "name": self.name,
            "activation": next(iter(self.parts.values()))[1].get("act_fn", "gelu"),
            "parameters": self.parameters,
            "published_millions": self.published,
            "input_shape": list(self.sample),
            "conditions": {k: list(c.shape) for k, c in self.conditions.items()},
            "source": self.source,
            "note": self.note,
        }


def _ddpm(channels: int, groups: int, layers: int, size: int) -> dict[str, Any]:
    plain, attention = "DownBlock2D", "AttnDownBlock2D"
    return {
        "act_fn": "silu", "attention_head_dim": None,
        "block_out_channels": (channels, 2 * channels, 2 * channels, 2 * channels),
        "down_block_types": (plain, attention, plain, plain), "downsample_padding": 0,
        "flip_sin_to_cos": False, "freq_shift": 1, "in_channels": 3, "layers_per_block": layers,
        "norm_eps": 1e-6, "norm_num_groups": groups, "out_channels": 3, "sample_size": size,
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip


def _adm(
    size: int, channels: int, multiples: tuple[float, ...], attended: int, layers: int, head: int,
    groups: int,
) -> dict[str, Any]:  # fmt: skip
    """Guided-Diffusion U-Net; the last `attended` levels have attention."""
    plain = len(multiples) - attended
    return {
        "sample_size": size, "in_channels": 3, "out_channels": 6, "layers_per_block": layers,
        "block_out_channels": tuple(int(channels * m) for m in multiples),
        "down_block_types": ("ResnetDownsampleBlock2D",) * plain + ("AttnDownBlock2D",) * attended,
        "up_block_types": ("AttnUpBlock2D",) * attended + ("ResnetUpsampleBlock2D",) * plain,
        "downsample_type": "resnet", "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift", "attention_head_dim": head,
        "num_class_embeds": 1000, "time_embedding_dim": 4 * channels, "norm_num_groups": groups,
        "attn_norm_num_groups": groups, "freq_shift": 0, "flip_sin_to_cos": True,
    }  # fmt: skip


def _stable_diffusion(
    widths: tuple[int, ...], heads: tuple[int, ...], context: int, groups: int, layers: int,
    size: int,
) -> dict[str, Any]:  # fmt: skip
    return {
        "sample_size": size, "in_channels": 4, "out_channels": 4, "layers_per_block": layers,
        "block_out_channels": widths, "attention_head_dim": heads, "cross_attention_dim": context,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, "norm_num_groups": groups,
        "act_fn": "silu", "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0,
        "norm_eps": 1e-5,
    }  # fmt: skip


def _control(unet: Mapping[str, Any], conditioning: tuple[int, ...]) -> dict[str, Any]:
    """The ControlNet of a U-Net: its encoder, and a convolutional stem for the image."""
    shared = {
        key: unet[key] for key in (
            "in_channels", "layers_per_block", "block_out_channels", "attention_head_dim",
            "cross_attention_dim", "down_block_types", "norm_num_groups", "act_fn",
            "downsample_padding", "flip_sin_to_cos", "freq_shift", "norm_eps",
        )
    }  # fmt: skip
    return shared | {"conditioning_embedding_out_channels": conditioning}


def _sdxl(
    widths: tuple[int, ...], heads: tuple[int, ...], depth: tuple[int, ...], context: int,
    pooled: int, time: int, groups: int, layers: int, size: int,
) -> dict[str, Any]:  # fmt: skip
    return {
        "sample_size": size, "in_channels": 4, "out_channels": 4, "layers_per_block": layers,
        "block_out_channels": widths, "attention_head_dim": heads, "cross_attention_dim": context,
        "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",), "norm_num_groups": groups,
        "transformer_layers_per_block": depth, "use_linear_projection": True, "act_fn": "silu",
        "addition_embed_type": "text_time", "addition_time_embed_dim": time,
        "projection_class_embeddings_input_dim": pooled + 6 * time, "norm_eps": 1e-5,
    }  # fmt: skip


def _dit(heads: int, width: int, layers: int, size: int) -> dict[str, Any]:
    return {
        "num_attention_heads": heads, "attention_head_dim": width, "in_channels": 4,
        "out_channels": 8, "num_layers": layers, "sample_size": size, "patch_size": 2,
        "activation_fn": "gelu-approximate", "num_embeds_ada_norm": 1000, "attention_bias": True,
        "norm_type": "ada_norm_zero", "norm_elementwise_affine": False, "norm_eps": 1e-5,
    }  # fmt: skip


def _latte(
    heads: int, width: int, layers: int, size: int, frames: int, caption: int
) -> dict[str, Any]:
    return {
        "num_attention_heads": heads, "attention_head_dim": width, "in_channels": 4,
        "out_channels": 8, "num_layers": layers, "sample_size": size, "patch_size": 2,
        "cross_attention_dim": heads * width, "caption_channels": caption, "video_length": frames,
        "activation_fn": "gelu-approximate", "attention_bias": True, "norm_eps": 1e-6,
        "norm_type": "ada_norm_single", "norm_elementwise_affine": False,
        "num_embeds_ada_norm": 1000,
    }  # fmt: skip


_DDPM_PAPER = "Ho et al., 2020 (arXiv:2006.11239); google/ddpm-cifar10-32"
_ADM_PAPER = "Dhariwal and Nichol, 2021 (arXiv:2105.05233); openai/guided-diffusion"
_SD_PAPER = "Rombach et al., 2022 (arXiv:2112.10752); CompVis/stable-diffusion-v1-4"
_SDXL_PAPER = "Podell et al., 2023 (arXiv:2307.01952); stabilityai/stable-diffusion-xl-base-1.0"
_DIT_PAPER = "Peebles and Xie, 2023 (arXiv:2212.09748); facebook/DiT-XL-2-256"
_CONTROL_PAPER = "Zhang et al., 2023 (arXiv:2302.05543); lllyasviel/sd-controlnet-canny"
_LORA_PAPER = "Hu et al., 2021 (arXiv:2106.09685), rank 4 on the attention projections"
_LATTE_PAPER = "Ma et al., 2024 (arXiv:2401.03048); maxin-cn/Latte-1"
_LABEL = {"class_labels": Condition("label", limit=1000)}
_SD = _stable_diffusion((320, 640, 1280, 1280), (8, 8, 8, 8), 768, 32, 2, 64)
_SD_SMALL = _stable_diffusion((32, 64, 64, 64), (2, 4, 4, 4), 32, 8, 1, 8)
_TEXT = {"encoder_hidden_states": Condition("normal", (1, 77, 768))}
_TEXT_SMALL = {"encoder_hidden_states": Condition("normal", (1, 10, 32))}


def _text_and_size(tokens: int, context: int, pooled: int, size: float) -> dict[str, Condition]:
    return {
        "encoder_hidden_states": Condition("normal", (1, tokens, context)),
        "added_cond_kwargs.text_embeds": Condition("normal", (1, pooled)),
        "added_cond_kwargs.time_ids": Condition(
            "values", (1, 6), values=(size, size, 0.0, 0.0, size, size)
        ),
    }


def _unet(config: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    conditional = "cross_attention_dim" in config
    return {"unet": ("UNet2DConditionModel" if conditional else "UNet2DModel", config)}


def _adm_pair(
    size: int, multiples: tuple[float, ...], small: tuple[float, ...], published: float,
    note: str = "",
) -> list[Architecture]:  # fmt: skip
    big = Architecture(
        f"adm-{size}", _unet(_adm(size, 256, multiples, 3, 2, 64, 32)), (3, size, size),
        published, _ADM_PAPER, _LINEAR, _LABEL, note=note,
    )  # fmt: skip
    config = _adm(16, 32, small, 2, 1, 16, 8)
    return [big, _small(big, _unet(config), (3, 16, 16))]


def _small(
    big: Architecture, parts: Mapping[str, tuple[str, Mapping[str, Any]]],
    sample: tuple[int, int, int], **fields: Any,
) -> Architecture:  # fmt: skip
    return replace(
        big, name=big.name + SMALL, parts=parts, sample=sample, published=None,
        note=f"{big.name} with tiny widths", **fields,
    )  # fmt: skip


def _catalogue() -> list[Architecture]:
    ddpm = Architecture(
        "ddpm-cifar10", _unet(_ddpm(128, 32, 2, 32)), (3, 32, 32), 35.7, _DDPM_PAPER,
        _LINEAR | {"clip_sample": True},
    )  # fmt: skip
    sd = Architecture(
        "sd-v1-4", _unet(_SD), (4, 64, 64), 860.0, _SD_PAPER, _LATENT, _TEXT,
    )  # fmt: skip
    sd_small = _small(sd, _unet(_SD_SMALL), (4, 8, 8), conditions=_TEXT_SMALL)
    sdxl_unet = _sdxl((320, 640, 1280), (5, 10, 20), (1, 2, 10), 2048, 1280, 256, 32, 2, 128)
    sdxl = Architecture(
        "sdxl", _unet(sdxl_unet), (4, 128, 128), 2567.0, _SDXL_PAPER, _LATENT,
        _text_and_size(77, 2048, 1280, 1024.0),
    )  # fmt: skip
    dit = Architecture(
        "dit-xl-2-256", {"transformer": ("DiTTransformer2DModel", _dit(16, 72, 28, 32))},
        (4, 32, 32), 675.0, _DIT_PAPER, _LINEAR, _LABEL,
        note="diffusers keeps the embeddings of timestep and class in each of the 28 blocks",
    )  # fmt: skip
    control = Architecture(
        "controlnet-sd",
        _unet(_SD) | {"controlnet": ("ControlNetModel", _control(_SD, (16, 32, 96, 256)))},
        (4, 64, 64), 1221.0, _CONTROL_PAPER, _LATENT,
        _TEXT | {"controlnet_cond": Condition("image", (1, 3, 512, 512))},
        note="U-Net of sd-v1-4 and a ControlNet in one module",
    )  # fmt: skip
    control_small = _small(
        control,
        _unet(_SD_SMALL) | {"controlnet": ("ControlNetModel", _control(_SD_SMALL, (8, 8, 16, 16)))},
        (4, 8, 8),
        conditions=_TEXT_SMALL | {"controlnet_cond": Condition("image", (1, 3, 64, 64))},
    )  # fmt: skip
    latte = Architecture(
        "latte-xl-2",
        {"transformer": ("LatteTransformer3DModel", _latte(16, 72, 28, 64, 16, 4096))},
        (4, 64, 64), None, _LATTE_PAPER, _LINEAR,
        {"encoder_hidden_states": Condition("normal", (1, 120, 4096))}, images=16,
        note="text-to-video; the class-conditional form of the paper has 673.7 million parameters",
    )  # fmt: skip
    lora = replace(
        sd, name="sd-v1-4-lora", source=_LORA_PAPER, lora_rank=4, merged=False, published=None,
        note="low-rank branches beside the projections",
    )  # fmt: skip
    merged = replace(
        lora, name="sd-v1-4-lora-merged", merged=True, note="branches added into the weights"
    )
    return [
        ddpm, _small(ddpm, _unet(_ddpm(32, 8, 1, 16)), (3, 16, 16)),
        *_adm_pair(128, (1, 1, 2, 3, 4), (1, 2, 3), 422.0,
                   "heads of 64 channels in place of 4 heads per attention"),
        *_adm_pair(256, (1, 1, 2, 2, 4, 4), (1, 2, 2), 554.0),
        *_adm_pair(512, (0.5, 1, 1, 2, 2, 4, 4), (0.5, 1, 2), 559.0,
                   "sinusoids of 128 in place of 256 channels in the time embedding"),
        sd, sd_small,
        sdxl, _small(
            sdxl, _unet(_sdxl((32, 64, 64), (2, 4, 4), (1, 1, 2), 32, 32, 8, 8, 1, 16)),
            (4, 16, 16), conditions=_text_and_size(10, 32, 32, 128.0),
        ),
        dit, _small(
            dit, {"transformer": ("DiTTransformer2DModel", _dit(4, 16, 2, 8))}, (4, 8, 8)
        ),
        control, control_small,
        lora, _small(lora, _unet(_SD_SMALL), (4, 8, 8), conditions=_TEXT_SMALL),
        merged, _small(merged, _unet(_SD_SMALL), (4, 8, 8), conditions=_TEXT_SMALL),
        latte, _small(
            latte,
            {"transformer": ("LatteTransformer3DModel", _latte(4, 16, 2, 8, 4, 32))},
            (4, 8, 8), images=4,
            conditions={"encoder_hidden_states": Condition("normal", (1, 10, 32))},
        ),
    ]  # fmt: skip


ARCHITECTURES: dict[str, Architecture] = {a.name: a for a in _catalogue()}


def names() -> tuple[str, ...]:
    """Names of all architectures, small versions included."""
    return tuple(ARCHITECTURES)


def architecture(name: str) -> Architecture:
    """The architecture of that name; raises RunError where there is none."""
    if name not in ARCHITECTURES:
        raise RunError(f"unknown architecture '{name}'; choose one of {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]
