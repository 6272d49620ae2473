"""Fused graphs compute what torch computes; what does not fit is named with the user's lines."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from signmask.compiler.errors import UnsupportedOperators
from signmask.compiler.float_model import FloatModel
from signmask.compiler.frontend import trace
from signmask.compiler.fusion.catalogue import KINDS, catalogue
from signmask.compiler.fusion.patterns import PATTERNS, pattern_of
from signmask.compiler.fusion.value import Reject
from signmask.compiler.graph import AttentionOp, Call, EncodingOp, LinearOp, StreamOp, TensorGraph
from signmask.reference.models.unet import build_unet

TIMESTEPS = (900, 30)
EXAMPLE = (torch.zeros(1, 4, 8, 8), torch.tensor([1]))


class Base(nn.Module):
    """Layers that the forms below share; each form is the body of forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm, self.other = nn.GroupNorm(2, 4), nn.GroupNorm(2, 4)
        self.wide = nn.Conv2d(8, 4, 3, padding="same")
        self.strided = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.dense = nn.Linear(4, 4, bias=False)
        self.pair = nn.Conv2d(4, 8, 1)
        self.qkv = nn.Linear(4, 12)
        self.grouped = nn.Conv2d(4, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.batch_norm, self.token_norm = nn.BatchNorm2d(4), nn.LayerNorm(4)
        self.root_norm = nn.RMSNorm(4, eps=1e-6)
        self.register_buffer("shift", torch.randn(1, 4, 1, 1))
        with torch.no_grad():
            self.other.weight.mul_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
            self.batch_norm.running_mean.normal_()
            self.batch_norm.running_var.uniform_(0.5, 2.0)
            self.token_norm.weight.normal_()
            self.root_norm.weight.normal_()
        self.register_buffer("place", torch.randn(1, 64, 4))

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        phases = timestep.reshape(-1, 1) * torch.tensor([0.1, 0.02, 0.3, 1.0])
        parts = {**dict(self.named_children()), **dict(self.named_buffers(recurse=False))}
        layers = SimpleNamespace(**parts, t=torch.sin(phases)[:, :, None, None])
        return {**FORMS, **ATTENTIONS}[self.form](layers, sample)


def tokens(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2).transpose(1, 2)


def image(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 1).unflatten(2, (8, 8))


FORMS = {
    "two norms of one tensor": lambda m, x: m.b(F.silu(m.norm(m.a(x))) + m.other(m.a(x))),
    "norms of the sample": lambda m, x: m.norm(x) - m.other(x),
    "a tensor plus itself": lambda m, x: m.a(x) + m.a(x) + x + x,
    "sum read again": lambda m, x: (lambda y: y + F.relu(y) + m.b(y))(m.a(x) + m.b(x)),
    "an addend twice": lambda m, x: (lambda y: (y + m.b(x)) + y + F.relu(y))(m.a(x)),
    "an addend twice, first": lambda m, x: (lambda y: y + (m.b(x) + y) + F.relu(y))(m.a(x)),
    "difference": lambda m, x: m.a(x) - m.b(x),
    "constant minus tensor": lambda m, x: 1.5 - m.a(x),
    "weighted addition": lambda m, x: torch.add(m.a(x), m.b(x), alpha=0.25),
    "scaled sum": lambda m, x: (m.a(x) + m.b(x)) * 0.5 / 3,
    "channel constants": lambda m, x: F.relu(m.a(x) + m.shift) - m.shift,
    "activation twice": lambda m, x: F.relu(F.silu(m.a(x))),
    "cat of activations": lambda m, x: m.wide(torch.cat([F.silu(m.a(x)), x], 1)),
    "cat of a cat": lambda m, x: m.wide(torch.cat([torch.cat([m.a(x)], 1), m.b(x)], dim=-3)),
    "enlarged": lambda m, x: m.a(F.interpolate(F.silu(m.strided(x)), scale_factor=2.0)),
    "tokens": lambda m, x: image(m.dense(tokens(F.silu(m.norm(m.a(x)))))),
    "the sample itself": lambda m, x: x,
    "an operand used later": lambda m, x: (lambda y: m.b(y) + y)(m.a(x)),
}


FORMS |= {
    "activations": lambda m, x: sum(
        m.b(f(m.a(x)))
        for f in (
            F.gelu,
            torch.sigmoid,
            torch.tanh,
            F.mish,
            F.softplus,
            F.elu,
            F.hardswish,
            F.hardsigmoid,
            F.relu6,
            F.hardtanh,
        )
    ),
    "activations with parameters": lambda m, x: m.b(
        F.leaky_relu(m.a(x), 0.2)
        + F.elu(m.a(x), 0.7)
        + F.softplus(m.a(x), 3.0, 5.0)
        + F.hardtanh(m.a(x), -0.3, 0.2)
        + F.gelu(m.a(x), approximate="tanh")
    ),
    "silu by hand": lambda m, x: m.b((lambda y: y * torch.sigmoid(y))(m.a(x))),
    "quick gelu": lambda m, x: m.b((lambda y: torch.sigmoid(1.702 * y) * y)(m.a(x))),
    "mish by hand": lambda m, x: m.b((lambda y: y * torch.tanh(F.softplus(y)))(m.a(x))),
    "gelu by hand": lambda m, x: m.b((lambda y: y * 0.5 * (1.0 + torch.erf(y / 2.0**0.5)))(m.a(x))),
    "gelu by tanh by hand": lambda m, x: m.b(
        (lambda y: 0.5 * y * (1 + torch.tanh(0.7978845608 * (y + 0.044715 * y**3))))(m.a(x))
    ),
    "gated unit": lambda m, x: m.b((lambda y: y[:, :4] * F.gelu(y[:, 4:]))(m.pair(x))),
    "glu": lambda m, x: m.b(F.glu(m.pair(x), 1)),
    "product of normed tensors": lambda m, x: m.b(m.norm(m.a(x)) * torch.sigmoid(m.other(x)) * x),
    "square": lambda m, x: m.b(m.a(x) ** 2) + m.a(x).square(),
    "chunks read as a whole": lambda m, x: (lambda y: m.wide(y) + y.chunk(2, 1)[1])(m.pair(x)),
    "every other part": lambda m, x: m.pair(x).unflatten(1, (2, 2, 2)).select(2, 1).flatten(1, 2),
    "part of a norm": lambda m, x: m.wide(
        torch.cat([m.norm(m.a(x))[:, 1:3], F.silu(m.b(x))[:, :2], x.narrow(1, 0, 4)], 1)
    ),
    "parts of a cat": lambda m, x: (lambda y: y[:, 4:] + y[:, 2:6])(torch.cat([m.a(x), x], 1)),
    "grouped convolutions": lambda m, x: m.wide(m.grouped(m.depthwise(x))),
    "part of a grouped convolution": lambda m, x: m.grouped(x)[:, 2:6],
    "average pooling": lambda m, x: (
        F.interpolate(F.avg_pool2d(m.a(x), 2) + F.adaptive_avg_pool2d(x, 4), size=(8, 8))
        + F.avg_pool2d(x, 3, 1, 1)
    ),
    "padding on two sides": lambda m, x: F.interpolate(
        F.conv2d(F.pad(x, (0, 1, 0, 1)), m.a.weight, stride=2)
        + F.conv2d(F.pad(F.relu(x), (1, 0, 1, 0)), m.a.weight, stride=2),
        scale_factor=2.0,
    ),
    "batch norm": lambda m, x: m.b(F.relu(m.batch_norm(m.a(x)))) + m.batch_norm(x),
    "token norms": lambda m, x: image(
        m.dense(m.token_norm(tokens(m.a(x)))) + m.dense(F.silu(m.root_norm(tokens(x))))
    ),
    "token norm of a cat": lambda m, x: image(
        F.layer_norm(torch.cat([tokens(m.a(x)), tokens(x)], 2), (8,))[..., 3:7]
    ),
    "rms norm by hand": lambda m, x: image(
        (lambda y: y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6))(tokens(m.a(x)))
        * m.root_norm.weight
    ),
    "shift and scale per step": lambda m, x: m.b(F.silu(m.norm(m.a(x)) * (1 + m.t) + m.t)),
    "gain per step": lambda m, x: m.b(x * m.t) + m.t * m.a(x) + (m.a(x) * m.t + m.t) * m.t,
    "constants repeated over positions": lambda m, x: m.b(
        m.a(x) * m.t.repeat(1, 1, 8, 8) + m.shift.repeat(1, 1, 8, 8)
    ),
    "gain of an activation": lambda m, x: m.b(F.silu(x) * m.t - m.t),
    "gain per channel": lambda m, x: m.b(F.silu(x) * m.shift + m.a(x) * m.shift / m.shift.exp()),
    "places": lambda m, x: image(m.dense(tokens(m.a(x)) + m.place) - m.place),
    "negative": lambda m, x: -m.a(x) - (-x),
    "squeezed": lambda m, x: m.a(x).unsqueeze(1).squeeze(1).expand(-1, 4, 8, 8),
    "matrix products": lambda m, x: image(
        tokens(x) @ m.dense.weight + torch.addmm(m.a.bias, tokens(x)[0], m.dense.weight)[None]
    ),
    "shuffled pixels": lambda m, x: F.pixel_shuffle(
        F.conv2d(
            x,
            torch.cat([m.a.weight, m.depthwise.weight + m.a.weight] * 2)[..., :2, :2],
            torch.arange(16.0),
            stride=2,
        ),
        2,
    ),
}


def scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.transpose(-1, -2) * 0.7, -1)


def bmm_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    empty = torch.empty(q.shape[0], q.shape[1], k.shape[1])
    weights = torch.baddbmm(empty, q, k.transpose(1, 2), beta=0, alpha=0.6).softmax(-1)
    return torch.bmm(weights.to(v.dtype), v)


def heads(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(2, (2, 2)).transpose(1, 2)


def einsum_attention(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """As guided diffusion has it: heads in the batch, q, k and v beside each other in a head."""
    q, k, v = m.qkv(tokens(x)).transpose(1, 2).reshape(2, 6, 64).chunk(3, dim=1)
    weights = torch.einsum("bct,bcs->bts", q * 0.8, k * 0.8).softmax(-1)
    return image(torch.einsum("bts,bcs->bct", weights, v).reshape(1, 4, 64).transpose(1, 2))


def transposed_attention(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """As the first diffusion U-Nets have it: channels first, weights transposed."""
    q, k, v = (layer(x).flatten(2) for layer in (m.a, m.b, m.a))
    weights = (torch.bmm(q.permute(0, 2, 1), k) * 4**-0.5).softmax(2)
    return torch.bmm(v, weights.permute(0, 2, 1)).unflatten(2, (8, 8))


ATTENTIONS = {
    "matmul": lambda m, x: image(
        scores(m.dense(tokens(x)), tokens(m.a(x))) @ tokens(m.b(x))
    ),
    "heads": lambda m, x: image(
        (scores(*(heads(y) for y in m.qkv(tokens(x)).chunk(3, -1)[:2]))
         @ heads(m.dense(tokens(x)))).transpose(1, 2).flatten(2)
    ),
    "one projection": lambda m, x: image(
        F.scaled_dot_product_attention(
            *m.qkv(tokens(x)).reshape(1, 64, 3, 2, 2).permute(2, 0, 3, 1, 4).unbind(0)
        ).transpose(1, 2).reshape(1, 64, 4)
    ),
    "bmm": lambda m, x: image(
        bmm_attention(*(heads(y).reshape(2, 64, 2) for y in m.qkv(tokens(x)).chunk(3, -1)))
        .reshape(1, 2, 64, 2).transpose(1, 2).reshape(1, 64, 4)
    ),
    "guided diffusion": einsum_attention,
    "channels first": transposed_attention,
    "constant keys": lambda m, x: image(
        (scores(heads(tokens(x)), heads(m.place)) @ heads(m.dense(m.place)))
        .transpose(1, 2).flatten(2)
    ),
    "masked keys": lambda m, x: image(
        F.scaled_dot_product_attention(
            heads(tokens(x)), heads(m.place), heads(m.place),
            attn_mask=(torch.arange(64) % 3 > 0)[None, None, None],
        ).transpose(1, 2).flatten(2)
    ),
    "masked scores": lambda m, x: image(
        F.scaled_dot_product_attention(
            heads(tokens(x)), heads(m.place), heads(m.place),
            attn_mask=((torch.arange(64) % 3) * -10000.0)[None, None, None],
        ).transpose(1, 2).flatten(2)
    ),
}  # fmt: skip


def build(form: str) -> nn.Module:
    torch.manual_seed(len(form))
    model = Base().eval()
    model.form = form
    return model


def check(form: str) -> TensorGraph:
    """Trace a form and compare with torch."""
    model = build(form)
    graph = trace(model, TIMESTEPS, EXAMPLE)
    sample = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        expected = model(sample, torch.tensor([30]))
    found = FloatModel(graph)(sample, 1)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=2e-5)
    return graph


@pytest.mark.parametrize("form", FORMS)
def test_a_form_computes_what_torch_computes(form):
    check(form)


@pytest.mark.parametrize("form", ATTENTIONS)
def test_an_attention_is_recognised(form):
    graph = check(form)
    assert len(graph.of(AttentionOp)) == 1


def test_concatenation_views_and_scaling_leave_no_operator():
    graph = trace(build("cat of a cat"), TIMESTEPS, EXAMPLE)
    assert [len(e.streams) for _, e in graph.of(EncodingOp)] == [2]
    assert len(graph.of(LinearOp)) == 3
    graph = trace(build("tokens"), TIMESTEPS, EXAMPLE)
    assert len(graph.of(LinearOp)) == 2


def test_linears_of_a_sum_write_one_stream():
    graph = trace(build("sum read again"), TIMESTEPS, EXAMPLE)
    assert max(len(s.linears) for _, s in graph.of(StreamOp)) == 2


def test_attention_operands_have_one_reader():
    graph = trace(build_unet("fashion-silu").eval(), TIMESTEPS)
    attentions = graph.of(AttentionOp)
    assert attentions
    for _, op in attentions:
        assert len({op.q, op.k, op.v}) == 3
        assert all(graph.graph.out_degree(s) == 1 for s in (op.q, op.k, op.v))


class Refused(nn.Module):
    """Operators that do not fit, each for another reason."""

    def __init__(self) -> None:
        super().__init__()
        self.dilated = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.oblong = nn.Conv2d(4, 4, (1, 3), padding=(0, 1))
        self.register_buffer("picture", torch.randn(1, 4, 8, 8))

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        x = torch.exp(sample)  # line: exponential
        y = self.dilated(sample)  # line: dilated
        z = self.oblong(sample)  # line: oblong
        u = sample * self.picture  # line: picture
        v = sample + self.picture * timestep  # line: moving
        w = F.interpolate(sample, size=(12, 12))[:, :, :8, :8]  # line: enlarged
        s = sample[:, :, :4]  # line: crop
        q = tokens(sample)
        t = q @ q.transpose(1, 2)  # line: scores
        r = F.pad(sample, (1, 1, 1, 1), mode="reflect")  # line: mirrored
        return x + y + z + u + v + w + s.sum() + t.sum() + r[:, :, 1:9, 1:9]  # line: sums


def line_of(tag: str) -> str:
    lines, first = inspect.getsourcelines(Refused)
    return str(next(first + i for i, text in enumerate(lines) if f"# line: {tag}" in text))


def test_every_refused_operator_is_named_with_its_line_and_reason():
    with pytest.raises(UnsupportedOperators) as caught:
        trace(Refused(), TIMESTEPS, EXAMPLE)
    found = {r.line.rsplit(" ", 2)[0].rsplit(":", 1)[1]: r for r in caught.value.rejections}
    expected = {
        "exponential": ("aten.exp", "no such operation"),
        "dilated": ("aten.conv2d", "dilated"),
        "oblong": ("aten.conv2d", "not square"),
        "picture": ("aten.mul", "varies over positions"),
        "moving": ("aten.add", "over positions and over timesteps"),
        "enlarged": ("aten.upsample_nearest2d", "resizes 8x8 to 12x12"),
        "crop": ("aten.slice", "does not count channels"),
        "scores": ("aten.matmul", "two matrices of the sample"),
        "mirrored": ("aten.pad", "other than zeros"),
        "sums": ("aten.sum", "no such operation"),
    }
    assert set(found) == {line_of(tag) for tag in expected}
    for tag, (operator, reason) in expected.items():
        rejection = found[line_of(tag)]
        assert rejection.operator == operator
        assert reason in rejection.reason
        assert "test_fusion.py" in rejection.line
    message = str(caught.value)
    assert message.startswith("11 unsupported operator(s): ")
    assert "\n" not in message


def test_patterns_and_their_absence():
    call = Call("aten.sort.default", (), {}, (1,))
    with pytest.raises(Reject, match="no such operation"):
        pattern_of(call)
    assert PATTERNS["aten.conv2d"].fuse.__name__ == "conv2d"


def test_a_table_keeps_one_row_per_step():
    graph = trace(build("channel constants"), TIMESTEPS, EXAMPLE)
    tables = [s.table[:, 0] for _, s in graph.of(StreamOp)] + [graph.op(graph.output).table]
    assert all(t.shape == (2, 4) and t.dtype == np.float64 for t in tables)
    assert all(s.table.shape[1] == 1 for _, s in graph.of(StreamOp))


def test_the_page_of_operators_is_that_of_the_patterns():
    page = Path(__file__).parents[2] / "docs" / "operators.md"
    assert page.read_text() == catalogue()
    assert {pattern.kind for pattern in PATTERNS.values()} == set(KINDS)
