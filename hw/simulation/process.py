"""The process of a simulation whose control port is served over pipes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from signmask.hw.errors import RtlError
from signmask.hw.simulation import runner, server


class Simulation:
    """The process of a simulation that serves its control port."""

    def __init__(self, build: runner.Build, plusargs: Sequence[str], waves: Path | None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="signmask-")
        self._log = Path(self._folder.name) / "log"
        commands, answers = os.pipe(), os.pipe()
        words, environment = runner.command(
            build, server.__name__, None,
            {
                "COCOTB_RESULTS_FILE": str(Path(self._folder.name) / "results.xml"),
                "PYTHONPATH": runner.python_path(),
                server.COMMANDS: str(commands[0]), server.ANSWERS: str(answers[1]),
            },
            plusargs, waves,
        )  # fmt: skip
        with self._log.open("wb") as log:
            # A session of its own: an interrupt at the terminal is for the program around it.
            self._process = subprocess.Popen(
                words, cwd=self._folder.name, env=environment, pass_fds=(commands[0], answers[1]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        os.close(commands[0])
        os.close(answers[1])
        self._commands: IO[str] = os.fdopen(commands[1], "w", encoding="ascii")
        self._answers: IO[str] = os.fdopen(answers[0], encoding="ascii")
        self._end = weakref.finalize(
            self, _end, self._process, self._commands, self._answers, self._folder
        )

    def execute(self, operations: list[list[Any]]) -> list[int]:
        """Values of the reads; raises RtlError with the simulation's own sentence when it ends."""
        if not self._end.alive:
            raise RtlError("the simulation was closed; open the backend again.")
        try:
            print(json.dumps(operations), file=self._commands, flush=True)
            line = self._answers.readline()
        except BrokenPipeError:
            line = ""
        except BaseException:
            # The answer of an interrupted step must not be taken for the next one's.
            self._end()
            raise
        if not line:
            reason = self._reason()
            self._end()
            raise RtlError(reason)
        answer = json.loads(line)
        if isinstance(answer, dict):
            raise RtlError(answer["error"])
        return [int(value) for value in answer]

    def _reason(self) -> str:
        """Why the simulation ended, from its log."""
        self._process.wait()
        text = self._log.read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            if "%Error:" in line or "%Fatal:" in line:
                return "the simulated accelerator failed: " + line.split(": ", 2)[-1]
        return f"the simulation ended unexpectedly:\n{runner.tail(text)}"

    def close(self) -> None:
        """End the process, which completes its trace."""
        self._end()


def _end(
    process: subprocess.Popen[bytes], commands: IO[str], answers: IO[str],
    folder: tempfile.TemporaryDirectory[str],
) -> None:  # fmt: skip
    """Let a simulation that waits for commands end by itself; end one that computes."""
    with contextlib.suppress(BrokenPipeError):
        commands.close()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    answers.close()
    folder.cleanup()
