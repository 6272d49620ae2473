"""Emission of elementwise products: the codes of two encodings, multiplied into a code source."""

from __future__ import annotations

from signmask.compiler.backend.context import Chunk, Context
from signmask.compiler.backend.encodings import (
    EncodingEmitter,
    Piece,
    allocate_source,
    emit_source_chunk,
)
from signmask.compiler.backend.scratchpad import Block
from signmask.compiler.errors import CompileError
from signmask.hw.spec.network import Encoding, Product


def emit_product(context: Context, product: Product) -> None:
    """Both factors chunk by chunk, and the operand that is made of their product."""
    network = context.layout.network
    factors = [network.encodings[name] for name in (product.a, product.b)]
    a, b = (_Factor(context, encoding) for encoding in factors)
    context.operands[product.out] = allocate_source(context, product.out)
    for chunk in context.chunks(network.streams[factors[0].streams[0]]):
        codes, other = a.codes(chunk), b.codes(chunk)
        context.builder.emit(
            "MULTIPLY",
            {
                "accumulator": codes.start, "other": other.start, "words": codes.words,
                "zero_a": factors[0].zero, "zero_b": factors[1].zero,
                "multiplier": product.multiplier, "shift": product.shift,
                "zero": network.sources[product.out].zero, "output": codes.start,
            },
            reads=[codes, other],
            writes=[codes],
        )  # fmt: skip
        context.free(other)
        emit_source_chunk(context, product.out, chunk, codes)
        context.free(codes)
    for factor in (a, b):
        factor.emitter.finish()


class _Factor:
    """An encoding whose codes are multiplied."""

    def __init__(self, context: Context, encoding: Encoding) -> None:
        if len(encoding.streams) != 1 or encoding.token_norm:
            raise CompileError(
                f"factor '{encoding.name}' of a product joins streams or normalises tokens; put a "
                "layer between."
            )
        self.context, self.encoding = context, encoding
        self.emitter = EncodingEmitter(context, encoding)
        self.stream = context.layout.network.streams[encoding.streams[0]]

    def codes(self, chunk: Chunk) -> Block:
        """Codes of some planes, in accumulator words that the caller frees."""
        context = self.context
        with context.pinned([self.stream.name]):
            block, temporary = context.fetch(self.stream, chunk, raw=True)
            piece = Piece(chunk.first, chunk.planes, 0, context.layout.plane_words(self.stream))
            codes = self.emitter.encode(piece, block, context.lanes(self.stream.channels, chunk))
        if temporary:
            context.free(block)
        return codes
