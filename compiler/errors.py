"""Errors of the compiler: each message is one sentence with cause, place and remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class CompileError(ValueError):
    """The model, the calibration or the knobs cannot be compiled."""


@dataclass(frozen=True)
class Rejection:
    """One operator that the accelerator does not execute.

    `line` is the user's source line ("file:line in function") or an empty string.
    """

    operator: str
    node: str
    line: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        place = f"'{self.node}'" + (f" at {self.line}" if self.line else "")
        return f"{self.operator} {place}: {self.reason}; {self.remedy}"


class UnsupportedOperators(CompileError):
    """All operators of a model that cannot be compiled, found before any work is done."""

    def __init__(self, rejections: Sequence[Rejection]) -> None:
        self.rejections = tuple(rejections)
        listed = " | ".join(str(r) for r in self.rejections)
        super().__init__(f"{len(self.rejections)} unsupported operator(s): {listed}.")


def first_line(error: Exception) -> str:
    """What an error of torch says, up to the end of its first line or sentence."""
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0].strip().rstrip(".") if lines else type(error).__name__


def source_line(stack_trace: str | None) -> str:
    """The innermost line of a torch.export stack trace outside torch itself, as
    "file:line in function"; empty where there is none."""
    found = ""
    for text in (stack_trace or "").splitlines():
        if text.strip().startswith('File "'):
            file, line, function = text.strip()[6:].replace('"', "").split(", ", 2)
            if "/torch/" not in file:
                found = f"{file}:{line.removeprefix('line ')} {function}"
    return found


def check_batch(name: str, images: int, batch: int) -> None:
    """Raise CompileError unless a batch is a multiple of the images that belong together."""
    if batch % images:
        raise CompileError(
            f"'{name}' is made for {images} images at once (frames of a video, or images with "
            f"conditions of their own) and the batch is {batch}; compile with --batch "
            f"{-(-batch // images) * images}."
        )
