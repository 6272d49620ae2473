"""Walk over the valid channels of concatenated tensors, image by image."""

from __future__ import annotations

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import MAX_PARTS

CHANNEL_BITS = 16


class ChannelWalk(wiring.Component):
    """One valid channel per cycle, and at least two cycles per plane, from the cycle after `start`.

    Static: images, parts, channels_i, groups (a divisor of the sum of channels).
    While `active`: `channel` (0 in the second cycle of a plane with one channel), its `lane`, the
    `valid_lanes` of the plane and the `part`; `plane_first`, `plane_last`: first and last cycle of
    a plane; `part_last`, `image_last`: the plane is the last of its part, of the image;
    `group_last`: the channel is the last of its group; `run_last`: last cycle of the walk.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.lanes = n = config.group
        bits = n.bit_length()
        super().__init__(
            {
                "start": In(1), "images": In(8), "parts": In(3), "groups": In(CHANNEL_BITS),
                **{f"channels_{i}": In(CHANNEL_BITS) for i in range(MAX_PARTS)},
                "active": Out(1), "channel": Out(1), "lane": Out(bits), "valid_lanes": Out(bits),
                "part": Out(2), "plane_first": Out(1), "plane_last": Out(1), "part_last": Out(1),
                "image_last": Out(1), "group_last": Out(1), "run_last": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Counters of lanes, of channels left in the part, of images and of the group's end."""
        m = Module()
        n = self.lanes
        channels = Array(getattr(self, f"channels_{i}") for i in range(MAX_PARTS))
        total = Signal(CHANNEL_BITS + 2)
        used = [Mux(i < self.parts, channels[i], 0) for i in range(MAX_PARTS)]
        m.d.comb += total.eq((used[0] + used[1]) + (used[2] + used[3]))
        left = Signal(CHANNEL_BITS)  # channels of the part from this plane on
        image = Signal(8)
        progress = Signal(CHANNEL_BITS + 2)  # channels done times groups, modulo all channels
        reached = Signal(CHANNEL_BITS + 3)
        bubble = Signal()
        last_lane = Signal()
        last_image = Signal()
        m.d.comb += [
            self.channel.eq(self.active & ~bubble),
            self.valid_lanes.eq(Mux(left < n, left, n)),
            last_lane.eq(self.lane == self.valid_lanes - 1),
            self.plane_first.eq((self.lane == 0) & ~bubble),
            self.plane_last.eq(bubble | (last_lane & (self.lane != 0))),
            self.part_last.eq(left <= n),
            self.image_last.eq(self.part_last & (self.part == self.parts - 1)),
            reached.eq(progress + self.groups),
            self.group_last.eq(reached == total),
            last_image.eq(image == self.images - 1),
            self.run_last.eq(self.active & self.plane_last & self.image_last & last_image),
        ]
        with m.If(self.start):
            m.d.sync += [
                self.active.eq(1), self.part.eq(0), self.lane.eq(0), left.eq(self.channels_0),
                image.eq(0), progress.eq(0), bubble.eq(0),
            ]  # fmt: skip
        with m.Elif(self.active):
            with m.If(self.channel):
                m.d.sync += progress.eq(Mux(self.group_last, 0, reached))
            with m.If(self.plane_last):
                m.d.sync += [bubble.eq(0), self.lane.eq(0), left.eq(left - n)]
                with m.If(self.image_last):
                    m.d.sync += [
                        self.part.eq(0), left.eq(self.channels_0), image.eq(image + 1),
                        self.active.eq(~last_image),
                    ]  # fmt: skip
                with m.Elif(self.part_last):
                    m.d.sync += [self.part.eq(self.part + 1), left.eq(channels[self.part + 1])]
            with m.Elif(last_lane):
                m.d.sync += bubble.eq(1)
            with m.Else():
                m.d.sync += self.lane.eq(self.lane + 1)
        return m
