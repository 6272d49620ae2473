"""Tokens order every pair of instructions that touch the same words, whatever the timing."""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from signmask.compiler.backend.builder import ProgramBuilder
from signmask.compiler.backend.scratchpad import Block
from signmask.hw.spec.isa import FORMATS, Queue, decode_all

# One opcode of each queue.
OPCODES = ("LOAD_RAW", "MATMUL", "COPY", "STORE_RAW", "READ")
BLOCKS = st.builds(Block, st.sampled_from(["a", "b"]), st.integers(0, 7), st.integers(1, 4))
ACCESSES = st.lists(BLOCKS, max_size=3)
PROGRAMS = st.lists(st.tuples(st.sampled_from(OPCODES), ACCESSES, ACCESSES), max_size=25)


def overlap(some, others):
    return any(
        one.space == two.space
        and one.start < two.start + two.words
        and two.start < one.start + one.words
        for one in some
        for two in others
    )


def dependencies(program):
    """Pairs (earlier, later) that must not change places, from the definition."""
    return [
        (i, j)
        for j, (_, reads, writes) in enumerate(program)
        for i, (_, earlier_reads, earlier_writes) in enumerate(program[:j])
        if overlap(earlier_writes, [*reads, *writes]) or overlap(earlier_reads, writes)
    ]


def build(program):
    builder = ProgramBuilder()
    for name, reads, writes in program:
        fields = {item: 0 for item, _, _ in FORMATS[name].fields}
        builder.emit(name, fields, reads, writes)
    return decode_all(builder.assembled().code)


def execute(instructions, choice):
    """Start and end of each instruction under a random legal timing: a queue starts its head once
    the tokens are there, and may overlap with its predecessor, but finishes in order."""
    queues = {queue: [] for queue in Queue}
    for index, instruction in enumerate(instructions):
        queues[instruction.queue].append(index)
    tokens, clock = Counter(), 0
    started, ended = {}, {}
    running = {queue: [] for queue in Queue}
    while len(ended) < len(instructions):
        moves = []
        for queue, waiting in queues.items():
            # An instruction starts when its predecessor in the queue is done, as in-order units do.
            if waiting and not running[queue]:
                waits = instructions[waiting[0]].waits
                if all(tokens[source, queue] for source in waits):
                    moves.append(("start", queue))
            if running[queue]:
                moves.append(("end", queue))
        assert moves, "deadlock"
        what, queue = choice.choice(moves)
        clock += 1
        if what == "start":
            index = queues[queue].pop(0)
            for source in instructions[index].waits:
                tokens[source, queue] -= 1
            started[index] = clock
            running[queue].append(index)
        else:
            index = running[queue].pop(0)
            ended[index] = clock
            for target in instructions[index].signals:
                tokens[queue, target] += 1
    assert not +tokens, "tokens are left over for the next step"
    return started, ended


@settings(deadline=None)
@given(PROGRAMS, st.integers(0, 1 << 32))
def test_dependencies_hold_in_every_order(program, seed):
    instructions = build(program)
    wanted = dependencies(program)
    choice = random.Random(seed)
    for _ in range(5):
        started, ended = execute(instructions, choice)
        for earlier, later in wanted:
            assert ended[earlier] < started[later], (earlier, later)


@settings(deadline=None)
@given(PROGRAMS)
def test_no_queue_waits_for_itself_and_signals_meet_waits(program):
    pairs = Counter()
    for instruction in build(program):
        assert instruction.queue not in instruction.waits | instruction.signals
        for source in instruction.waits:
            pairs[source, instruction.queue] -= 1
        for target in instruction.signals:
            pairs[instruction.queue, target] += 1
    assert not any(pairs.values())


def test_independent_instructions_do_not_wait():
    program = [(name, [Block(name, 0, 4)], [Block(name, 4, 4)]) for name in OPCODES]
    assert all(not i.waits and not i.signals for i in build(program))


def test_the_simulator_sees_a_missing_token_as_a_broken_order():
    """The check above can fail: without its tokens, some order breaks a dependency."""
    program = [("LOAD_RAW", [], [Block("a", 0, 4)]), ("COPY", [Block("a", 0, 4)], [])]
    bare = [type(i)(i.name, i.fields) for i in build(program)]
    broken = 0
    for seed in range(20):
        started, ended = execute(bare, random.Random(seed))
        broken += ended[0] > started[1]
    assert broken
