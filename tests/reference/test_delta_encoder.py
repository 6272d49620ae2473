import torch

from signmask.reference.delta_encoder import DeltaEncoder


def test_groups_start_anew_with_every_stream():
    encoder = DeltaEncoder((3, 5), group=4, inlier_bits=3, full_lanes=1, spill=False)
    sent = encoder(torch.tensor([[9, 9, 1, 9, -9, -9, 0, -9]]))
    # Layout: 9 9 1 . | 9 -9 -9 0 | -9 . . .
    assert sent.deltas.tolist() == [[9, 3, 1, 9, -4, -4, 0, -9]]
    assert encoder.count(sent) == {
        "zero": 1, "inlier": 4, "outlier": 3, "clipped": 3, "elements": 8, "segment_changes": 0,
    }  # fmt: skip
