"""Export a run: choose the results, make the files of a format, write them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from camcli.core.errors import UsageError, to_one_line
from camcli.core.plurals import format_count
from camcli.io.files import format_method_slug, list_distinct_names, shorten_stem
from camcli.review.exporters.coco_matching import match_to_annotations
from camcli.review.exporters.content_builder import create_content
from camcli.review.exporters.export_content import ExportContent, ExportOptions
from camcli.review.exporters.export_folder import write_export
from camcli.review.exporters.exporter_registry import Exporter
from camcli.review.exporters.row_selection import ExportRow, list_rows
from camcli.review.stored_run import StoredRun


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was written, in which folder; what could not be, and what the reader should know."""

    folder: Path
    image_count: int
    box_count: int
    class_count: int
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def choose_export_folder(run_folder: Path, exporter: Exporter) -> Path:
    """The folder without `--output`, such as `RUN/export-coco`.

    Raises UsageError if it is a link, because a run can come from anywhere.
    """
    folder = run_folder / f"export-{exporter.name}"
    if folder.is_symlink():
        raise UsageError(f"{to_one_line(folder)} is a link; name a folder with --output")
    return folder


def export_row(
    run: StoredRun,
    row: ExportRow | None,
    exporter: Exporter,
    options: ExportOptions,
    folder: Path,
    *,
    overwrite: bool = False,
) -> ExportSummary:
    """Write the results of one row in a format. Raises UsageError and OutputError."""
    content, problems = create_content(run, row), list[str]()
    if options.categories:
        content, problems = match_to_annotations(content, options.categories)
    files = exporter.create_files(content, options)
    about = {
        "format": exporter.name,
        "model": content.model,
        "method": content.method,
        "layers": list(row.layers) if row else [],
    }
    write_export(folder, files, about, overwrite=overwrite)
    return ExportSummary(
        folder=folder,
        image_count=len(content.images),
        box_count=content.object_count,
        class_count=len(content.categories),
        problems=(*problems, *files.problems),
        notes=(*_list_notes(run, content), *files.notes),
    )


def export_every_row(run: StoredRun, exporter: Exporter) -> Iterator[ExportSummary]:
    """Export each row into the run's own folder; several rows get a folder each.

    An earlier export of the run is replaced. Raises UsageError and OutputError.
    """
    folder, rows = choose_export_folder(run.folder, exporter), list_rows(run)
    names = list_distinct_names([shorten_stem(format_method_slug(row.method)) for row in rows])
    for row, name in zip(rows, names, strict=True):
        own_folder = folder / name if len(rows) > 1 else folder
        yield export_row(run, row, exporter, ExportOptions(), own_folder, overwrite=True)


def _list_notes(run: StoredRun, content: ExportContent) -> list[str]:
    notes = []
    if run.failures:
        known = {image.path for image in content.images}
        lost_count = len({failure.path for failure in run.failures} - known)
        if lost_count:
            notes.append(f"{format_count(lost_count, 'failed image')} left out: of unknown size")
    if not content.object_count:
        notes.append("the run has no boxes, so the files are without any")
    return notes
