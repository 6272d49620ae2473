"""A diffusion model of one's own: draws discs, trained here, exported to discs.pt2."""

import sys

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.time = nn.GroupNorm(4, channels), nn.Linear(32, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, time):
        h = self.first(F.silu(self.norm(x))) + self.time(time)[:, :, None, None]
        return x + self.second(F.gelu(h))


class Denoiser(nn.Module):
    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(1, channels, 3, padding=1), nn.Conv2d(channels, 1, 1)
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(channels) for _ in range(3))

    def forward(self, sample, timestep):
        angles = timestep.reshape(-1, 1) * torch.exp(-torch.arange(16) / 2)
        time = torch.cat([angles.sin(), angles.cos()], 1)
        x = self.blocks[0](self.stem(sample), time)
        x = x + F.interpolate(self.blocks[1](self.down(x), time), scale_factor=2.0)
        return self.last(self.blocks[2](x, time))


def discs(count: int) -> torch.Tensor:
    """Discs of random place and size, (count, 1, 16, 16) in -1..1."""
    x, y = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    centre, radius = 4 + 8 * torch.rand(2, count, 1, 1), 2 + 3 * torch.rand(count, 1, 1)
    return torch.tanh(radius - torch.hypot(x - centre[0], y - centre[1]))[:, None]


def train(steps: int) -> Denoiser:
    """A model that predicts the noise of DDIM with linear betas."""
    torch.manual_seed(0)
    model, kept = Denoiser(), torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(steps):
        clean, t = discs(32), torch.randint(1000, (32,))
        noise, a = torch.randn_like(clean), kept[t][:, None, None, None]
        loss = F.mse_loss(model(a.sqrt() * clean + (1 - a).sqrt() * noise, t), noise)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


if __name__ == "__main__":
    model = train(int(sys.argv[1]) if len(sys.argv) > 1 else 500).eval()
    program = torch.export.export(model, (torch.zeros(1, 1, 16, 16), torch.ones(1)), strict=False)
    torch.export.save(program, "discs.pt2")
