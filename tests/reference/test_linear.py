import numpy as np
import pytest
import torch

from signmask.hw.spec.network import CodeSource, Linear
from signmask.reference.linear import LinearOperator
from signmask.reference.tensors import TensorReader

CPU = torch.device("cpu")


def linear(height, width, channels, out, kernel=3, stride=1, padding=1, upsample=1, size=None):
    rows = (height * upsample + 2 * padding - kernel) // stride + 1
    columns = (width * upsample + 2 * padding - kernel) // stride + 1
    if size is not None:
        rows, columns = size
    return Linear(
        "l", "s", "", "w", kernel=kernel, stride=stride, padding=padding, upsample=upsample,
        out_channels=out, out_height=rows, out_width=columns,
    )  # fmt: skip


def naive(operands, weight, made, pad):
    """Sum over taps in Python integers."""
    batch, height, width, _ = operands.shape
    up, result = made.upsample, []
    for image in range(batch):
        for row in range(made.out_height):
            for column in range(made.out_width):
                total = np.zeros(len(weight), np.int64)
                for i in range(made.kernel):
                    for j in range(made.kernel):
                        r = row * made.stride + i - made.padding
                        c = column * made.stride + j - made.padding
                        inside = 0 <= r < height * up and 0 <= c < width * up
                        x = operands[image, r // up, c // up] if inside else pad
                        total += (weight[:, i, j] * x).sum(-1)
                result.append(total)
    return np.array(result).reshape(batch, made.out_height, made.out_width, -1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2},
        {"upsample": 2},
        {"kernel": 1, "padding": 0},
        {"kernel": 1, "padding": 0, "stride": 2},
        {"kernel": 5, "padding": 2},
        {"padding": 0},
        {"padding": 0, "stride": 2, "size": (3, 2)},  # one more row and column at the far edge
    ],
)
def test_linear_is_the_padded_sum(options):
    rng = np.random.default_rng(1)
    made = linear(6, 4, 7, 5, **options)
    weight = rng.integers(-127, 128, (5, made.kernel, made.kernel, 7)).astype(np.int8)
    operands = rng.integers(-128, 128, (2, 6, 4, 7))
    source = CodeSource("s", 7, 6, 4, 1.0, 0)
    operator = LinearOperator(made, source, TensorReader({"w": weight}, CPU))
    got = operator(torch.from_numpy(operands), -37, 128)
    assert np.array_equal(got.numpy(), naive(operands, weight.astype(np.int64), made, -37))


def test_large_sums_leave_float32():
    weight = np.full((1, 1, 1, 4096), 127, np.int8)
    operator = LinearOperator(
        linear(1, 1, 4096, 1, kernel=1, padding=0),
        CodeSource("s", 4096, 1, 1, 1.0, 0),
        TensorReader({"w": weight}, CPU),
    )
    operands = torch.full((1, 1, 1, 4096), 127)
    operands[..., 0] = 126
    assert int(operator(operands, 0, 128)) == 127 * (127 * 4096 - 1)  # odd and above 2**24


def test_impossible_output_size_is_refused():
    weight = np.zeros((5, 3, 3, 7), np.int8)
    with pytest.raises(ValueError, match="linear 'l' cannot make 9 positions of 6"):
        LinearOperator(
            linear(6, 6, 7, 5, size=(9, 9)),
            CodeSource("s", 7, 6, 6, 1.0, 0),
            TensorReader({"w": weight}, CPU),
        )
