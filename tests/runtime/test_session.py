import hashlib
from dataclasses import replace

import numpy as np
import pytest

from signmask.hw.spec.step import StepResult
from signmask.runtime.baseline import dense_key, sample_dense
from signmask.runtime.errors import RunError
from signmask.runtime.session import RefreshPlan, Session
from tests.runtime.programs import DDPM, SCHEDULE, tiny_program


class Recorder:
    """A backend that passes on to another one and keeps what it returned."""

    def __init__(self, backend):
        self.backend, self.calls = backend, []

    def dense_step(self, index, codes):
        return self._keep("dense", index, self.backend.dense_step(index, codes))

    def delta_step(self, index, codes):
        return self._keep("delta", index, self.backend.delta_step(index, codes))

    def _keep(self, kind, index, result):
        self.calls.append((kind, index, result))
        return result


@pytest.mark.parametrize("schedule", [SCHEDULE, DDPM])
def test_digests_do_not_depend_on_the_batch(schedule):
    runs = [
        Session(tiny_program(batch=batch, schedule=schedule)).sample(5, seed=3)
        for batch in (1, 2, 5)
    ]
    assert len({run.output_sha256 for run in runs}) == 1
    assert all(np.array_equal(run.images, runs[0].images) for run in runs)


def test_runs_repeat_and_seeds_differ():
    session = Session(tiny_program())
    first = session.sample(3, seed=1)
    assert session.sample(3, seed=1).digests == first.digests
    assert set(session.sample(3, seed=2).digests).isdisjoint(first.digests)


def test_digest_covers_the_accumulators_of_every_step():
    program = tiny_program(batch=1)
    recorder = Recorder(Session(program).backend)
    result = Session(program, recorder).sample(1)
    steps = (r.accumulators.astype("<i4").tobytes() for _, _, r in recorder.calls)
    digest = hashlib.sha256(b"".join(steps)).digest()
    assert result.digests == (digest.hex(),)
    assert result.output_sha256 == hashlib.sha256(digest).hexdigest()


def test_first_step_is_dense_and_refreshes_follow():
    program = tiny_program(refresh_every=2, batch=1)
    result = Session(program).sample(1)
    assert [step.dense for step in result.steps] == [1, 0, 1, 0, 1]
    assert [step.dense for step in Session(tiny_program(batch=1)).sample(1).steps] == [
        1,
        0,
        0,
        0,
        0,
    ]


def test_drift_refreshes_after_a_step_with_many_changes():
    program = tiny_program(batch=1, refresh_drift=0.5)
    encodings = program.network.encodings.values()
    segmented = [e for e in encodings if e.mode == "mask" and program.tensors[e.breaks].size]
    elements = sum(e.channels * e.height * e.width for e in segmented)
    plan = RefreshPlan(program)
    plan.executed(True, {})
    for changes, dense in ((elements // 2, False), (elements // 2 + 1, True)):
        plan.executed(False, {segmented[0].name: {"segment_changes": changes}})
        assert plan.dense(2) is dense


def test_drift_is_of_encodings_in_a_mask_alone():
    program = tiny_program(batch=1, refresh_drift=0.5)
    encodings = dict(program.network.encodings)
    segmented = [n for n, e in encodings.items() if program.tensors[e.breaks].size]
    kept, *others = segmented
    assert others
    encodings |= {n: replace(encodings[n], mode="restore") for n in others}
    program = replace(program, network=replace(program.network, encodings=encodings))
    shape = encodings[kept].channels * encodings[kept].height * encodings[kept].width
    plan = RefreshPlan(program)
    plan.executed(True, {})
    plan.executed(False, {kept: {"segment_changes": shape // 2 + 1}})
    assert plan.dense(2)


def test_restore_with_spill_is_the_dense_run():
    program = tiny_program(dataflow="restore", overflow="spill")
    result = Session(program).sample(3)
    assert result.digests == sample_dense(program, 3, 0).digests
    assert Session(tiny_program()).sample(3).digests != result.digests


def test_dense_key_ignores_placement_but_not_weights():
    restore = tiny_program(dataflow="restore")
    assert dense_key(restore) == dense_key(tiny_program(dataflow="mask"))
    name = next(iter(restore.network.linears.values())).weight
    tensors = {**restore.tensors, name: restore.tensors[name] + np.int8(1)}
    assert dense_key(replace(restore, tensors=tensors)) != dense_key(restore)


def test_costs_add_up_over_steps_and_batches():
    class Timed(Recorder):
        def _keep(self, kind, index, result):
            return StepResult(result.accumulators, {}, 10 + index, {"array": 3}, {"weights": 7})

    program = tiny_program(batch=2)
    result = Session(program, Timed(Session(program).backend)).sample(3)
    assert result.cycles == 2 * (10 + 11 + 12 + 13 + 14)
    assert result.busy == {"array": 30} and result.traffic == {"weights": 70}
    assert Session(program).sample(1).cycles is None


def test_trajectory_ends_at_the_images():
    result = Session(tiny_program()).sample(3, trajectory=True)
    assert result.trajectory.shape == (5, 3, 4, 8, 8)
    assert np.array_equal(result.trajectory[-1], result.images.astype(np.float32))


def test_counts_are_checked_before_noise_is_drawn(monkeypatch):
    program = tiny_program()
    session = Session(replace(program, network=replace(program.network, images=2)))
    monkeypatch.setattr("signmask.runtime.session.noise", lambda *_: pytest.fail("noise drawn"))
    for count, first, message in ((3, None, "ask for 4 images"), (2, 9, "first 9 steps")):
        with pytest.raises(RunError, match=message):
            session.sample(count, first=first)


def test_errors_are_sentences():
    program = tiny_program()
    with pytest.raises(RunError, match="unknown backend 'tpu'"):
        Session(program, "tpu")
    with pytest.raises(RunError, match="number of images is 0"):
        Session(program).sample(0)
    other = replace(program, scheduler={**SCHEDULE, "timestep_spacing": "leading"})
    with pytest.raises(RunError, match="timesteps"):
        Session(other)
    scale = program.network.output_scale
    broken = {**program.tensors, scale: np.full_like(program.tensors[scale], np.nan)}
    with pytest.raises(RunError, match=r"step 0 .* NaN"):
        Session(replace(program, tensors=broken)).sample(1)
