"""Linear operators of a quantised network on int64 tensors: convolutions and matrix products.

A `LinearOperator` reads its tensors once, checks their shapes and keeps them on the device. It
holds no state between steps (`state.py` does).
"""

from __future__ import annotations

import torch
from torch import Tensor

from signmask.hw.spec.network import CodeSource, Encoding, Linear
from signmask.reference import arithmetic
from signmask.reference.tensors import TensorReader

FLOAT32_EXACT = 1 << 24  # integer sums up to here are exact in float32
FLOAT64_EXACT = 1 << 53


class LinearOperator:
    """Convolution or matrix product with exact float32 or float64 products (im2col and BLAS).

    float32 is used where max(sum of |weight|) * max|operand| <= 2**24: then every partial sum, in
    whatever order, is an exactly representable integer.
    """

    def __init__(self, linear: Linear, source: Encoding | CodeSource, read: TensorReader) -> None:
        self.linear = linear
        self.source = source
        k, channels = linear.kernel, source.channels
        groups, outputs = linear.groups, linear.out_channels
        if channels % groups or outputs % groups:
            raise ValueError(
                f"linear '{linear.name}' cannot split {channels} and {outputs} channels into "
                f"{groups} groups; compile the network again."
            )
        weight = read(linear.weight, outputs, k, k, channels // groups)
        self.magnitude = int(weight.abs().sum((1, 2, 3)).max())
        # (groups, kernel * kernel * inputs of a group, outputs of a group)
        matrix = weight.reshape(groups, outputs // groups, -1).transpose(1, 2).contiguous()
        self._matrices = {dtype: matrix.to(dtype) for dtype in (torch.float32, torch.float64)}
        self.multiplier = read(linear.multiplier, linear.out_channels) if linear.out else None
        self._check_size()

    def _check_size(self) -> None:
        linear, source = self.linear, self.source
        pointwise = linear.kernel == 1 and linear.stride == 1 and linear.upsample == 1
        inside, outside = source.height * source.width, linear.out_height * linear.out_width
        # Tokens are pixels in row order, so a product per position may change the view.
        self._view_only = pointwise and linear.padding == 0 and inside == outside
        if self._view_only:
            return
        for size, out in ((source.height, linear.out_height), (source.width, linear.out_width)):
            padded = size * linear.upsample + 2 * linear.padding
            # One row less at the far edge than symmetric padding reaches is what a stride leaves;
            # one more is the asymmetric padding of some strided convolutions.
            reach = (out - 1) * linear.stride + linear.kernel
            if out < 1 or reach - padded > 1 or padded - reach >= linear.stride:
                raise ValueError(
                    f"linear '{linear.name}' cannot make {out} positions of {size} with kernel "
                    f"{linear.kernel}, stride {linear.stride}, padding {linear.padding} and "
                    f"upsampling {linear.upsample}; compile the network again."
                )

    def __call__(self, operands: Tensor, pad: int, bound: int) -> Tensor:
        """int64 accumulators (batch, out_height, out_width, out_channels).

        operands: (batch, height, width, channels) with |operand| <= bound; positions outside the
        image count as `pad`.
        """
        linear = self.linear
        worst = self.magnitude * bound
        if worst > FLOAT64_EXACT:
            raise OverflowError(
                f"linear '{linear.name}' may sum to {worst}, beyond exact float64; split it."
            )
        dtype = torch.float32 if worst <= FLOAT32_EXACT else torch.float64
        batch, channels = operands.shape[0], operands.shape[-1]
        columns = operands.to(dtype)
        if not self._view_only:
            columns = self._columns(columns, pad)
        matrix, groups, taps = self._matrices[dtype], linear.groups, linear.kernel**2
        if groups == 1:
            product = columns.reshape(-1, taps * channels) @ matrix[0]
        else:
            split = columns.reshape(-1, taps, groups, channels // groups).permute(2, 0, 1, 3)
            product = (split.reshape(groups, -1, matrix.shape[1]) @ matrix).transpose(0, 1)
        shape = (batch, linear.out_height, linear.out_width, linear.out_channels)
        return product.to(torch.int64).reshape(shape)

    def _columns(self, image: Tensor, pad: int) -> Tensor:
        """Patches (batch, out_height, out_width, kernel, kernel, channels) as a strided view."""
        linear = self.linear
        if linear.upsample > 1:
            image = image.repeat_interleave(linear.upsample, 1)
            image = image.repeat_interleave(linear.upsample, 2)
        before, after = linear.padding, []
        for size, out in zip(image.shape[1:3], (linear.out_height, linear.out_width), strict=True):
            after.append((out - 1) * linear.stride + linear.kernel - before - size)
        if before or any(after):
            image = torch.nn.functional.pad(
                image, (0, 0, before, after[1], before, after[0]), value=float(pad)
            )
        n, row, column, channel = image.stride()
        return image.as_strided(
            (
                image.shape[0], linear.out_height, linear.out_width,
                linear.kernel, linear.kernel, image.shape[3],
            ),
            (n, row * linear.stride, column * linear.stride, row, column, channel),
        )  # fmt: skip

    def requantise(self, accumulators: Tensor) -> Tensor:
        """Accumulators on the grid of the stream that this operator writes."""
        if self.multiplier is None:
            raise ValueError(f"linear '{self.linear.name}' is the output; it has no grid.")
        return arithmetic.requantise(accumulators, self.multiplier, self.linear.shift)
