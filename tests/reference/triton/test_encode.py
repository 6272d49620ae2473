"""The encode kernel against the reference's encoder and arithmetic on int64 tensors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from signmask.reference import arithmetic
from signmask.reference.triton.encode import (
    CODES,
    COUNTERS,
    RESTORED,
    UNENCODED,
    Encoded,
    Format,
    Values,
    encode,
)
from signmask.reference.triton.errors import GpuError
from signmask.reference.triton.layout import Columns, Operand, level_shape
from signmask.sim.compressor import compress
from tests.reference.triton.encode_cases import CODE_SHIFT, Z_SHIFT, Layer, cases, raw_values
from tests.reference.triton.operands import delta_values, laid_out, levels_of, spread_levels


def fresh(case, device, sent, packed=False):
    """What the kernel writes, full of rubbish, with x^ (positions, channels)."""
    columns, shape = case.columns, (case.positions, case.columns.width)

    def rubbish(shape, low, high, kind):
        return case.integers(low, high, *shape).to(kind).to(device)

    narrow, rest = (rubbish(shape, -128, 128, torch.int8) for _ in range(2))
    # Levels may never have been written; where they are below 2, no step has left a rest.
    levels = rubbish(level_shape(case.positions, columns), -128, 128, torch.int8)
    rest *= spread_levels(levels, case.positions) >= 2
    words = case.positions * columns.width // case.group
    size = case.group // 8 * (1 + case.bits)
    return Encoded(
        Operand(narrow, 0, rest, levels),
        laid_out(sent, columns).to(torch.int16).to(device),
        torch.zeros(len(COUNTERS), dtype=torch.int32, device=device),
        area=rubbish((words * size,), 0, 256, torch.uint8) if packed else None,
        wide_counts=rubbish((words,), 0, 256, torch.uint8) if packed else None,
    )


def run(case, device, encoded, values, send, **options):
    """Encode every part; `values` makes those of one from the slice of its channels."""
    form = Format(case.columns, case.bits, case.lanes, case.spill)
    bases = options.pop("base", None)
    for part, cut in enumerate(case.cuts):
        base = None if bases is None else bases[:, cut].to(torch.int8).to(device).contiguous()
        encode(part, values(cut), encoded, form, send, case.images, base=base, **options)


def source_values(codes, device):
    return lambda cut: Values(codes=codes[:, cut].to(torch.int8).to(device).contiguous())


def check_deltas(case, encoded, deltas, sent_last):
    """Operand and x^ after deltas (positions, channels) have been sent."""
    columns = case.columns
    whole = laid_out(deltas, columns)
    assert torch.equal(encoded.operand.levels.cpu(), levels_of(whole))
    assert torch.equal(delta_values(encoded.operand), whole)
    inside = (whole >= -128) & (whole <= 127)
    assert torch.equal(encoded.operand.narrow.cpu().long()[inside], whole[inside])
    assert torch.equal(encoded.sent.cpu().long(), laid_out(sent_last + deltas, columns))


def check_counts(case, encoded, sent, changes=0):
    wanted = case.encoder().count(sent)
    wanted["segment_changes"] = changes
    assert encoded.counts.tolist() == [wanted[name] for name in COUNTERS]


def check_encoded(case, encoded, raw, sent_last, changes=0):
    """Everything after unsaturated deltas `raw` went through the encoder."""
    sent = case.encoder()(raw)
    check_deltas(case, encoded, sent.deltas, sent_last)
    check_counts(case, encoded, sent, changes)
    if encoded.area is not None:
        words = laid_out(sent.deltas, case.columns).reshape(-1, case.group).numpy()
        area, _ = compress(words, case.bits, 2)
        assert encoded.area.tolist() == area.tolist()
        half = 1 << (case.bits - 1)
        outliers = ((words < -half) | (words >= half)).sum(1)
        assert encoded.wide_counts.tolist() == outliers.tolist()


@settings(deadline=None, max_examples=10)
@given(cases())
def test_codes_are_sent_as_they_are(device, case):
    codes = case.codes()
    encoded = fresh(case, device, torch.zeros_like(codes))
    run(case, device, encoded, source_values(codes, device), CODES)
    want = laid_out(codes, case.columns)
    assert torch.equal(encoded.operand.narrow.cpu().long(), want)
    assert torch.equal(encoded.sent.cpu().long(), want)
    assert not encoded.counts.any()


@settings(deadline=None, max_examples=25)
@given(cases(), st.sampled_from((2, 20, 255)), st.booleans())
def test_codes_are_restored_to_what_was_sent(device, case, spread, packed):
    last = case.codes()
    codes = case.changed(last, spread)
    encoded = fresh(case, device, last, packed)
    run(case, device, encoded, source_values(codes, device), RESTORED)
    check_encoded(case, encoded, codes - last, last)


@settings(deadline=None, max_examples=10)
@given(cases())
def test_an_open_loop_takes_differences_to_the_codes_before(device, case):
    before, sent = case.codes(), case.integers(-1000, 1000, case.positions, sum(case.parts))
    codes = case.changed(before, 255)
    encoded = fresh(case, device, sent)
    run(
        case, device, encoded, source_values(codes, device), RESTORED, closed=False, base=before
    )  # fmt: skip
    check_encoded(case, encoded, codes - before, sent)


@settings(deadline=None, max_examples=10)
@given(cases())
def test_plain_differences_are_neither_clipped_nor_counted(device, case):
    last = case.codes()
    codes = case.changed(last, 255)
    encoded = fresh(case, device, last)
    run(case, device, encoded, source_values(codes, device), UNENCODED)
    check_deltas(case, encoded, codes - last, last)
    assert not encoded.counts.any()


@settings(deadline=None, max_examples=20)
@given(
    cases(), st.sampled_from((1, 2, 8)), st.booleans(), st.booleans(),
    st.sampled_from((CODES, RESTORED, UNENCODED)),
)  # fmt: skip
def test_raw_values_become_codes(device, case, segments, own, wide, send):
    layer, y = Layer.random(case, own, segments), raw_values(case, wide)
    _, codes = layer.segments_of(case, y)
    last = case.changed(codes, 60)
    encoded = fresh(case, device, last)
    run(case, device, encoded, layer.values(device, y), send)
    if send == RESTORED:
        check_encoded(case, encoded, codes - last, last)
        return
    if send == UNENCODED:
        check_deltas(case, encoded, codes - last, last)
    else:
        assert torch.equal(encoded.operand.narrow.cpu().long(), laid_out(codes, case.columns))
        assert torch.equal(encoded.sent.cpu().long(), laid_out(codes, case.columns))
    assert not encoded.counts.any()


@settings(deadline=None, max_examples=35)
@given(
    cases(), st.sampled_from(("open", "carry", "closed")), st.sampled_from((1, 2, 8)),
    st.booleans(), st.booleans(), st.sampled_from((0, 1, 5)), st.booleans(),
)  # fmt: skip
def test_changes_pass_through_the_mask(device, case, loop, segments, own, wide, bits, compared):
    layer, y, closed = Layer.random(case, own, segments), raw_values(case, wide), loop == "closed"
    dy = case.sparse(raw_values(case, wide).long() // 4).to(y.dtype)
    held = case.integers(-200, 200, *y.shape)
    used, codes = layer.segments_of(case, y)
    if closed:
        held = case.changed(codes, 3)
    encoded = fresh(case, device, held, packed=loop == "open")
    columns = case.columns
    before = case.integers(0, segments, *y.shape)
    # In a step after a mask step the old segments are overwritten by the new ones.
    encoded.segments = laid_out(before, columns).to(torch.int8).to(device)
    encoded.last_segments = encoded.segments if compared else None
    gain = layer.of(layer.a if closed else layer.gain, case)
    dz = arithmetic.pre_activation(dy.long(), gain, 0, Z_SHIFT)
    slope = layer.slopes[used]
    residue = case.integers(-(1 << bits) // 2, (1 << bits) // 2 + 1, *y.shape)
    if loop == "carry":
        encoded.residue = laid_out(residue, columns).to(torch.int16).to(device)
        exact = arithmetic.masked_delta(dz, slope, CODE_SHIFT, residue, bits)
        raw = arithmetic.shift_round(exact, bits)
        residue = exact - (raw << bits)
    else:
        raw = arithmetic.masked_delta(dz, slope, CODE_SHIFT, 0, 0)
        if closed:
            raw = raw + arithmetic.saturate(codes - held, 9)
    run(
        case, device, encoded, layer.values(device, y, dy, None if closed else layer.gain),
        RESTORED, closed=closed, carry_bits=bits if loop == "carry" else None,
    )  # fmt: skip
    changes = int((used != before).sum()) if compared and segments > 1 else 0
    check_encoded(case, encoded, raw, held, changes)
    if segments > 1:
        assert torch.equal(encoded.segments.cpu().long()[:, columns.places], used)
    if loop == "carry":
        assert torch.equal(encoded.residue.cpu().long()[:, columns.places], residue)


@pytest.mark.parametrize("group", [4, 24])
def test_groups_that_no_block_can_hold_are_refused(group):
    with pytest.raises(GpuError, match=f"these have {group}; compile for another config"):
        Format(Columns((16,), group), 3, 2, True)
