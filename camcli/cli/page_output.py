"""Write a report page, and say what it shows and what it misses."""

from __future__ import annotations

from pathlib import Path

from camcli.cli.console import print_error, print_info
from camcli.core.errors import to_one_line
from camcli.io.results import RESULTS_FILE

PAGE_FILE = "report.html"


def write_page(folder: Path, page_file: Path, *, embed: bool = False) -> Path:
    """Write the page of a folder and print its size and its problems. Returns the file."""
    from camcli.review.pages.write_page import write_report

    page = write_report(folder, page_file, embed=embed)
    for note in page.notes:
        print_error(note)
    size = page_file.stat().st_size
    text = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} KB"
    print_info(f"a page of {len(page.items)} results, {text}")
    return page_file


def print_report(folder: Path) -> None:
    """Write the page of a run that ended, if the run has results, and say where it is."""
    if (folder / RESULTS_FILE).is_file():
        print_info(f"open {to_one_line(write_page(folder, folder / PAGE_FILE))}")
