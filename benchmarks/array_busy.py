"""How busy the PE array is in 3x3 convolutions: `python benchmarks/array_busy.py PROGRAM.smk`.

For every 3x3 convolution of at least 32 input channels, in a dense and a differential step on the
simulator: the array's cycles, the bus cycles of all its loads, the cycles from the end of the
convolution before it to its own end, and the larger of the first two over the third.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from signmask.hw.spec.container import Program
from signmask.hw.spec.isa import Instruction, Queue
from signmask.runtime.session import Session
from signmask.sim.machine import Machine

CHANNELS = 32
SHAPE = ("input", "in_height", "out_height", "out_width", "planes", "kernel", "step", "upsample")


@dataclass
class Layer:
    """Instructions of one convolution, and of the loads in front of it."""

    shape: tuple[int, ...]
    kernel: int
    channels: int
    text: str
    before: int  # cycle in which the array's work before it ended
    array: int = 0
    load: int = 0
    end: int = 0


@dataclass
class Recorder:
    """Observer of a machine: layers in the order of the program."""

    group: int
    latency: int
    layers: list[Layer] = field(default_factory=list)
    _events: list[tuple[int, Instruction, int, int]] = field(default_factory=list)

    def __call__(self, index: int, instruction: Instruction, start: int, done: int) -> None:
        """Keep an executed instruction."""
        self._events.append((index, instruction, start, done))

    def take(self) -> list[Layer]:
        """Layers of the step that ran last."""
        layers: list[Layer] = []
        load, ended, busy_until = 0, 0, 0
        for _, instruction, start, done in sorted(self._events, key=lambda event: event[0]):
            if instruction.queue == Queue.LOAD:
                # The next load may start before the data of this one are there.
                begin = max(start, busy_until)
                busy_until = max(busy_until, done - self.latency)
                load += max(0, busy_until - begin)
            if instruction.name != "MATMUL":
                continue
            f = instruction.fields
            shape = tuple(f[name] for name in SHAPE)
            if not layers or layers[-1].shape != shape:
                text = (
                    f"{f['kernel']}x{f['kernel']}, {f['planes'] * self.group} channels, "
                    f"{f['out_height']}x{f['out_width']}"
                )
                layers.append(Layer(shape, f["kernel"], f["planes"] * self.group, text, ended))
            layer = layers[-1]
            layer.array += done - start
            layer.load += load
            layer.end = ended = max(ended, done)
            load = 0
        self._events.clear()
        return layers


def main() -> None:
    """Print a table per phase."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path)
    arguments = parser.parse_args()
    program = Program.load(arguments.program)
    recorder = Recorder(program.config.group, program.config.memory_latency)
    machine = Machine(program, recorder)
    steps: list[list[Layer]] = []

    class Steps:
        """The machine, with its layers kept step by step."""

        last = None

        def dense_step(self, index: int, codes: object) -> object:
            """A dense step."""
            result = machine.dense_step(index, codes)  # type: ignore[arg-type]
            steps.append(recorder.take())
            return result

        def delta_step(self, index: int, codes: object) -> object:
            """A differential step."""
            result = machine.delta_step(index, codes)  # type: ignore[arg-type]
            steps.append(recorder.take())
            return result

    Session(program, Steps()).sample(program.batch, first=3)  # type: ignore[arg-type]
    console = Console()
    for name, layers in (("dense step", steps[0]), ("third step", steps[-1])):
        table = Table("convolution", "array", "bus", "elapsed", "busy of the larger", title=name)
        chosen = [x for x in layers if x.kernel == 3 and x.channels >= CHANNELS]
        for layer in chosen:
            elapsed = layer.end - layer.before
            share = max(layer.array, layer.load) / elapsed
            table.add_row(
                layer.text, str(layer.array), str(layer.load), str(elapsed), f"{share:.0%}"
            )
        total = sum(max(x.array, x.load) for x in chosen) / sum(x.end - x.before for x in chosen)
        console.print(table)
        console.print(f"{name}: {total:.1%} over these convolutions")


if __name__ == "__main__":
    main()
