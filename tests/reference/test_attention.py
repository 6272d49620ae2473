import numpy as np
import torch

from signmask.hw.spec import numerics
from signmask.hw.spec.network import Attention, CodeSource
from signmask.reference.attention import AttentionOperator
from signmask.reference.tensors import TensorReader

CPU = torch.device("cpu")


def test_attention_matches_scalar_functions():
    attention = Attention(
        "a", "q", "k", "v", "o", 2, 300, 12, 290, 12, 310, 12, 600, 17, 12000, 28
    )  # fmt: skip
    rng = np.random.default_rng(5)
    q, k, v = (rng.integers(-2500, 2500, (2, 1, n, 6)) for n in (4, 3, 3))
    out = CodeSource("o", 6, 2, 2, 1.0, 3)
    got = AttentionOperator(attention, out, len(q), TensorReader({}, CPU), CPU)(
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
