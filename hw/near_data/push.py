"""What a pass gives to a write buffer."""

from __future__ import annotations

from amaranth import Module, Signal, Value

from signmask.hw.near_data.control import Stage
from signmask.hw.near_data.write_buffer import WriteBuffer


class Push:
    """Append the low `size` bytes of `data` for the word in `stage`.

    `region`: the word starts a region; `close`: the frame ends one, if it is the word's last.
    """

    def __init__(self, stage: Stage, data: Value, size: Value, region: Value, close: Value) -> None:
        self.stage, self.data, self.size, self.region, self.close = (
            stage, data, size, region, close,
        )  # fmt: skip

    @classmethod
    def body(cls, stage: Stage, data: Value, size: Value) -> Push:
        """Of a stream with one region, written by the words of the body."""
        body = ~stage.gain
        return cls(
            stage, data, (size & body.replicate(len(size))), stage.head & stage.first & body,
            stage.last & body,
        )  # fmt: skip

    def connect(self, m: Module, buffer: WriteBuffer, when: Value, skip: Value) -> None:
        """Drive the buffer while `when`; the skip of a region's first beat is `skip`."""
        with m.If(when):
            m.d.comb += [
                buffer.push.eq(self.stage.valid), buffer.data.eq(self.data),
                buffer.size.eq(self.size), buffer.restart.eq(self.region), buffer.skip.eq(skip),
                buffer.last.eq(self.stage.tail), buffer.flush.eq(self.close),
                buffer.slot.eq(self.stage.out_slot),
            ]  # fmt: skip


def gated(value: Value, when: Value) -> Signal | Value:
    """`value`, or 0 unless `when`."""
    return value & when.replicate(len(value))
