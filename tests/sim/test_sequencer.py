"""Queues, tokens and cycles of small hand-written programs."""

import numpy as np
import pytest

from signmask.hw.spec import timing
from signmask.sim.core import Cost
from signmask.sim.errors import SimulationError
from tests.sim.programs import Bench, instruction

WORDS = 4


def load(address=0, **tokens):
    return instruction(
        "LOAD_RAW", address=address, words=WORDS, entry_bytes=4, accumulator=0, kind=2, **tokens
    )


def quantise(**tokens):
    return instruction("QUANTISE", accumulator=0, words=WORDS, multiplier=1, shift=1, **tokens)


def bench():
    made = Bench()
    made.put(0, np.full((WORDS, 16), 20), "<i4")
    return made


def test_cycles_of_two_queues_computed_by_hand():
    b = bench()
    starts = {}
    timeline = b.run(
        [load(signals=["VECTOR"]), load(1024), quantise(waits=["LOAD"])],
        check_races=False,
        trace=lambda index, _, start, done: starts.__setitem__(index, (start, done)),
    )
    # 32-byte instructions at 16 bytes per cycle behind 10 cycles of latency can start in 14, 16
    # and 18.
    # A load of 4 words of 64 bytes takes 16 beats and is done 10 + 5 cycles later; the next follows
    # its beats; the vector unit waits for the first, then takes a word per cycle and its depth.
    first, second = (14, 14 + 16 + 15), (30, 30 + 16 + 15)
    vector = (45, 45 + WORDS + timing.QUANTISE_FILL)
    assert starts == {0: first, 1: second, 2: vector}
    assert timeline.cycles == max(second[1], vector[1]) == 61
    assert timeline.busy == {
        "load": 32, "array": 0, "vector": WORDS + timing.QUANTISE_FILL, "store": 0, "engine": 0,
    }  # fmt: skip
    # The first load's data, 20, halved; the second load started before and wrote zeros.
    assert not b.core.accumulator.data[:WORDS].any()


def dummies(costs, **config):
    """(start, done) of instructions (name, occupied, done) without tokens on dummy units."""
    made = Bench(**config)
    pending = iter(costs)
    units = dict.fromkeys(made.units, lambda fields: Cost(*next(pending)[1:]))
    made.units = units
    seen = {}
    made.run(
        [instruction(name) for name, _, _ in costs],
        trace=lambda index, _, start, done: seen.__setitem__(index, (start, done)),
    )
    return [seen[i] for i in range(len(costs))]


@pytest.mark.parametrize(
    ("width", "starts"), [(16, [14, 16, 18]), (32, [13, 14, 15]), (64, [13, 14, 15])]
)
def test_one_instruction_per_cycle_at_most(width, starts):
    given = [(name, 5, 5) for name in ("COPY", "LOAD_RAW", "STORE_RAW")]
    assert [start for start, _ in dummies(given, axi_bytes=width)] == starts


def test_a_full_queue_holds_up_all_others():
    given = [("COPY", 50, 50), ("COPY", 50, 50), ("COPY", 50, 50), ("STORE_RAW", 1, 1)]
    # Two COPY fit their queue; the first leaves it when it starts in cycle 14, long before the
    # third arrives. With one place, the second enters in 15, the third in 65 behind it; the
    # store's last beat waits on the bus until then.
    assert [s for s, _ in dummies(given, queue_depth=2)] == [14, 64, 114, 20]
    assert [s for s, _ in dummies(given, queue_depth=1)] == [14, 64, 114, 67]


def test_instructions_in_flight_are_bounded():
    count = timing.IN_FLIGHT + 2
    seen = dummies([("LOAD_RAW", 1, 5000)] * count, axi_bytes=32, queue_depth=512)
    assert [s for s, _ in seen[:-2]] == list(range(13, 13 + timing.IN_FLIGHT))
    assert [s for s, _ in seen[-2:]] == [5013, 5014]


def test_a_token_orders_data():
    b = bench()
    b.run([load(signals=["VECTOR"]), quantise(waits=["LOAD"])])
    assert (b.core.accumulator.data[:WORDS] == 10).all()


def test_a_missing_token_changes_data():
    b = bench()
    b.core.accumulator.data[:WORDS] = 6
    # The vector unit is handed its instruction first and does not wait.
    b.run([quantise(), load()], check_races=False)
    assert (b.core.accumulator.data[:WORDS] == 20).all()
    b = bench()
    b.run([quantise(waits=["LOAD"]), load(signals=["VECTOR"])])
    assert (b.core.accumulator.data[:WORDS] == 10).all()


def test_a_missing_token_is_found():
    with pytest.raises(SimulationError, match=r"instruction 1 \(QUANTISE\).*LOAD_RAW.*accumulator"):
        bench().run([load(), quantise()])


def test_accesses_of_one_queue_do_not_race():
    bench().run([load(), load()])


def test_deadlock_names_the_instructions():
    message = r"^deadlock: test instruction 0 \(LOAD_RAW\) waits for VECTOR, test instruction 1 "
    with pytest.raises(SimulationError, match=message):
        bench().run([load(waits=["VECTOR"], signals=["VECTOR"]),
                     quantise(waits=["LOAD"], signals=["LOAD"])])  # fmt: skip


def test_a_token_left_over_is_found():
    with pytest.raises(SimulationError, match="leaves 1 tokens from LOAD to VECTOR"):
        bench().run([load(signals=["VECTOR"])])


def test_tokens_are_consumed():
    with pytest.raises(SimulationError, match=r"deadlock: test instruction 2"):
        bench().run([load(signals=["VECTOR"]), quantise(waits=["LOAD"]), quantise(waits=["LOAD"])])


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (instruction("LOAD_RAW", address=1 << 16, words=1, entry_bytes=4),
         r"\(LOAD_RAW\) reads memory bytes 65536\.\.65599 of 65536"),
        (instruction("LOAD_RAW", accumulator=510, words=4, entry_bytes=4),
         r"\(LOAD_RAW\) writes accumulator words 510\.\.513 of 512"),
        (instruction("STORE_RAW", address=(1 << 16) - 8, words=1, entry_bytes=1),
         r"\(STORE_RAW\) writes memory bytes"),
        (instruction("REQUANTISE", words=3, planes=2, images=1), "3 words for 2 planes"),
        (instruction("SOFTMAX"), "size of 0"),
        (instruction("MATMUL"), "size of 0"),
        (instruction("PREPARE", descriptor=1 << 30), r"\(PREPARE\) reads memory bytes 1073741824"),
    ],
)  # fmt: skip
def test_accesses_outside_name_instruction_and_address(bad, what):
    with pytest.raises(SimulationError, match=f"^test instruction 0 .*{what}.*compile the program"):
        bench().run([bad])
