"""Fused graphs compute what torch computes; what does not fit is named with the user's lines."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from signmask.compiler.errors import UnsupportedOperators
from signmask.compiler.float_model import FloatModel
from signmask.compiler.frontend import trace
from signmask.compiler.fusion.patterns import PATTERNS, pattern_of
from signmask.compiler.fusion.value import Reject
from signmask.compiler.graph import AttentionOp, Call, EncodingOp, LinearOp, StreamOp
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
        self.register_buffer("shift", torch.randn(1, 4, 1, 1))
        with torch.no_grad():
            self.other.weight.mul_(torch.tensor([1.0, -2.0, 0.5, 3.0]))

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        del timestep
        return FORMS[self.form](self, sample)


def tokens(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2).transpose(1, 2)


def image(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 1).unflatten(2, (8, 8))


FORMS = {
    "two norms of one tensor": lambda m, x: m.b(F.silu(m.norm(m.a(x))) + m.other(m.a(x))),
    "norms of the sample": lambda m, x: m.norm(x) - m.other(x),
    "a tensor plus itself": lambda m, x: m.a(x) + m.a(x) + x + x,
    "sum read again": lambda m, x: (lambda y: y + F.relu(y) + m.b(y))(m.a(x) + m.b(x)),
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


def build(form: str) -> nn.Module:
    torch.manual_seed(len(form))
    model = Base().eval()
    model.form = form
    return model


@pytest.mark.parametrize("form", FORMS)
def test_a_form_computes_what_torch_computes(form):
    model = build(form)
    graph = trace(model, TIMESTEPS, EXAMPLE)
    sample = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        expected = model(sample, torch.tensor([30]))
    assert torch.allclose(FloatModel(graph)(sample, 1), expected, atol=1e-5)


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
        return x + y + z + u + v + w + s.sum() + t.sum() + r[:, :, 1:9, 1:9]


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
    }
    assert set(found) == {line_of(tag) for tag in expected}
    for tag, (operator, reason) in expected.items():
        rejection = found[line_of(tag)]
        assert rejection.operator == operator
        assert reason in rejection.reason
        assert "test_fusion.py" in rejection.line
    message = str(caught.value)
    assert message.startswith("9 unsupported operator(s): ")
    assert "\n" not in message


def test_patterns_and_their_absence():
    call = Call("aten.sort.default", (), {}, (1,))
    with pytest.raises(Reject, match="no such operation"):
        pattern_of(call)
    assert PATTERNS["aten.conv2d"].fuse.__name__ == "conv2d"


def test_a_table_keeps_one_row_per_step():
    graph = trace(build("channel constants"), TIMESTEPS, EXAMPLE)
    tables = [s.table for _, s in graph.of(StreamOp)] + [graph.op(graph.output).table]
    assert all(t.shape == (2, 4) and t.dtype == np.float64 for t in tables)
