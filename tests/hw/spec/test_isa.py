"""Instructions survive encoding and assembler text; what does not fit is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signmask.hw.spec.isa import (
    BOUNDARY_FIELDS,
    FORMATS,
    INSTRUCTION_BYTES,
    NAMES,
    Instruction,
    IsaError,
    Queue,
    decode_all,
    disassemble,
    field_column,
    pack_descriptor,
    set_signal,
    unpack_descriptor,
)
from tests.assembler import assemble, parse

QUEUES = st.frozensets(st.sampled_from(list(Queue)))


def limits(bits, signed):
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


@st.composite
def instructions(draw, name=None):
    name = name or draw(st.sampled_from(sorted(FORMATS)))
    fields = {
        field: draw(st.integers(*limits(bits, signed)))
        for field, bits, signed in FORMATS[name].fields
    }
    return Instruction(name, fields, draw(QUEUES), draw(QUEUES))


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None)
@given(data=st.data())
def test_round_trips(name, data):
    instruction = data.draw(instructions(name))
    encoded = instruction.encode()
    assert len(encoded) == INSTRUCTION_BYTES
    assert Instruction.decode(encoded) == instruction
    assert parse(instruction.text()) == instruction


@settings(deadline=None)
@given(st.lists(instructions(), max_size=6))
def test_programs_round_trip(program):
    code = assemble(program)
    assert code.shape == (len(program), INSTRUCTION_BYTES) and code.dtype == np.uint8
    assert decode_all(code) == program
    assert [parse(line) for line in disassemble(code)] == program


@pytest.mark.parametrize("name", FORMATS)
def test_fields_keep_to_their_own_bits(name):
    """One field at its extremes leaves all others at 0."""
    layout = FORMATS[name].fields
    for field, bits, signed in layout:
        for value in limits(bits, signed):
            fields = {other: 0 for other, _, _ in layout} | {field: value}
            assert Instruction.decode(Instruction(name, fields).encode()).fields == fields


@pytest.mark.parametrize("name", FORMATS)
def test_out_of_range_is_refused(name):
    layout = FORMATS[name].fields
    for field, bits, signed in layout:
        low, high = limits(bits, signed)
        for value in (low - 1, high + 1):
            fields = {other: 0 for other, _, _ in layout} | {field: value}
            with pytest.raises(IsaError, match=rf"{name}\.{field} = {value} is outside"):
                Instruction(name, fields).encode()
    zeros = {field: 0 for field, _, _ in layout}
    with pytest.raises(IsaError, match="has no field lasers"):
        Instruction(name, zeros | {"lasers": 1}).encode()
    less = dict(list(zeros.items())[1:])
    with pytest.raises(IsaError, match=f"lacks field {layout[0][0]}"):
        Instruction(name, less).encode()


def test_unknown_opcodes_and_partial_instructions():
    for opcode in set(range(256)) - set(NAMES):
        with pytest.raises(IsaError, match=f"opcode {opcode} is unknown"):
            Instruction.decode(bytes([opcode]) + bytes(INSTRUCTION_BYTES - 1))
    with pytest.raises(IsaError, match="33 bytes"):
        decode_all(np.zeros(33, np.uint8))


@pytest.mark.parametrize(
    "line",
    [
        "", "NOTHING a=1", "COPY words", "COPY words=many", "COPY words=1=2", "COPY ; wait NOWHERE",
        "COPY ; halt LOAD", "COPY ;",
    ],
)  # fmt: skip
def test_text_that_is_no_instruction(line):
    with pytest.raises(IsaError):
        parse(line)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(BOUNDARY_FIELDS), st.integers(-(1 << 63), (1 << 63) - 1)))
def test_descriptors_round_trip(values):
    packed = pack_descriptor(BOUNDARY_FIELDS, values)
    expected = {name: values.get(name, 0) for name in BOUNDARY_FIELDS}
    assert unpack_descriptor(BOUNDARY_FIELDS, packed) == expected


def test_descriptors_refuse_unknown_names():
    with pytest.raises(IsaError, match="lasers"):
        pack_descriptor(BOUNDARY_FIELDS, {"lasers": 1})


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None)
@given(data=st.data())
def test_columns_are_the_fields(name, data):
    program = data.draw(st.lists(instructions(name), min_size=1, max_size=5))
    code = assemble(program)
    for item, _, _ in FORMATS[name].fields:
        assert field_column(code, name, item).tolist() == [i.fields[item] for i in program]
    with pytest.raises(IsaError, match="no field elsewhere"):
        field_column(code, name, "elsewhere")


@settings(deadline=None)
@given(st.lists(instructions(), min_size=1, max_size=5), st.data())
def test_a_signal_set_later_is_that_of_the_instruction(program, data):
    index, queue = data.draw(st.integers(0, len(program) - 1)), data.draw(st.sampled_from(Queue))
    code = bytearray(assemble(program).tobytes())
    set_signal(code, index, queue)
    old = program[index]
    program[index] = Instruction(old.name, old.fields, old.waits, old.signals | {queue})
    assert code == assemble(program).tobytes()
