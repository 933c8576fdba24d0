"""Choose one row of results of a run: those of one method, read at the same layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from camcli.core.errors import UsageError, format_suggestion, to_one_line
from camcli.review.result_lines import StoredResult
from camcli.review.stored_run import StoredRun


@dataclass(frozen=True, slots=True)
class ExportRow:
    """A method and the layers that it read; a run with `--layers` given twice has two rows."""

    method: str
    layers: tuple[str, ...] = ()

    def has(self, result: StoredResult) -> bool:
        """Whether a result belongs to this row."""
        return (result.method, result.layers) == (self.method, self.layers)

    @property
    def layer_text(self) -> str:
        """The layers as `--layers` takes them: "blocks.3,blocks.7"."""
        return ",".join(self.layers)


def list_rows(run: StoredRun) -> list[ExportRow]:
    """The rows of a run, in order of first appearance."""
    return list(dict.fromkeys(ExportRow(r.method, r.layers) for r in run))


def select_row(run: StoredRun, method: str | None, layers: str | None) -> ExportRow | None:
    """The row of that name, or the only one; None for a run without results.

    Raises UsageError if there is no such row, or if there is a choice.
    """
    rows = list_rows(run)
    rows = _select(rows, "--method", method, [row.method for row in rows])
    rows = _select(rows, "--layers", layers, [row.layer_text for row in rows])
    return rows[0] if rows else None


def _select(
    rows: list[ExportRow], option: str, wanted: str | None, values: Sequence[str]
) -> list[ExportRow]:
    """The rows with the wanted value, or all of them if all have the same value."""
    names = list(dict.fromkeys(values))
    shown = to_one_line(" or ".join(names))[:600]
    if wanted is None:
        if len(names) > 1:
            raise UsageError(f"the run has several results of an image: add {option} {shown}")
        return rows
    if wanted not in names:
        near = format_suggestion(wanted, names)
        has = f"the run has {shown}" if names else "the run has no results"
        raise UsageError(f"{option} {wanted}: not in this run{near}; {has}")
    return [row for row, value in zip(rows, values, strict=True) if value == wanted]
