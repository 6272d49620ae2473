"""What the verifier refuses of a lowered network."""

from dataclasses import replace

import numpy as np
import pytest

from signmask.compiler.verifier import VerifierError, verify_network
from tests.tiny_networks import NETWORKS, minimal


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_pass(name):
    verify_network(*NETWORKS[name]())


def test_a_contradiction_names_its_place():
    network, tensors = minimal()
    with pytest.raises(VerifierError, match=r"network\.order: does not name every operator"):
        verify_network(replace(network, order=network.order[:-1]), tensors)


@pytest.mark.parametrize(
    ("part", "change", "problem"),
    [
        ("multiplier", lambda x: np.full_like(x, 1 << 15), "exceeds 15 bits"),
        ("weight", lambda x: x.astype(np.int16), "not int8"),
    ],
)
def test_types_of_a_linear(part, change, problem):
    network, tensors = minimal()
    linear = next(linear for linear in network.linears.values() if linear.out)
    name = getattr(linear, part)
    with pytest.raises(VerifierError, match=f"'{linear.name}'.*{problem}"):
        verify_network(network, {**tensors, name: change(tensors[name])})
