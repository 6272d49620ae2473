"""The host and the compiler's bias correction spread a sample over codes as the spec does."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from signmask.compiler.passes import bias_correction
from signmask.hw.spec import vectors
from signmask.runtime import host
from tests.tiny_networks import minimal

VECTORS = vectors.vectors("spread_code")
SCALE = 0.125


@pytest.mark.parametrize("spread", sorted({spread for (_, spread), _ in VECTORS}))
def test_both_ports_reproduce_the_vectors(spread):
    cases = [(value, codes) for (value, copies), codes in VECTORS if copies == spread]
    network, _ = minimal()
    zero = 3
    source = replace(
        network.sources[network.input],
        scale=SCALE, zero=zero, spread=spread, channels=spread, height=1, width=len(cases),
    )  # fmt: skip
    network = replace(network, sources={**network.sources, network.input: source})
    values = np.array([value for value, _ in cases], np.float64)
    sample = ((values - zero * spread) * SCALE)[None, None, None]
    expected = [codes for _, codes in cases]
    assert host.input_codes(network, sample)[0, 0].tolist() == expected
    found = bias_correction.input_codes(torch.from_numpy(sample), source)
    assert found[0, :, 0].T.tolist() == expected
