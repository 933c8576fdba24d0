r"""The formats of `camcli export`: one function per format.

A format is a function with the decorator `@exporter` in a file of this folder that is named
`export_*.py`. It returns the files by their names in the output folder::

    @exporter(help="one line per box")
    def lines(content: ExportContent, options: ExportOptions) -> ExportFiles:
        rows = [f"{i.name} {o.category.name}\n" for i in content.images for o in i.objects]
        return ExportFiles({"boxes.txt": "".join(rows).encode()})

Nothing else has to change: `--to` and `--box-format` accept every format in `EXPORTERS`.
The name of a function is the name of the format, with `-` in place of `_`. Import NumPy and other
large packages only inside functions, so that the command stays quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules

import camcli.review.exporters as package
from camcli.core.errors import UsageError, format_suggestion
from camcli.review.exporters.export_content import ExportContent, ExportFiles, ExportOptions

ExportFunction = Callable[[ExportContent, ExportOptions], ExportFiles]


@dataclass(frozen=True, slots=True)
class Exporter:
    """A format: its name in `--to`, what it is, and which fields of ExportOptions it reads."""

    name: str
    help: str
    options: tuple[str, ...]
    create_files: ExportFunction

    def check_options(self, options: ExportOptions) -> None:
        """Raise UsageError for an option that this format does not have."""
        for name in ("masks", "categories", "conf"):
            if getattr(options, name) and name not in self.options:
                names = [e.name for e in EXPORTERS.values() if name in e.options]
                raise UsageError(f"--{name} works with --to {' or '.join(names)}; omit it")


EXPORTERS: dict[str, Exporter] = {}


def exporter(
    *, help: str, options: tuple[str, ...] = ()
) -> Callable[[ExportFunction], ExportFunction]:
    """Register a function as a format, under the function's name.

    Raises ValueError when another function has the name.
    """

    def register(function: ExportFunction) -> ExportFunction:
        name = function.__name__.replace("_", "-")
        if name in EXPORTERS:
            raise ValueError(f"the format {name} is registered twice")
        EXPORTERS[name] = Exporter(name, help, options, function)
        return function

    return register


def list_exporters() -> list[Exporter]:
    """All formats, in order of their names."""
    for module in iter_modules(package.__path__):
        if module.name.startswith("export_"):
            import_module(f"{package.__name__}.{module.name}")
    return [EXPORTERS[name] for name in sorted(EXPORTERS)]


def find_exporter(name: str, option: str = "--to") -> Exporter:
    """The format with that name. Raises UsageError with near matches and all names."""
    names = [each.name for each in list_exporters()]
    if name not in names:
        near = format_suggestion(name, names)
        raise UsageError(f"{option} {name}: no such format{near} (choose from {', '.join(names)})")
    return EXPORTERS[name]
