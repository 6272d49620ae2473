import numpy as np
import pytest
import torch

from signmask.reference.tensors import TensorReader

CPU = torch.device("cpu")


def test_absent_and_misshaped_tensors_are_named():
    read = TensorReader({"w": np.zeros((2, 3), np.int64), "f": np.zeros(2)}, CPU)
    with pytest.raises(ValueError, match="tensor 'x' is missing"):
        read("x", 2)
    with pytest.raises(ValueError, match=r"tensor 'w' has shape \(2, 3\)"):
        read("w", 3, 3)
    with pytest.raises(ValueError, match="tensor 'f' is of type float64"):
        read("f", 2)
