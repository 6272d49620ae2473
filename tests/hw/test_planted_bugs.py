"""The list of planted bugs names lines that exist and tests that exist."""

from __future__ import annotations

import pytest

from tests.hw.planted_bugs import BUGS, ROOT


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.file)
def test_line_and_test_exist(bug):
    assert (ROOT / bug.file).read_text(encoding="utf-8").count(bug.line) == 1
    path, _, name = bug.test.partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert f"def {name.partition('[')[0]}(" in text


def test_ten_files():
    assert len({bug.file for bug in BUGS}) >= 10
