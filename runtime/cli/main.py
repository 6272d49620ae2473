"""Entry point of the `signmask` command."""

from __future__ import annotations

import sys

import typer

from signmask.hw.errors import RtlError
from signmask.hw.spec.config import ConfigError
from signmask.hw.spec.container import ProgramError
from signmask.hw.spec.isa import IsaError
from signmask.reference.triton.errors import GpuError
from signmask.runtime.cli.bench import bench
from signmask.runtime.cli.compare import compare
from signmask.runtime.cli.compile import compile_command
from signmask.runtime.cli.console import err
from signmask.runtime.cli.hw import hw
from signmask.runtime.cli.inspect import inspect
from signmask.runtime.cli.models import models
from signmask.runtime.cli.report import report
from signmask.runtime.cli.run import run
from signmask.runtime.errors import RunError
from signmask.sim.errors import SimulationError

FAILURE = 2
INTERRUPTED = 130

app = typer.Typer(
    name="signmask",
    help="Differential acceleration of diffusion models: compile, run, compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("models")(models)
app.command("compile")(compile_command)
app.command("run")(run)
app.command("inspect")(inspect)
app.command("compare")(compare)
app.command("report")(report)
app.add_typer(hw, name="hw")
app.add_typer(bench, name="bench")


def expected_errors() -> tuple[type[Exception], ...]:
    """Failures whose message is written for the user."""
    errors: list[type[Exception]] = [
        RunError,
        ConfigError,
        ProgramError,
        IsaError,
        GpuError,
        SimulationError,
        RtlError,
    ]
    try:
        from signmask.compiler.errors import CompileError
    except ImportError:
        return tuple(errors)
    return (*errors, CompileError)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits 0, or 2 with one sentence on stderr for an expected failure."""
    try:
        code = app(args=arguments, prog_name="signmask", standalone_mode=False)
    except expected_errors() as error:
        sys.exit(fail(str(error)))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("signmask"):
            raise
        sys.exit(
            fail(
                f"the Python package '{error.name}' is not installed; install it with "
                "\"pip install 'signmask[torch,report]'\"."
            )
        )
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is None:
            raise
        context = getattr(error, "ctx", None)
        if context is not None and usage() == context.get_help():
            # No verb was given.
            err.print(usage(), markup=False)
            sys.exit(FAILURE)
        # A usage error of the command line itself (unknown option, wrong type).
        text = " ".join(usage().split()).rstrip(".")
        sys.exit(fail(f"{text}; see 'signmask --help'."))
    sys.exit(code if isinstance(code, int) else 0)


def fail(message: str) -> int:
    """Print one sentence on stderr; returns the exit code of an expected failure."""
    err.print(f"signmask: {' '.join(message.split())}", markup=False)
    return FAILURE


if __name__ == "__main__":
    main()
