"""What looks like a supported operator but computes something else is refused, by name and line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from signmask.compiler.errors import CompileError, Rejection, UnsupportedOperators
from signmask.compiler.float_model import FloatModel
from signmask.compiler.frontend import trace
from tests.compiler.test_fusion import heads, image, tokens

TIMESTEPS = (900, 30)


class Model(nn.Module):
    """Layers that the forms below share, and a form as the body of forward."""

    def __init__(self, form: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.form = form
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.register_buffer("place", torch.randn(1, 64, 4))
        self.register_buffer("mask", torch.tensor([0.0, 2.0, 0.0, 1.0]).repeat(16))

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        del timestep
        return self.form(self, sample)


EXAMPLE = (torch.zeros(1, 4, 8, 8), torch.tensor([1]))


def rejections(form: Callable[..., torch.Tensor]) -> tuple[Rejection, ...]:
    """What the compiler refuses in a form."""
    with pytest.raises(UnsupportedOperators) as caught:
        trace(Model(form).eval(), TIMESTEPS, EXAMPLE)
    assert "\n" not in str(caught.value)
    return caught.value.rejections


def masked(mask: Callable[[nn.Module], torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Cross-attention under a mask over the 64 keys."""

    def form(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        k = heads(m.place)
        y = F.scaled_dot_product_attention(
            heads(tokens(x)), k, k, attn_mask=mask(m)[None, None, None]
        )
        return image(y.transpose(1, 2).flatten(2))

    return form


def gelu_that_rounds(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = m.a(x)
    return torch.div(y, 2, rounding_mode="floor") * (1 + torch.erf(y * 0.5**0.5))


def gelu_with_a_weight(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = m.a(x)
    return y * 0.5 * torch.add(torch.ones(1), torch.erf(y * 0.5**0.5), alpha=2)


def masked_by_hand(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    q, k = heads(tokens(x)), heads(m.place)
    weights = torch.softmax(q @ k.transpose(-1, -2) + (m.mask > 0), -1)
    return image((weights @ k).transpose(1, 2).flatten(2))


def masked_queries(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Keys first: what is added along the last dimension does not depend on the key."""
    q, k = heads(tokens(x)), heads(m.place)
    weights = torch.softmax(k @ q.transpose(-1, -2) + m.mask.clamp(max=0.5) * -1e4, -2)
    return image((weights.transpose(-1, -2) @ k).transpose(1, 2).flatten(2))


REFUSED = {
    "rounding to whole numbers": (
        lambda m, x: m.b((m.a(x) * 5).int().float()),
        {"aten._to_copy": "torch.int32, which rounds"},
    ),
    "truth values": (
        lambda m, x: m.b(m.a(x).bool().float()),
        {"aten._to_copy": "torch.bool, which rounds"},
    ),
    "a gate of whole numbers": (
        lambda m, x: m.b((lambda y: y * torch.sigmoid(y.int().float()))(m.a(x))),
        {"aten._to_copy": "which rounds"},
    ),
    "positive mask": (masked(lambda m: m.mask), {"aten.scaled_dot_product_attention": "weighs"}),
    "mask that lowers a little": (
        masked(lambda m: -m.mask),
        {"aten.scaled_dot_product_attention": "weighs"},
    ),
    "mask of nothing": (
        masked(lambda m: m.mask > 9),
        {"aten.scaled_dot_product_attention": "leaves no token"},
    ),
    "truth values as scores": (
        masked_by_hand,
        {"aten.matmul": "right operand", "aten.softmax": "no such"},
    ),
    "mask of queries": (
        masked_queries,
        {"aten.matmul": "first operand", "aten.softmax": "no such"},
    ),
    "division that rounds": (
        lambda m, x: torch.div(m.a(x), 1, rounding_mode="floor"),
        {"aten.div": "rounds"},
    ),
    "a gate that rounds": (
        lambda m, x: (lambda y: y * torch.sigmoid(torch.div(y, 1 / 1.702, rounding_mode="trunc")))(
            m.a(x)
        ),
        {"aten.div": "rounds"},
    ),
    "GELU that rounds": (
        gelu_that_rounds,
        {"aten.div": "rounds", "aten.erf": "no such operation"},
    ),
    "GELU with a weight": (gelu_with_a_weight, {"aten.erf": "no such operation"}),
    "RMS norm with a weight": (
        lambda m, x: image(
            (lambda y: y * torch.rsqrt(torch.add(y.pow(2).mean(-1, keepdim=True), 1e-6, alpha=5)))(
                tokens(m.a(x))
            )
        ),
        {"aten.mean": "no such operation", "aten.rsqrt": "no such operation"},
    ),
}  # fmt: skip


def conv(kernel: int, stride: int = 1, padding: int = 0) -> Callable[..., torch.Tensor]:
    """A convolution with constant weights of these sizes."""

    def form(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        weight = m.place.reshape(-1)[: 16 * kernel**2].reshape(4, 4, kernel, kernel) - 0.1
        return F.conv2d(x, weight, m.a.bias, stride, padding)

    return form


REFUSED |= {
    "wide kernel": (
        lambda m, x: F.conv2d(x, torch.ones(4, 4, 8, 8)),
        {"aten.conv2d": "its kernel is 8, "},
    ),
    "wide padding": (conv(4, 1, 4), {"aten.conv2d": "its padding is 4, "}),
    "long stride": (conv(3, 4), {"aten.conv2d": "its stride is 4 and its kernel 3, "}),
    "patches of five": (
        lambda m, x: F.conv2d(x, torch.ones(4, 4, 5, 5), stride=5),
        {"aten.conv2d": "its stride is 5 and its kernel 5, "},
    ),
    "wide window": (
        lambda m, x: F.avg_pool2d(m.a(x), 8),
        {"aten.avg_pool2d": "its kernel is 8, "},
    ),
    "mean of an image": (
        lambda m, x: F.adaptive_avg_pool2d(m.a(x), 1),
        {"aten.adaptive_avg_pool2d": "its kernel is 8, "},
    ),
    "padding of unequal sides": (
        lambda m, x: F.conv2d(F.pad(x, (0, 1, 0, 1)), torch.ones(4, 4, 7, 7), padding=3),
        {"aten.conv2d": "its kernel is 8, padding on unequal sides included"},
    ),
    "padding of one side at the output": (
        lambda m, x: F.pad(F.conv2d(x, m.a.weight, padding=(1, 1))[:, :, :, :], (1, 0, 0, 0)),
        {"aten.pad": "'s layout"},
    ),
    "enlargement by three": (
        lambda m, x: F.interpolate(m.a(x), scale_factor=3),
        {"aten.upsample_nearest2d": "resizes 8x8 to 24x24"},
    ),
    "clamp on one side": (
        lambda m, x: m.a(x).clamp(max=1),
        {"aten.clamp": "two bounds"},
    ),
    "instance norm by running statistics": (
        lambda m, x: F.instance_norm(m.a(x), m.mask[:4], m.mask[:4] + 1, use_input_stats=False),
        {"aten.instance_norm": "running statistics"},
    ),
    "operators behind a refused one": (
        lambda m, x: torch.cumsum(
            m.b(
                F.conv2d(
                    F.silu(F.conv_transpose2d(F.max_pool2d(m.a(x), 2), m.a.weight)),
                    m.a.weight,
                    dilation=2,
                )
            ),
            1,
        ),
        {
            "aten.max_pool2d": "no such operation",
            "aten.conv_transpose2d": "no such operation",
            "aten.conv2d": "dilated",
            "aten.cumsum": "no such operation",
        },
    ),
    "dropout in training": (
        lambda m, x: m.b(F.dropout(m.a(x), 0.5)),
        {"aten.native_dropout": "at random"},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_computes_something_else_is_refused(name):
    form, expected = REFUSED[name]
    found = {r.operator: r for r in rejections(form)}
    assert set(found) == set(expected)
    for operator, reason in expected.items():
        assert reason in found[operator].reason
        assert "test_" in found[operator].line


def computed(form: Callable[..., torch.Tensor]) -> None:
    """The traced form computes what torch computes."""
    model = Model(form).eval()
    sample = torch.randn(2, 4, 8, 8)
    found = FloatModel(trace(model, TIMESTEPS, EXAMPLE))(sample, 0)
    with torch.no_grad():
        expected = torch.cat([model(x[None], torch.tensor([900])) for x in sample])
    assert torch.allclose(found, expected, atol=2e-5)


COMPUTED = {
    "floating-point formats": lambda m, x: m.b(m.a(x).double().float()),
    "mask of truth values": masked(lambda m: m.mask > 0),
    "mask of scores": masked(lambda m: (m.mask > 0) * -1e4),
    "mask of minus infinity": masked(
        lambda m: torch.zeros(64).masked_fill(m.mask > 0, float("-inf"))
    ),
    "mask of scores by hand": lambda m, x: image(
        (scores_of(heads(tokens(x)), heads(m.place), (m.mask > 1) * -1e5) @ heads(m.place))
        .transpose(1, 2)
        .flatten(2)
    ),
    "whole factor of truth values": lambda m, x: m.a(x) * (1 - (m.mask[:4, None, None] > 0) * 1),
}


COMPUTED |= {
    "patches of four": lambda m, x: F.pixel_shuffle(conv_to(m, x, 4, 64), 4),
    "patches of eight": lambda m, x: F.pixel_shuffle(conv_to(m, F.silu(m.a(x)), 8, 256), 8),
    "patches of four by groups": lambda m, x: F.pixel_shuffle(
        F.conv2d(m.a(x), conv_weight(4, 64)[:, :2], stride=4, groups=2), 4
    ),
    "padded patches of four": lambda m, x: F.interpolate(
        F.conv2d(F.pad(x, (1, 0, 1, 0)), conv_weight(4, 4), m.a.bias, 4, 1), size=(8, 8)
    ),
    "padding of an even kernel": lambda m, x: F.conv2d(
        F.conv2d(F.relu(x), conv_weight(4, 4), m.a.bias, padding="same"),
        conv_weight(2, 4),
        padding="same",
    ),
    "enlargement by four": lambda m, x: m.b(
        F.interpolate(F.silu(F.conv2d(x, conv_weight(4, 4), stride=4)), scale_factor=4)
    ),
    "enlargement twice": lambda m, x: F.interpolate(
        F.interpolate(F.conv2d(x, conv_weight(4, 4), stride=4), scale_factor=2), scale_factor=2
    ),
    "exact enlargement": lambda m, x: F.interpolate(
        F.conv2d(x, conv_weight(2, 4), stride=2), scale_factor=2, mode="nearest-exact"
    ),
    "clamp": lambda m, x: m.b(m.a(x).clamp(-0.3, 0.2) + m.a(x).clamp(min=0)),
    "instance norm": lambda m, x: m.b(
        F.instance_norm(m.a(x), weight=m.b.bias, bias=m.a.bias) + F.instance_norm(x)
    ),
}


def conv_weight(kernel: int, out: int) -> torch.Tensor:
    return torch.sin(torch.arange(out * 4.0 * kernel**2) * 1.7).reshape(out, 4, kernel, kernel)


def conv_to(m: nn.Module, x: torch.Tensor, kernel: int, out: int) -> torch.Tensor:
    return F.conv2d(x, conv_weight(kernel, out), torch.arange(1.0 * out), stride=kernel)


def scores_of(q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.transpose(-1, -2) + mask, -1)


@pytest.mark.parametrize("name", COMPUTED)
def test_a_form_computes_what_torch_computes(name):
    computed(COMPUTED[name])


class Labelled(nn.Module):
    """A prediction from an embedded timestep and an embedded label."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.labels = nn.Embedding(100, 4), nn.Embedding(10, 4)

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        sample = sample + self.steps(timestep)[:, :, None, None]
        return sample + self.labels(y)[:, :, None, None]


@pytest.mark.parametrize(
    ("timesteps", "label", "expected"),
    [
        ((90, 900), 3, "aten.embedding 'steps.embedding' at "),
        ((90, 30), 30, "aten.embedding 'labels.embedding' at "),
    ],
)
def test_an_index_out_of_range_is_named(timesteps, label, expected):
    example = (torch.zeros(1, 4, 8, 8), torch.tensor([1]), torch.tensor([3]))
    program = torch.export.export(Labelled().eval(), example, strict=False)
    with pytest.raises(CompileError) as caught:
        trace(program, timesteps, {"y": torch.tensor([label])})
    message = str(caught.value)
    assert message.startswith(expected)
    assert "in forward cannot be evaluated " in message
    assert ("at timestep 900" if 900 in timesteps else "on these conditions") in message
    assert "out of range" in message


def test_an_output_without_the_sample_is_refused():
    with pytest.raises(CompileError, match=r"'b' at .* does not depend on the sample 'sample'"):
        trace(Model(lambda m, x: m.b(m.place.reshape(1, 4, 8, 8))), TIMESTEPS, EXAMPLE)


class Trained(nn.Module):
    """A batch norm, whose running statistics training updates."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        del timestep
        return self.norm(sample)


def test_a_model_exported_in_training_is_refused():
    program = torch.export.export(Trained().train(), EXAMPLE, strict=False)
    with pytest.raises(CompileError, match=r"test_refusals\.py.*call \.eval\(\) before") as caught:
        trace(program, TIMESTEPS)
    assert "'norm." in str(caught.value)
