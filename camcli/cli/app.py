"""Run the command line, and turn every error into one line and an exit status.

Standard output is data, standard error is for people. Exit status: 0 all done; 1 some images or
maps failed; 2 wrong usage or nothing to do; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from typer import TyperException

from camcli import __version__
from camcli.cli.console import flush_output, prepare_streams, print_data, print_error, print_info
from camcli.cli.lazy_commands import LazyGroup
from camcli.cli.malloc import keep_freed_memory
from camcli.cli.openmp import limit_spinning
from camcli.core.errors import FULL_ERRNOS, CamcliError, StorageError

INTERRUPTED_STATUS = 130
INTERRUPTED_MESSAGE = "interrupted; all files written so far are complete"

app = typer.Typer(
    name="camcli",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        print_data(f"camcli {__version__}")
        raise typer.Exit


@app.callback()
def camcli(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            help="Print the version and exit.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Show what an image classifier looked at: class-activation maps for any CNN or ViT.

    Start with: camcli explain photo.jpg
    """


def main() -> int:
    """Run the command line and return the exit status; an error that a user can fix is one line."""
    prepare_streams()
    keep_freed_memory()
    limit_spinning()
    try:
        status = int(app(prog_name="camcli", standalone_mode=False) or 0)
        if status == INTERRUPTED_STATUS:  # typer turns Ctrl-C into this status
            print_error(INTERRUPTED_MESSAGE)
        return status
    except (CamcliError, TyperException) as error:
        _print_known_error(error)
        return 1 if isinstance(error, StorageError) else 2
    except (KeyboardInterrupt, typer.Abort):
        print_error(INTERRUPTED_MESSAGE)
        return INTERRUPTED_STATUS
    except Exception as error:
        if reason := _find_outer_reason(error):
            print_error(reason)
            return 1
        if os.environ.get("CAMCLI_TRACEBACK"):
            raise
        where = "set CAMCLI_TRACEBACK=1 to see where, and please report it"
        print_error(f"a bug in camcli: {type(error).__name__}: {error}; {where}")
        return 1
    finally:
        flush_output()


def _print_known_error(error: CamcliError | TyperException) -> None:
    message = error.format_message() if isinstance(error, TyperException) else str(error)
    message = message.replace("Value error, ", "")  # pydantic's, in front of Typer's own words
    if message:  # without arguments, Typer prints the help page and gives no message
        print_error(message)
    for note in getattr(error, "__notes__", ()):  # lines of Python that mend it
        print_info(note)


def _find_outer_reason(error: Exception) -> str:
    """Why the machine, not camcli, ended the command; or an empty text."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.errno in FULL_ERRNOS:
        return f"cannot write: {error.strerror}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
