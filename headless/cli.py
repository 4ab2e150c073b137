"""The command line `kintsugi`. Commands import what they need when they run, so that --help answers at once."""

from __future__ import annotations

import gc
import io
import os
import sys
import traceback
from typing import Annotated

import typer

from ..core.errors import BadValueError, FileAccessError, Interrupted, KintsugiError, RecipeError, WorkflowError
from . import console
from .commands import batch, convert, fluxgen, models, nodes, pictures, restore, run, serve, train

FAILED, BAD_REQUEST, INTERRUPTED = 1, 2, 130
DEBUG = "--debug"
_BAD_REQUESTS = (BadValueError, FileAccessError, WorkflowError, RecipeError)

app = typer.Typer(
    name="kintsugi",
    help="Generative image restoration: photos, folders and ComfyUI workflows, without ComfyUI.",
    epilog="Example: kintsugi restore old.jpg -o restored.png",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("restore", epilog=restore.EXAMPLE)(restore.restore)
app.command("run", epilog=run.EXAMPLE)(run.run)
app.command("batch", epilog=batch.EXAMPLE)(batch.batch)
app.command("serve", epilog=serve.EXAMPLE)(serve.serve)
app.command("degrade", epilog=pictures.DEGRADE_EXAMPLE)(pictures.degrade)
app.command("score", epilog=pictures.SCORE_EXAMPLE)(pictures.score)
app.command("fluxgen", epilog=fluxgen.EXAMPLE)(fluxgen.fluxgen)
app.command("nodes", epilog=nodes.EXAMPLE)(nodes.nodes)
app.add_typer(models.models, name="models", epilog=models.EXAMPLE)
app.command("convert", epilog=convert.EXAMPLE)(convert.convert)
app.command("train", epilog=train.EXAMPLE)(train.train)


def _show_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        console.say(f"kintsugi {__version__}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show tracebacks; may stand anywhere on the line.")] = False,
) -> None:
    """Options of every command; main() has looked for --debug already."""


def main() -> None:
    """Entry point of `kintsugi` and `python -m kintsugi`."""
    # Imports make a million objects and hardly any garbage: Python's usual 700 between collections cost them a second.
    gc.set_threshold(50_000, 20, 100)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name may hold what the terminal cannot show.
            stream.reconfigure(errors="backslashreplace")
    code = run_command_line(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away; without this the interpreter complains when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run_command_line(arguments: list[str]) -> int:
    """Run one command line and return its exit code: 0 done, 1 something failed, 2 bad request, 130 interrupted.

    A person's mistake and an expected failure give one message on stderr; --debug adds the traceback.
    """
    debug = DEBUG in arguments
    try:
        app([argument for argument in arguments if argument != DEBUG], prog_name="kintsugi")
    except SystemExit as stopped:
        if stopped.code == INTERRUPTED:
            console.complain("stopped; finished results are kept.")
        return stopped.code if isinstance(stopped.code, int) else 0 if stopped.code is None else FAILED
    except (KeyboardInterrupt, Interrupted):
        console.complain("stopped; finished results are kept.")
        return INTERRUPTED
    except KintsugiError as error:
        if debug:
            traceback.print_exc()
        console.complain(str(error))
        return BAD_REQUEST if isinstance(error, _BAD_REQUESTS) else FAILED
    except OSError as error:
        if debug:
            traceback.print_exc()
        console.complain(f"{error}.")
        return FAILED
    return 0
