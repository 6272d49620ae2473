"""Standard-cell libraries: Liberty files, and the area of their cells."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from signmask.hw.synthesis.errors import SynthesisError

QFLOW = Path("/usr/share/qflow/tech")
CELL = re.compile(r"^\s*cell\s*\(\s*\"?(\w+)\"?\s*\)\s*\{", re.MULTILINE)
AREA = re.compile(r"^\s*area\s*:\s*([\d.]+)\s*;", re.MULTILINE)
REGISTER = re.compile(r"^\s*ff\s*\(", re.MULTILINE)


@dataclass(frozen=True)
class Technology:
    """A library: its Liberty file, where that comes from, and its process."""

    name: str
    nanometres: int
    corner: str
    liberty: Path
    package: str
    source: str
    buffer: str

    @cached_property
    def _cells(self) -> dict[str, tuple[float, bool]]:
        """(area in um2, whether it is a flip-flop) of each cell."""
        text = self._text()
        starts = [(found.start(), found[1]) for found in CELL.finditer(text)]
        cells = {}
        for (start, name), end in zip(
            starts, [*(at for at, _ in starts[1:]), len(text)], strict=True
        ):
            body = text[start:end]
            area = AREA.search(body)
            if area is not None:
                cells[name] = float(area[1]), bool(REGISTER.search(body))
        return cells

    @property
    def areas(self) -> dict[str, float]:
        """Area of each cell in um2; pads have none and are left out."""
        return {name: area for name, (area, _) in self._cells.items()}

    @property
    def registers(self) -> frozenset[str]:
        """Names of the flip-flops."""
        return frozenset(name for name, (_, register) in self._cells.items() if register)

    @property
    def digest(self) -> str:
        """Hash of the Liberty file."""
        return hashlib.sha256(self._text().encode()).hexdigest()

    def _text(self) -> str:
        try:
            return self.liberty.read_text(encoding="latin-1")
        except OSError:
            raise SynthesisError(
                f"the Liberty file {self.liberty} is missing; install it with "
                f"'apt-get install {self.package}'."
            ) from None


def _osu(name: str, nanometres: int, volts: str) -> Technology:
    return Technology(
        name=name,
        nanometres=nanometres,
        corner=f"typical, {volts} V, 25 C",
        liberty=QFLOW / name / f"{name}_stdcells.lib",
        package=f"qflow-tech-{name}",
        source=(
            "Oklahoma State University standard cells for scalable CMOS rules, as packaged by "
            f"Debian in qflow-tech-{name}"
        ),
        buffer="BUFX2",
    )


TECHNOLOGIES = {
    library.name: library for library in (_osu("osu018", 180, "1.8"), _osu("osu035", 350, "3.3"))
}


def technology(name: str) -> Technology:
    """The library of that name; raises SynthesisError for an unknown one."""
    if name not in TECHNOLOGIES:
        raise SynthesisError(f"unknown library '{name}'; choose {' or '.join(TECHNOLOGIES)}.")
    return TECHNOLOGIES[name]
