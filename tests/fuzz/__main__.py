"""Long differential fuzzing: `python -m tests.fuzz --programs 500`."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time

from hypothesis import HealthCheck, Phase, given, seed, settings
from rich.console import Console
from rich.progress import Progress

from tests.fuzz.cases import Case, cases
from tests.fuzz.coverage import Coverage
from tests.fuzz.harness import REGRESSIONS, check, compile_case


def main() -> int:
    """Exit code 0 if all backends agreed on every program, else 1 and a new regression file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=500, help="random programs to run")
    parser.add_argument("--seed", type=int, default=0, help="of the random programs")
    arguments = parser.parse_args()
    console, coverage = Console(), Coverage()
    smallest: list[Case] = []
    started = time.monotonic()

    with Progress(console=console) as progress:
        task = progress.add_task("programs", total=arguments.programs)

        @seed(arguments.seed)
        @settings(
            max_examples=arguments.programs, deadline=None, database=None,
            phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(cases())
        def agree(case: Case) -> None:
            program = compile_case(case)
            try:
                check(case, program)
            except Exception as error:
                console.print(f"{type(error).__name__}: {error}", markup=False)
                # The last failing case that Hypothesis tries is the smallest.
                smallest[:] = [case]
                raise
            coverage.add(case, program)
            progress.advance(task)

        failure: BaseException | None = None
        try:
            agree()
        except Exception as error:
            failure = error
    console.print(coverage.table())
    for setting, count in sorted(coverage.settings.items()):
        console.print(f"  {setting}: {count}", highlight=False)
    if missing := coverage.missing():
        console.print(f"No program had {', '.join(missing)}.")
    seconds = time.monotonic() - started
    if failure is None:
        console.print(f"{coverage.cases} programs, no mismatch, {seconds:.0f} s.")
        return 0
    console.print(f"{type(failure).__name__}: {failure}", markup=False)
    if smallest:
        REGRESSIONS.mkdir(exist_ok=True)
        text = smallest[0].to_json()
        name = hashlib.sha256(text.encode()).hexdigest()[:8]
        path = REGRESSIONS / f"case_{name}.json"
        path.write_text(text, encoding="utf-8")
        console.print(f"The smallest failing case is in {path}; the tests replay it from now on.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
