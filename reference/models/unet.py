"""The bundled DDPM U-Net: architecture, activation variants and noise schedule."""

from __future__ import annotations

from diffusers import DDIMScheduler, UNet2DModel
from torch import nn

# Inside the residual blocks and before the output, by variant.
ACTIVATIONS = {"fashion-silu": "silu", "fashion-relu": "relu"}
VARIANTS = tuple(ACTIVATIONS)

UNET_CONFIG = dict(
    sample_size=16,
    in_channels=4,
    out_channels=4,
    layers_per_block=1,
    block_out_channels=(32, 64, 64),
    down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    add_attention=False,
    norm_num_groups=8,
    attention_head_dim=32,
)


def build_unet(variant: str) -> UNet2DModel:
    """A freshly initialised U-Net of 1.10 M parameters; `variant` is one of VARIANTS.

    diffusers' `act_fn` leaves `conv_act` as SiLU, so the activations of the residual blocks and of
    the output are replaced here. The time embedding keeps SiLU: it depends on the timestep alone.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown model {variant!r}; bundled models are {', '.join(VARIANTS)}.")
    unet = UNet2DModel(**UNET_CONFIG)
    if ACTIVATIONS[variant] == "relu":
        unet.conv_act = nn.ReLU()
        for module in unet.modules():
            if type(module).__name__ == "ResnetBlock2D":
                module.nonlinearity = nn.ReLU()
    return unet


def scheduler() -> DDIMScheduler:
    """Linear beta 1e-4 to 0.02 over 1000 steps, epsilon prediction, trailing spacing, clipped."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="epsilon",
        timestep_spacing="trailing",
        clip_sample=True,
    )
