"""Products of a quantised network on int64 tensors."""

from __future__ import annotations

from torch import Tensor

from signmask.hw.spec.network import CodeSource, Encoding, Network, Product
from signmask.reference import arithmetic


class ProductOperator:
    """Elementwise product of the codes of two encodings."""

    def __init__(self, product: Product, a: Encoding, b: Encoding, out: CodeSource) -> None:
        if not a.channels == b.channels == out.channels:
            raise ValueError(
                f"product '{product.name}' multiplies {a.channels} and {b.channels} channels into "
                f"{out.channels}; compile the network again."
            )
        self.product, self.zeros, self.zero = product, (a.zero, b.zero), out.zero

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Codes of the product from those of its factors."""
        item = self.product
        return arithmetic.product_code(
            a - self.zeros[0], b - self.zeros[1], item.multiplier, item.shift, self.zero
        )


def product_operators(network: Network) -> dict[str, ProductOperator]:
    """The products of a network by name."""
    encodings, sources = network.encodings, network.sources
    return {
        name: ProductOperator(item, encodings[item.a], encodings[item.b], sources[item.out])
        for name, item in network.products.items()
    }
