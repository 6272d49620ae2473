"""Small torch models for the compiler's tests."""

import torch
from torch import nn
from torch.nn import functional as F


class TinyUNet(nn.Module):
    """Every supported construction on 8x8 images: norm, SiLU, ReLU, residual and plain additions,
    concatenation with an enlarged tensor, stride, attention, scaling, time embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.time = nn.Linear(4, 8)
        self.down = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.attention_norm = nn.GroupNorm(3, 12)
        self.q, self.k, self.v = (nn.Linear(12, 12) for _ in range(3))
        self.project = nn.Linear(12, 12)
        self.up = nn.Conv2d(20, 8, 1)
        self.last = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        angles = timestep[:, None].float() * torch.tensor([[0.001, 0.01, 0.1, 1.0]])
        embedding = self.time(torch.sin(angles))[:, :, None, None]
        x = self.stem(sample)
        x = (x + F.relu(self.inner(F.silu(self.norm(x)) + embedding))) / 1.5
        y = self.down(x)
        n, c, h, w = y.shape
        tokens = self.attention_norm(y).view(n, c, h * w).transpose(1, 2)
        q, k, v = (
            layer(tokens).view(n, -1, 3, 4).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, -1, c)
        y = y + self.project(mixed).transpose(1, 2).reshape(n, c, h, w)
        joined = torch.cat([F.interpolate(y, scale_factor=2.0, mode="nearest"), x], 1)
        return self.last(F.silu(self.up(joined))) + 0.5 * sample


class Unsupported(nn.Module):
    """Three operators that the accelerator lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.dilated = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        x = torch.cos(self.first(sample)) + torch.exp(self.first(sample))
        return self.last(x) + self.last(self.dilated(self.first(sample)))


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Example inputs of both."""
    return torch.zeros(1, 2, 8, 8), torch.tensor([1])


def tiny() -> TinyUNet:
    """The tiny network with fixed weights."""
    torch.manual_seed(3)
    return TinyUNet().eval()
