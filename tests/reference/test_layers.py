import numpy as np
import pytest
import torch

from signmask.hw.spec import numerics
from signmask.hw.spec.network import Attention, CodeSource, Linear
from signmask.reference.layers import (
    AttentionOperator,
    DeltaEncoder,
    EncodingOperator,
    LinearOperator,
    tensor_reader,
)
from tests import tiny_networks

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
    operator = LinearOperator(made, source, tensor_reader({"w": weight}, CPU))
    got = operator(torch.from_numpy(operands), -37, 128)
    assert np.array_equal(got.numpy(), naive(operands, weight.astype(np.int64), made, -37))


def test_large_sums_leave_float32():
    weight = np.full((1, 1, 1, 4096), 127, np.int8)
    operator = LinearOperator(
        linear(1, 1, 4096, 1, kernel=1, padding=0),
        CodeSource("s", 4096, 1, 1, 1.0, 0),
        tensor_reader({"w": weight}, CPU),
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
            tensor_reader({"w": weight}, CPU),
        )


@pytest.mark.parametrize("stat_shift", [0, 3])
def test_norm_matches_scalar_functions(stat_shift):
    builder = tiny_networks.NetworkBuilder("n", 3, 4, tiny_networks.Knobs())
    builder.source("input", 3, 2, 2)
    builder.stream("a", 4, 2, 2)
    builder.stream("b", 8, 2, 2)
    builder.encoding("e", ("a", "b"), groups=3, activation="silu", stat_shift=stat_shift)
    encoding, tensors = builder.encodings["e"], builder.tensors
    norm = encoding.norm
    operator = EncodingOperator(encoding, 4, tensor_reader(tensors, CPU))
    y = np.random.default_rng(0).integers(-2000, 3000, (2, 2, 2, 12))
    live, (last, now) = (
        operator.live(torch.from_numpy(y), 1),
        operator.trend(torch.from_numpy(y), 1, 3),
    )
    codes = operator.encode(torch.from_numpy(y), 1)
    for image in range(2):
        for channel in range(12):
            group = channel // 4
            members = [int(v) >> stat_shift for v in y[image, :, :, 4 * group : 4 * group + 4].flat]
            moments = numerics.group_moments(
                sum(members), sum(v * v for v in members), norm.count, norm.epsilon
            )
            table = {n: tensors[getattr(norm, n)].tolist() for n in (
                "gain", "offset", "cal_mean", "cal_inverse", "cal_sigma")}  # fmt: skip
            layer = (
                table["gain"][channel],
                table["offset"][channel],
                norm.gain_shift,
                norm.mean_shift,
            )
            a, b = numerics.channel_constants(*moments, *layer)
            for constants in (live, last):
                assert (int(constants.a[image, 0, 0, channel]),
                        int(constants.b[image, 0, 0, channel])) == (a, b)  # fmt: skip
            mean, r = numerics.move_by_trend(
                *moments[:2], table["cal_mean"][1][group], table["cal_mean"][3][group],
                table["cal_inverse"][3][group], table["cal_sigma"][1][group],
            )  # fmt: skip
            moved = numerics.channel_constants(mean, r, moments[2], *layer)
            assert (int(now.a[image, 0, 0, channel]), int(now.b[image, 0, 0, channel])) == moved
            z = numerics.pre_activation(int(y[image, 1, 0, channel]), a, b, encoding.z_shift)
            segment = numerics.segment_index(z, tensors[encoding.breaks].tolist())
            assert int(codes.segments[image, 1, 0, channel]) == segment
            assert int(codes.codes[image, 1, 0, channel]) == numerics.activation_code(
                z, int(tensors[encoding.slopes][segment]),
                int(tensors[encoding.intercepts][segment]), encoding.code_shift,
                encoding.low, encoding.high,
            )  # fmt: skip


def test_attention_matches_scalar_functions():
    attention = Attention(
        "a", "q", "k", "v", "o", 2, 300, 12, 290, 12, 310, 12, 600, 17, 12000, 28
    )  # fmt: skip
    rng = np.random.default_rng(5)
    q, k, v = (rng.integers(-2500, 2500, (2, 1, n, 6)) for n in (4, 3, 3))
    out = CodeSource("o", 6, 2, 2, 1.0, 3)
    got = AttentionOperator(attention, out, len(q), tensor_reader({}, CPU), CPU)(
        *(torch.from_numpy(x) for x in (q, k, v))
    )
    table = numerics.exponential_table()

    def code(y, multiplier):
        return numerics.saturate(numerics.requantise(int(y), multiplier, 12), 8)

    for image in range(2):
        for token in range(4):
            for channel in range(6):
                first = channel // 3 * 3
                scores = [
                    sum(
                        code(q[image, 0, token, c], 300) * code(k[image, 0, key, c], 290)
                        for c in range(first, first + 3)
                    )
                    for key in range(3)
                ]
                weights, reciprocal = numerics.softmax_row(scores, 600, 17, table)
                product = sum(
                    w * code(v[image, 0, key, channel], 310) for key, w in enumerate(weights)
                )
                want = numerics.attention_code(product, reciprocal, 12000, 28, 3)
                assert int(got[image, token // 2, token % 2, channel]) == want


def test_groups_start_anew_with_every_stream():
    encoder = DeltaEncoder((3, 5), group=4, inlier_bits=3, full_lanes=1, spill=False)
    sent = encoder(torch.tensor([[9, 9, 1, 9, -9, -9, 0, -9]]))
    # Layout: 9 9 1 . | 9 -9 -9 0 | -9 . . .
    assert sent.deltas.tolist() == [[9, 3, 1, 9, -4, -4, 0, -9]]
    assert encoder.count(sent) == {
        "zero": 1, "inlier": 4, "outlier": 3, "clipped": 3, "elements": 8, "segment_changes": 0,
    }  # fmt: skip


def test_absent_and_misshaped_tensors_are_named():
    read = tensor_reader({"w": np.zeros((2, 3), np.int64), "f": np.zeros(2)}, CPU)
    with pytest.raises(ValueError, match="tensor 'x' is missing"):
        read("x", 2)
    with pytest.raises(ValueError, match=r"tensor 'w' has shape \(2, 3\)"):
        read("w", 3, 3)
    with pytest.raises(ValueError, match="tensor 'f' is of type float64"):
        read("f", 2)
