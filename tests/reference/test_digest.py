import hashlib

import numpy as np
import pytest

from signmask.reference.digest import RunDigest


def steps(batch):
    rng = np.random.default_rng(0)
    return rng.integers(-(2**31), 2**31, (3, batch, 2, 2, 5)).astype(np.int32)


def test_digest_follows_the_documented_layout():
    values = steps(2)
    digest = RunDigest(2)
    for step in values:
        digest.update(step)
    images = [hashlib.sha256(values[:, i].astype("<i4").tobytes()) for i in range(2)]
    assert digest.images() == [image.hexdigest() for image in images]
    joined = b"".join(image.digest() for image in images)
    assert digest.run() == hashlib.sha256(joined).hexdigest()


def test_image_digest_does_not_depend_on_the_batch_or_strides():
    values = steps(3)
    whole, single = RunDigest(3), RunDigest(1)
    for step in values:
        whole.update(np.asfortranarray(step))
        single.update(step[1:2])
    assert single.images()[0] == whole.images()[1]


def test_wrong_type_is_refused():
    with pytest.raises(ValueError, match="accumulators are int64 of 2 images"):
        RunDigest(2).update(np.zeros((2, 1), np.int64))
