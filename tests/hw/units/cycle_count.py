"""Length of an instruction, counted in hardware."""

from amaranth import Signal


def count_cycles(m, stream, done, cycles):
    """`cycles` counts from the handshake of an instruction stream to `done`, both included.

    Returns the signal of the handshake.
    """
    counting, start = Signal(), Signal()
    m.d.comb += start.eq(stream.valid & stream.ready)
    with m.If(start):
        m.d.sync += [counting.eq(1), cycles.eq(1)]
    with m.Elif(counting):
        m.d.sync += cycles.eq(cycles + 1)
    with m.If(done):
        m.d.sync += counting.eq(0)
    return start
