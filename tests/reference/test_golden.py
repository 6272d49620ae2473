import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from signmask.hw.spec import numerics
from signmask.hw.spec.network import Knobs
from signmask.reference.golden import GoldenModel
from tests.tiny_networks import NETWORKS, input_codes, minimal, residual, unet, with_knobs

LOOPS = (("open", 0), ("carry", 5), ("carry", 0), ("closed", 0))
NORMS = ("calibrated", "trend", "live")
BATCH = 2


class Recorder:
    """Observer that keeps every tensor of every step."""

    def __init__(self):
        self.steps = []

    def begin(self):
        self.steps.append({})

    def __call__(self, kind, name, tensor):
        assert (kind, name) not in self.steps[-1]
        self.steps[-1][kind, name] = tensor.clone()


def execute(built, codes, plan=None, recorder=None):
    """Results of the steps in `plan` (step, dense or not); by default all, the first one dense."""
    model = GoldenModel(*built, codes.shape[1], recorder)
    results = []
    for index, dense in plan or [(i, i == 0) for i in range(len(codes))]:
        if recorder is not None:
            recorder.begin()
        step = model.dense_step if dense else model.delta_step
        results.append(step(index, codes[index]))
    return results


def image_digests(results):
    """SHA-256 of each image's accumulators, steps concatenated."""
    images = accumulators(results).swapaxes(0, 1)
    return [hashlib.sha256(np.ascontiguousarray(image)).hexdigest() for image in images]


def accumulators(results):
    return np.stack([result.accumulators for result in results])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_restore_with_spill_equals_dense(name, seed):
    built = NETWORKS[name](seed)
    codes = input_codes(built[0], BATCH, seed, change=0.5)
    dense = execute(with_knobs(built, dataflow="dense"), codes)
    restore = execute(with_knobs(built, dataflow="restore", overflow="spill"), codes)
    clip = execute(with_knobs(built, dataflow="restore", overflow="clip"), codes)
    assert accumulators(dense).dtype == np.int32
    assert np.array_equal(accumulators(dense), accumulators(restore))
    assert not np.array_equal(accumulators(dense), accumulators(clip))
    assert len(np.unique(accumulators(dense))) > 50


def test_delta_steps_of_a_dense_program_are_dense():
    built = with_knobs(minimal(), dataflow="dense")
    codes = input_codes(built[0], BATCH)
    plan = [(i, True) for i in range(len(codes))]
    assert np.array_equal(
        accumulators(execute(built, codes)), accumulators(execute(built, codes, plan))
    )


@pytest.mark.parametrize("flow", ["restore", "mask"])
def test_mode_dense_works_on_raw_codes(flow):
    """A dense boundary of a clipping program sends what a spilling boundary sends."""
    network, tensors = with_knobs(minimal(), dataflow=flow, overflow="clip")
    codes = input_codes(network, BATCH, change=0.5)
    dense = replace(
        network,
        encodings={n: replace(e, mode="dense") for n, e in network.encodings.items()},
        sources={n: replace(s, mode="dense") for n, s in network.sources.items()},
    )
    restore = replace(
        dense,
        knobs=replace(network.knobs, overflow="spill"),
        encodings={n: replace(e, mode="restore") for n, e in network.encodings.items()},
        sources={n: replace(s, mode="restore") for n, s in network.sources.items()},
    )
    results = execute((dense, tensors), codes)
    assert np.array_equal(accumulators(results), accumulators(execute((restore, tensors), codes)))
    elements = BATCH * 4 * 4 * 20
    assert results[1].counters["relu"] == {
        "zero": 0, "inlier": 0, "outlier": 0, "clipped": 0, "elements": elements,
        "segment_changes": 0,
    }  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("loop", "carry_bits"), LOOPS)
@pytest.mark.parametrize("norm", NORMS)
def test_images_do_not_depend_on_their_batch(name, loop, carry_bits, norm):
    built = with_knobs(NETWORKS[name](), loop=loop, carry_bits=carry_bits, norm=norm)
    codes = input_codes(built[0], 3)
    whole = image_digests(execute(built, codes))
    assert image_digests(execute(built, codes[:, 1:2])) == whole[1:2]
    assert len(set(whole)) == 3


@pytest.mark.parametrize(("loop", "carry_bits"), LOOPS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("overflow", ["clip", "spill"])
def test_mask_step_matches_scalar_functions(loop, carry_bits, norm, overflow):
    """Every sent delta of an encoding, recomputed from y, dy and x^ with Python integers."""
    built = with_knobs(
        residual(size=2), loop=loop, carry_bits=carry_bits, norm=norm, overflow=overflow
    )
    network, tensors = built
    encoding, recorder = network.encodings["act_2"], Recorder()
    layer = encoding.norm
    codes = input_codes(network, 1, change=0.4)
    results = execute(built, codes, [(0, True), (2, False), (3, False)], recorder)
    table = {
        n: tensors[getattr(layer, n)].tolist()
        for n in "gain offset cal_mean cal_inverse cal_sigma cal_a cal_b".split()
    }
    breaks, slopes, intercepts = (
        tensors[n].tolist() for n in (encoding.breaks, encoding.slopes, encoding.intercepts)
    )
    sent = recorder.steps[0]["codes", "act_2"][0]
    residues = torch.zeros_like(sent)
    used = None

    def moments(y, group):
        width = encoding.channels // layer.groups
        members = y[:, :, group * width : (group + 1) * width].flatten().tolist()
        members = [v >> layer.stat_shift for v in members]
        return numerics.group_moments(
            sum(members), sum(v * v for v in members), layer.count, layer.epsilon
        )

    def constants(values, channel):
        return numerics.channel_constants(
            *values, table["gain"][channel], table["offset"][channel], layer.gain_shift,
            layer.mean_shift,
        )  # fmt: skip

    for step, (last, now) in ((1, (0, 2)), (2, (2, 3))):
        seen = recorder.steps[step]
        y, dy = recorder.steps[step - 1]["y", "body"][0], seen["dy", "body"][0]
        got, changes, segments = seen["dx", "act_2"][0], 0, torch.zeros_like(sent)
        for row, column in np.ndindex(2, 2):
            deltas = []
            for channel in range(encoding.channels):
                group = channel * layer.groups // encoding.channels
                before = moments(y, group)
                old = constants(before, channel)
                if norm == "calibrated":
                    old = table["cal_a"][last][channel], table["cal_b"][last][channel]
                    new = table["cal_a"][now][channel], table["cal_b"][now][channel]
                    gain = numerics.shift_round(old[0] + new[0], 1)
                elif norm == "trend":
                    moved = numerics.move_by_trend(
                        before[0], before[1], table["cal_mean"][last][group],
                        table["cal_mean"][now][group], table["cal_inverse"][now][group],
                        table["cal_sigma"][last][group],
                    )  # fmt: skip
                    new = constants((*moved, before[2]), channel)
                    gain = new[0]
                else:
                    new = constants(moments((y + dy).clamp(-(2**15), 2**15 - 1), group), channel)
                    gain = new[0]
                at = (row, column, channel)
                a, b = new if loop == "closed" else old
                z = numerics.pre_activation(int(y[at]), a, b, encoding.z_shift)
                segment = numerics.segment_index(z, breaks)
                changes += used is not None and segment != int(used[at])
                segments[at] = segment
                a = new[0] if loop == "closed" else gain
                dz = numerics.pre_activation(int(dy[at]), a, 0, encoding.z_shift)
                residue = int(residues[at])
                q = numerics.masked_delta(
                    dz, slopes[segment], encoding.code_shift, residue, carry_bits
                )
                delta = numerics.shift_round(q, carry_bits)
                residues[at] = q - (delta << carry_bits)
                if loop == "closed":
                    code = numerics.activation_code(
                        z, slopes[segment], intercepts[segment], encoding.code_shift,
                        encoding.low, encoding.high,
                    )  # fmt: skip
                    correction = numerics.saturate(code - int(sent[at]), 9)
                    assert int(seen["corrections", "act_2"][0][at]) == correction
                    delta = numerics.saturate(delta + correction, 9)
                deltas.append(delta)
            encoded = numerics.encode_group(deltas, 3, 2, overflow == "spill")
            assert got[row, column].tolist() == encoded
        assert torch.equal(seen["segments", "act_2"][0], segments)
        assert results[step].counters["act_2"]["segment_changes"] == changes
        sent, used = sent + got, segments


@pytest.mark.parametrize(("loop", "carry_bits"), LOOPS)
def test_sources_follow_their_loop(loop, carry_bits):
    built = with_knobs(minimal(), loop=loop, carry_bits=carry_bits, overflow="clip")
    codes, recorder = input_codes(built[0], 1, change=0.9), Recorder()
    execute(built, codes, recorder=recorder)
    sent = codes[0].astype(int)
    for last, now in ((0, 1), (1, 2)):
        base = codes[last].astype(int) if loop == "open" else sent
        want = np.array(
            [numerics.encode_group(d, 3, 2, False) for d in (codes[now] - base).reshape(-1, 3)]
        ).reshape(sent.shape)
        assert np.array_equal(recorder.steps[now]["dx", "input"].numpy(), want)
        assert np.abs(codes[now] - base - want).max() > 0  # something was clipped
        sent = sent + want


def frozen(built):
    """The network with every per-step table constant over steps."""
    network, tensors = built
    tensors = dict(tensors)
    for stream in network.streams.values():
        tensors[stream.table] = np.repeat(tensors[stream.table][:1], network.steps, 0)
    for encoding in network.encodings.values():
        norm = encoding.norm
        rows = (norm.gain, norm.offset) if norm else (encoding.affine_a, encoding.affine_b)
        for key in rows:
            if tensors[key].ndim == 2:
                tensors[key] = tensors[key][0]
    return network, tensors


@pytest.mark.parametrize("name", NETWORKS)
def test_closed_loop_repairs_codes_when_the_input_rests(name):
    """After as many resting steps as there are boundaries in a row, every x^ is the code of its
    own y, nothing is sent any more, and y is off its exact value by roundings alone."""
    built = frozen(with_knobs(NETWORKS[name](steps=14), loop="closed", norm="live",
                              overflow="spill"))  # fmt: skip
    network, _ = built
    codes = input_codes(network, BATCH, change=0.5)
    codes[3:] = codes[3]
    recorder = Recorder()
    results = execute(built, codes, recorder=recorder)
    last = recorder.steps[-1]
    sending = [n for n in (*network.encodings, *network.sources) if n not in network.multiplied()]
    for encoding in sending:
        assert not last["dx", encoding].any(), encoding
        assert results[-1].counters[encoding]["zero"] == results[-1].counters[encoding]["elements"]
    moving = [i for i, s in enumerate(recorder.steps) if any(t.any() for (k, _), t in s.items()
              if k == "dx")]  # fmt: skip
    assert max(moving) >= 3
    sent = {
        n: recorder.steps[0]["codes", n] + sum(s["dx", n] for s in recorder.steps[1:])
        for n in sending
    }
    # A dense program of the same network, fed with the codes that were sent, differs from y only
    # by one rounding per operator and moving step, half a grid step each.
    model = GoldenModel(*built, BATCH)
    operators = model._operators
    for stream in network.streams.values():
        exact = operators.tables[stream.name][0].double()
        if stream.offset:
            exact = exact + operators.offsets[stream.name].reshape(last["y", stream.name].shape[1:])
        for producer in operators.producers[stream.name]:
            operator = operators.linears[producer]
            source = network.shape_of(operator.linear.source)
            product = operator(sent[source.name], source.zero, 1 << 15).double()
            scaled = product * operator.multiplier * 2.0**-operator.linear.shift
            exact = exact + scaled.reshape(last["y", stream.name].shape)
        for addend in stream.adds:
            exact = exact + last["y", addend].reshape(last["y", stream.name].shape)
        error = (last["y", stream.name] - exact).abs().max()
        roundings = (len(moving) + 1) * len(operators.producers[stream.name])
        assert error <= roundings / 2, stream.name


def test_residues_of_carry_are_less_than_a_code_and_refreshes_clear_everything():
    built = with_knobs(unet(), loop="carry", carry_bits=4)
    codes = input_codes(built[0], BATCH)
    model = GoldenModel(*built, BATCH)
    model.dense_step(0, codes[0])
    model.delta_step(1, codes[1])
    residues = model._state.residue
    assert any(r.any() for r in residues.values())
    assert all(int(r.min()) >= -8 and int(r.max()) <= 7 for r in residues.values())
    model.dense_step(2, codes[2])
    fresh = execute(built, codes, [(2, True), (3, False), (4, False)])
    rest = [model.delta_step(i, codes[i]) for i in (3, 4)]
    assert np.array_equal(accumulators(rest), accumulators(fresh[1:]))
    assert rest[0].counters == fresh[1].counters
    assert all(c.get("segment_changes", 0) == 0 for c in rest[0].counters.values())
    assert any(c.get("segment_changes", 0) for c in rest[1].counters.values())


def test_skipped_steps_use_tables_of_the_last_executed_step():
    built = with_knobs(unet(), loop="closed", norm="trend")
    codes = input_codes(built[0], BATCH)
    skipped = execute(built, codes, [(0, True), (3, False)])
    every = execute(built, codes)
    assert not np.array_equal(skipped[1].accumulators, every[3].accumulators)
    reach = np.abs(accumulators(every)).max()
    assert np.abs(skipped[1].accumulators - every[3].accumulators).max() < reach / 2


def test_counters_add_up():
    built = with_knobs(unet(), overflow="clip")
    network, codes = built[0], input_codes(built[0], BATCH, change=0.5)
    results = execute(built, codes)
    assert set(results[0].counters) == {"streams"}
    for result in results[1:]:
        assert set(result.counters) == {"streams", *network.encodings, *network.sources}
        for name, count in result.counters.items():
            if name == "streams":
                assert set(count) == set(network.streams)
                continue
            shape = network.shape_of(name)
            assert count["elements"] == BATCH * shape.height * shape.width * shape.channels
            assert count["zero"] + count["inlier"] + count["outlier"] == count["elements"]
            assert count["clipped"] <= count["inlier"]
    assert results[1].counters["input"]["clipped"] > 0


def test_saturated_stream_elements_are_counted():
    network, tensors = with_knobs(minimal(), dataflow="dense")
    tensors = dict(tensors)
    table = tensors[network.streams["hidden"].table].copy()
    table[:, 0] = 10**6
    tensors[network.streams["hidden"].table] = table
    codes, recorder = input_codes(network, BATCH), Recorder()
    results = execute((network, tensors), codes, recorder=recorder)
    assert results[0].counters["streams"]["hidden"] == BATCH * 4 * 4
    assert int(recorder.steps[0]["y", "hidden"].max()) == 2**15 - 1


def test_knobs_change_the_result():
    built = with_knobs(unet(), overflow="clip")
    codes = input_codes(built[0], BATCH)
    runs = [
        tuple(image_digests(execute(with_knobs(built, loop=loop, carry_bits=bits, norm=n), codes)))
        for loop, bits in LOOPS
        for n in NORMS
    ]
    # Carrying no bits is an open loop but for the sources, so all settings differ.
    assert len(set(runs)) == len(runs)


def test_mistakes_are_named():
    built = minimal()
    network, tensors = built
    codes = input_codes(network, 1)
    model = GoldenModel(network, tensors, 1)
    with pytest.raises(RuntimeError, match="execute a dense step first"):
        model.delta_step(0, codes[0])
    with pytest.raises(ValueError, match="step 4 does not exist"):
        model.dense_step(4, codes[0])
    with pytest.raises(ValueError, match="input codes are int16"):
        model.dense_step(0, codes[0].astype(np.int16))
    with pytest.raises(ValueError, match=r"takes int8 \(1, 4, 4, 3\)"):
        model.dense_step(0, codes[0][:, :2])
    with pytest.raises(ValueError, match="batch is 0"):
        GoldenModel(network, tensors, 0)
    with pytest.raises(ValueError, match=r"tensor 'relu\.slopes' is missing"):
        GoldenModel(network, {n: t for n, t in tensors.items() if n != "relu.slopes"}, 1)
    with pytest.raises(ValueError, match="mode mask in a restoring program"):
        GoldenModel(replace(network, knobs=Knobs(dataflow="restore")), tensors, 1)
    with pytest.raises(ValueError, match="does not name every operator once"):
        GoldenModel(replace(network, order=network.order[:-1]), tensors, 1)


def test_streams_move_by_products_and_the_difference_of_executed_tables():
    built = with_knobs(residual(), norm="trend")
    network, codes, recorder = built[0], input_codes(residual()[0], BATCH), Recorder()
    execute(built, codes, [(0, True), (2, False)], recorder)
    operators = GoldenModel(*built, BATCH)._operators
    before, seen = recorder.steps
    for name, stream in network.streams.items():
        total = operators.tables[name][2] - operators.tables[name][0]
        for producer in operators.producers[name]:
            operator = operators.linears[producer]
            product = operator(seen["dx", operator.linear.source], 0, 256)
            total = total + operator.requantise(product)
        for addend in stream.adds:
            total = total + seen["dy", addend]
        assert torch.equal(seen["dy", name], total)
        assert torch.equal(seen["y", name], before["y", name] + seen["dy", name])


def test_attention_of_a_mask_step_reads_values_of_that_step():
    built = with_knobs(unet(), norm="trend")
    codes, recorder = input_codes(built[0], BATCH, change=0.5), Recorder()
    execute(built, codes, recorder=recorder)
    attend = GoldenModel(*built, BATCH)._operators.attentions["attend"]
    for seen in recorder.steps:
        want = attend(*(seen["y", name] for name in "qkv"))
        assert torch.equal(seen["codes", "attended"], want)
