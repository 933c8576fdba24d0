"""Write the page of a folder, whatever camcli wrote into the folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from camcli.core.errors import OutputError, UsageError, to_one_line
from camcli.io.file_names import COMPARISON_FILE, FAITHFULNESS_FILE, REPORT_FILE
from camcli.io.files import write_file
from camcli.io.results import RESULTS_FILE
from camcli.review.pages.comparison_page import create_comparison_page
from camcli.review.pages.evaluation_page import (
    create_faithfulness_page,
    create_localization_page,
)
from camcli.review.pages.page_data import ReportPage
from camcli.review.pages.render_page import render_page
from camcli.review.pages.run_page import create_run_page
from camcli.review.stored_run import open_run

PageMaker = Callable[[Path, Path, bool], ReportPage]
GENERATOR_MARK = b'name="generator" content="camcli"'


def _create_page_of_run(folder: Path, page_folder: Path, embed: bool) -> ReportPage:
    return create_run_page(open_run(folder), page_folder, embed=embed)


# By the file that tells what a folder holds.
PAGE_MAKERS: Mapping[str, PageMaker] = {
    RESULTS_FILE: _create_page_of_run,
    COMPARISON_FILE: create_comparison_page,
    REPORT_FILE: create_localization_page,
    FAITHFULNESS_FILE: create_faithfulness_page,
}


def write_report(folder: Path, page_file: Path, *, embed: bool = False) -> ReportPage:
    """Write the page of a folder and return what it shows.

    Raises UsageError if the folder holds nothing that has a page, OutputError if the file cannot
    be written or is not a page of camcli.
    """
    found = [make for name, make in PAGE_MAKERS.items() if (folder / name).is_file()]
    if not found:
        raise UsageError(
            f"{to_one_line(folder)} has none of {', '.join(PAGE_MAKERS)}; "
            "name the output folder of explain, compare or evaluate"
        )
    check_replaceable(page_file)
    page = found[0](folder, page_file.parent, embed)
    write_page_file(page, page_file)
    return page


def write_page_file(page: ReportPage, page_file: Path) -> None:
    """Write one page. Raises OutputError."""
    write_file(page_file, render_page(page))


def check_replaceable(page_file: Path) -> None:
    """Raise OutputError if a file of this name exists and camcli did not write it."""
    if not page_file.exists():
        return
    try:
        with page_file.open("rb") as file:
            start = file.read(2000)
    except OSError as error:
        raise OutputError(f"cannot write {to_one_line(page_file)}: {error.strerror}") from None
    if GENERATOR_MARK not in start:
        raise OutputError(f"{to_one_line(page_file)} exists and is no page of camcli; name another")
