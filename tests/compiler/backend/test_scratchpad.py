import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signmask.compiler.backend.scratchpad import Block, Scratchpad

WORDS = 64
# A positive number allocates that many words, a negative one frees a live block.
ACTIONS = st.lists(st.one_of(st.integers(1, 40), st.integers(-20, -1)), max_size=60)


@settings(deadline=None)
@given(ACTIONS)
def test_live_blocks_never_overlap(actions):
    pad, live, peak = Scratchpad("input", WORDS), [], 0
    for action in actions:
        used = {word for block in live for word in range(block.start, block.start + block.words)}
        if action < 0:
            if live:
                pad.free(live.pop(-action % len(live)))
            continue
        runs = "".join("x" if word in used else "." for word in range(WORDS)).split("x")
        largest = max(map(len, runs))
        assert pad.largest_gap() == largest
        block = pad.allocate(action)
        assert (block is None) == (largest < action), "refused though there is room, or the reverse"
        if block is not None:
            taken = set(range(block.start, block.start + block.words))
            assert block.space == "input" and block.words == action
            assert not taken & used and taken <= set(range(WORDS))
            live.append(block)
            peak = max(peak, sum(b.words for b in live))
    assert pad.peak == peak


def test_only_live_blocks_are_freed():
    pad = Scratchpad("input", 8)
    block = pad.allocate(8)
    pad.free(block)
    with pytest.raises(ValueError):
        pad.free(block)
    with pytest.raises(ValueError):
        pad.free(Block("input", 0, 1))


def test_parts_lie_inside():
    assert Block("input", 10, 6).part(2, 3) == Block("input", 12, 3)
