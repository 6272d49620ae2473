import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signmask.hw.spec.memory_map import ALIGNMENT, MemoryMap


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), max_size=20))
def test_regions_are_aligned_apart_and_round_trip(sizes):
    memory = MemoryMap()
    regions = [memory.allocate(f"r{i}", "state", size) for i, size in enumerate(sizes)]
    for before, region in zip([None, *regions], regions, strict=False):
        assert region.address % ALIGNMENT == 0
        assert before is None or before.address + before.size <= region.address
        assert region.name in memory and memory[region.name] == region
    assert list(memory) == regions
    assert memory.end % ALIGNMENT == 0
    assert memory.end >= sum(sizes) and memory.end - sum(sizes) < ALIGNMENT * max(1, len(sizes))
    again = MemoryMap.from_json(json.loads(json.dumps(memory.to_json())))
    assert list(again) == regions


def test_names_are_unique():
    memory = MemoryMap()
    memory.allocate("a", "state", 1)
    with pytest.raises(KeyError, match="a"):
        memory.allocate("a", "state", 1)
    assert "b" not in memory
