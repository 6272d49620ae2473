"""Whatever the instruction bytes and the memory hold, the machine computes something or says in
one sentence which instruction is wrong."""

import warnings

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from signmask.hw.spec.isa import BOUNDARY_FIELDS, FORMATS, Instruction
from signmask.sim.errors import SimulationError
from tests.sim.programs import Bench


@st.composite
def instructions(draw):
    """Fields are small more often than not, so that many instructions execute."""
    name = draw(st.sampled_from(sorted(FORMATS)))
    fields = {}
    for field, bits, signed in FORMATS[name].fields:
        small = st.integers(0, min(8, (1 << bits - signed) - 1))
        low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
        fields[field] = draw(st.one_of(small, small, small, st.integers(low, high - 1)))
    return Instruction.decode(Instruction(name, fields).encode())


DESCRIPTORS = st.lists(
    st.one_of(st.integers(0, 4), st.integers(0, 4), st.integers(-(1 << 63), (1 << 63) - 1)),
    min_size=len(BOUNDARY_FIELDS), max_size=len(BOUNDARY_FIELDS),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(instructions(), min_size=1, max_size=3), DESCRIPTORS, st.integers(0, 99))
def test_no_other_error(program, descriptor, seed):
    bench = Bench(memory=1 << 14)
    rng = np.random.default_rng(seed)
    bench.core.memory.data[:] = rng.integers(0, 256, 1 << 14)
    bench.put(0, descriptor, "<i8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # arithmetic on garbage overflows
        try:
            timeline = bench.run(program)
        except SimulationError as error:
            message = str(error)
            assert message.endswith("; compile the program again.")
            assert "test instruction" in message
            assert "\n" not in message
        else:
            assert timeline.cycles > 0
