"""The command line: parse, call, print. The only place that prints; knows no formulas.

Standard output is data, standard error is for people. Exit status: 0 all done; 1 some images or
maps failed; 2 wrong usage or nothing to do; 130 interrupted.
"""

from __future__ import annotations

import os
import sys

import typer
from typer import TyperException

from camcli.cli.commands import evaluate
from camcli.cli.commands.compare import compare
from camcli.cli.commands.doctor import doctor
from camcli.cli.commands.explain import explain
from camcli.cli.commands.layers import layers
from camcli.cli.commands.methods import methods
from camcli.cli.commands.models import models
from camcli.cli.commands.train import app as train
from camcli.cli.console import flush_output, prepare_streams, print_error
from camcli.cli.malloc import keep_freed_memory
from camcli.core.errors import CamcliError, StorageError

INTERRUPTED_STATUS = 130
INTERRUPTED_MESSAGE = "interrupted; all files written so far are complete"

app = typer.Typer(
    name="camcli",
    help="What did this network look at? Class-activation maps for any CNN or ViT classifier.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (explain, compare, layers, methods, models, doctor):
    app.command()(command)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(train, name="train")


def main() -> int:
    """Run the command line; one line for anything that a user can mend. Returns the exit status."""
    prepare_streams()
    keep_freed_memory()
    try:
        status = int(app(standalone_mode=False) or 0)
        if status == INTERRUPTED_STATUS:  # typer makes a status of the interrupt
            print_error(INTERRUPTED_MESSAGE)
        return status
    except (CamcliError, TyperException) as error:
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        print_error(message)
        return 1 if isinstance(error, StorageError) else 2
    except (KeyboardInterrupt, typer.Abort):
        print_error(INTERRUPTED_MESSAGE)
        return INTERRUPTED_STATUS
    except Exception as error:
        if os.environ.get("CAMCLI_TRACEBACK"):
            raise
        where = "set CAMCLI_TRACEBACK=1 to see where, and please report it"
        print_error(f"a bug in camcli: {type(error).__name__}: {error}; {where}")
        return 1
    finally:
        flush_output()


if __name__ == "__main__":
    sys.exit(main())
