"""Liberty files."""

from __future__ import annotations

from pathlib import Path

import pytest

from signmask.hw.synthesis.errors import SynthesisError
from signmask.hw.synthesis.technology import Technology, technology

LIBERTY = """
library(small) {
  /* cells */
  cell (INV) {
    area : 16;
    pin(A) { direction : input; }
  }
  cell (DFF) {
    area : 96.5;
    ff (DS, P) { next_state : "D"; }
  }
}
"""


def small(path: Path, text: str = LIBERTY) -> Technology:
    path.write_text(text)
    return Technology("small", 180, "typical", path, "package-of-it", "a test", "BUF")


def test_areas_and_flip_flops(tmp_path: Path) -> None:
    library = small(tmp_path / "small.lib")
    assert library.areas == {"INV": 16.0, "DFF": 96.5}
    assert library.registers == {"DFF"}


def test_digest_follows_the_file(tmp_path: Path) -> None:
    digests = {
        small(tmp_path / "a.lib").digest,
        small(tmp_path / "b.lib").digest,
        small(tmp_path / "c.lib", LIBERTY.replace("16", "17")).digest,
    }
    assert len(digests) == 2


def test_cells_without_area_are_left_out(tmp_path: Path) -> None:
    library = small(tmp_path / "small.lib", LIBERTY.replace("area : 16;", ""))
    assert library.areas == {"DFF": 96.5}


def test_missing_file_names_the_package(tmp_path: Path) -> None:
    library = Technology("x", 180, "typical", tmp_path / "no.lib", "package-of-it", "a test", "BUF")
    with pytest.raises(SynthesisError, match=r"no\.lib is missing.*apt-get install package-of-it"):
        library.areas  # noqa: B018


def test_unknown_library_lists_those_there_are() -> None:
    with pytest.raises(SynthesisError, match="unknown library 'x'; choose osu018 or osu035"):
        technology("x")
