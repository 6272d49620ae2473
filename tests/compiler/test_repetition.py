"""Operators on repeated rows give what they give on all of them, from one copy."""

import pytest
import torch

from signmask.compiler.graph import Call, Ref, substitute
from signmask.compiler.passes.repetition import evaluate, fold, one

ATEN = torch.ops.aten
ROWS = 1000


def call(target, *args):
    return Call(target, args, {}, ())


def repeated(*shape):
    """A tensor that lies in memory as a whole though its first axis repeats."""
    torch.manual_seed(0)
    return torch.randn(1, *shape).repeat(ROWS, *([1] * len(shape)))


@pytest.mark.parametrize(
    ("target", "args"),
    [
        (ATEN.add.Tensor, (Ref("x"), Ref("table"))),
        (ATEN.silu.default, (Ref("x"),)),
        (ATEN.linear.default, (Ref("x"), Ref("weight"), Ref("bias"))),
        (ATEN.view.default, (Ref("x"), [ROWS, 3, 4])),
        (ATEN.view.default, (Ref("x"), [ROWS * 12])),
        (ATEN.cat.default, ([Ref("x"), Ref("x")], 1)),
        (ATEN.mul.Tensor, (Ref("x"), Ref("rows"))),
    ],
)
def test_results_are_those_of_the_whole_tensors(target, args):
    values = {
        "x": repeated(12), "table": torch.randn(12), "weight": torch.randn(5, 12),
        "bias": torch.randn(5), "rows": torch.randn(ROWS, 12),
    }  # fmt: skip
    expected = target(*substitute(args, values.__getitem__))
    folded = {name: fold(value) for name, value in values.items()}
    assert one(folded["x"]).shape == (1, 12)
    result = evaluate(call(target, *args), folded.__getitem__)
    assert result.shape == expected.shape
    assert torch.allclose(result, expected, rtol=1e-6, atol=1e-6)


def test_elementwise_operators_and_linear_keep_one_copy():
    values = {"x": fold(repeated(12)), "weight": torch.randn(5, 12)}
    for target, args in (
        (ATEN.silu.default, (Ref("x"),)),
        (ATEN.linear.default, (Ref("x"), Ref("weight"))),
    ):
        result = evaluate(call(target, *args), values.__getitem__)
        assert result.untyped_storage().nbytes() < 100


def test_lists_of_parts_pass():
    x = fold(repeated(12))
    parts = evaluate(call(ATEN.chunk.default, Ref("x"), 3, 1), {"x": x}.__getitem__)
    assert [tuple(part.shape) for part in parts] == [(ROWS, 4)] * 3


def test_rounding_is_no_difference_and_a_difference_is_none():
    x = repeated(12)
    x[7] *= 1 + 2e-7
    assert one(fold(x)).shape == (1, 12)
    x[7] *= 1 + 1e-5
    assert fold(x) is x
    numbers = torch.arange(3).repeat(ROWS, 1) + (1 << 40)
    assert one(fold(numbers)).shape == (1, 3)
    numbers[5] += 1
    assert fold(numbers) is numbers
    mask = torch.tensor([True, False]).repeat(ROWS, 1)
    assert one(fold(mask)).shape == (1, 2)


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_what_is_not_finite_stays(odd):
    x = repeated(12)
    x[3, 4] = odd
    assert fold(x) is x
