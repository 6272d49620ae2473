"""Byte-granular width converters against slices of a byte string (Amaranth's simulator)."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from signmask.hw.gearbox import ByteQueue, Packer

SIZES = [(16, 16), (16, 64), (32, 24), (8, 34)]


def simulate(component, *testbenches):
    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    for bench in testbenches:
        simulator.add_testbench(bench)
    simulator.run()


def beats_of(data, skip, beat_bytes, rng):
    """Beats of an area that starts at byte `skip`, with rubbish around it."""
    padded = rng.integers(0, 256, -(-(skip + len(data)) // beat_bytes) * beat_bytes, np.uint8)
    padded[skip : skip + len(data)] = list(data)
    return [padded[i : i + beat_bytes].tobytes() for i in range(0, len(padded), beat_bytes)]


@pytest.mark.parametrize(("beat_bytes", "chunk_bytes"), SIZES)
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_byte_queue(beat_bytes, chunk_bytes, stall):
    rng = np.random.default_rng(beat_bytes + chunk_bytes)
    dut = ByteQueue(beat_bytes, chunk_bytes)

    async def feed(ctx):
        for number in range(12):
            skip = int(rng.integers(beat_bytes))
            fixed = int(rng.integers(1, chunk_bytes + 1))
            sizes = [fixed] * int(rng.integers(1, 30))
            data = rng.bytes(sum(sizes))
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            ctx.set(dut.skip, skip)
            ctx.set(dut.count, beat_bytes - skip)
            queue = beats_of(data, skip, beat_bytes, rng)
            count, cycles, at, taken = len(queue), 0, 0, 0
            while taken < len(sizes):
                offered = bool(queue) and rng.random() >= stall
                ctx.set(dut.valid, offered)
                if offered:
                    ctx.set(dut.data, int.from_bytes(queue[0], "little"))
                ctx.set(dut.size, sizes[taken])
                take = bool(ctx.get(dut.available)) and rng.random() >= stall
                ctx.set(dut.take, take)
                if take:
                    chunk = ctx.get(dut.chunk).to_bytes(chunk_bytes, "little")[: sizes[taken]]
                    assert chunk == data[at : at + sizes[taken]], number
                    at, taken = at + sizes[taken], taken + 1
                accepted = offered and ctx.get(dut.ready)
                await ctx.tick()
                if accepted:
                    queue.pop(0)
                    ctx.set(dut.skip, 0)
                    ctx.set(dut.count, beat_bytes)
                cycles += 1
            ctx.set(dut.take, 0)
            ctx.set(dut.valid, 0)
            if not stall:
                first = (skip + fixed - 1) // beat_bytes
                assert cycles == 1 + max(count, len(sizes) + first)

    simulate(dut, feed)


@pytest.mark.parametrize(("beat_bytes", "chunk_bytes"), SIZES)
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_packer(beat_bytes, chunk_bytes, stall):
    rng = np.random.default_rng(beat_bytes + chunk_bytes)
    dut = Packer(chunk_bytes, beat_bytes)

    async def feed(ctx):
        for number in range(12):
            skip = int(rng.integers(beat_bytes))
            fixed = int(rng.integers(1, chunk_bytes + 1))
            count = int(rng.integers(1, 30))
            sizes = [fixed] * count if number % 2 else [fixed] * count + [0]
            data = rng.bytes(fixed * count)
            assert ctx.get(dut.drained)
            ctx.set(dut.restart, 1)
            ctx.set(dut.skip, skip)
            await ctx.tick()
            ctx.set(dut.restart, 0)
            written, at, sent, cycles = {}, 0, 0, 0
            beats, ended = 0, False
            while not (sent == len(sizes) and ctx.get(dut.drained)):
                offered = sent < len(sizes) and rng.random() >= stall
                ctx.set(dut.chunks.valid, offered)
                if offered:
                    size = sizes[sent]
                    rubbish = data[at : at + size] + rng.bytes(chunk_bytes - size)
                    ctx.set(dut.chunks.payload.data, int.from_bytes(rubbish, "little"))
                    ctx.set(dut.chunks.payload.size, size)
                    ctx.set(dut.chunks.payload.last, sent == len(sizes) - 1)
                ready = rng.random() >= stall
                ctx.set(dut.beats.ready, ready)
                if ready and ctx.get(dut.beats.valid):
                    assert not ended
                    beat = ctx.get(dut.beats.payload.data).to_bytes(beat_bytes, "little")
                    strb = ctx.get(dut.beats.payload.strb)
                    for byte in range(beat_bytes):
                        if strb >> byte & 1:
                            written[beats * beat_bytes + byte - skip] = beat[byte]
                        else:
                            assert beat[byte] == 0
                    beats += 1
                    ended = bool(ctx.get(dut.beats.payload.last))
                if offered and ctx.get(dut.chunks.ready):
                    at, sent = at + sizes[sent], sent + 1
                await ctx.tick()
                cycles += 1
            ctx.set(dut.chunks.valid, 0)
            ctx.set(dut.beats.ready, 0)
            assert written == dict(enumerate(data))
            if not stall and number % 2:
                total = -(-(skip + len(data)) // beat_bytes)
                ends = [-(-((j + 1) * beat_bytes - skip) // fixed) for j in range(total - 1)]
                moves = [*ends, count]
                assert ended and cycles == max(w + total - j for j, w in enumerate(moves))

    simulate(dut, feed)
