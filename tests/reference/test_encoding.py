import numpy as np
import pytest
import torch

from signmask.hw.spec import numerics
from signmask.hw.spec.network import Knobs
from signmask.reference.encoding import EncodingOperator
from signmask.reference.tensors import TensorReader
from tests.network_builder import NetworkBuilder

CPU = torch.device("cpu")


@pytest.mark.parametrize("stat_shift", [0, 3])
def test_norm_matches_scalar_functions(stat_shift):
    builder = NetworkBuilder("n", 3, 4, Knobs())
    builder.source("input", 3, 2, 2)
    builder.stream("a", 4, 2, 2)
    builder.stream("b", 8, 2, 2)
    builder.encoding("e", ("a", "b"), groups=3, activation="silu", stat_shift=stat_shift)
    encoding, tensors = builder.encodings["e"], builder.tensors
    norm = encoding.norm
    operator = EncodingOperator(encoding, 4, 1, TensorReader(tensors, CPU))
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
