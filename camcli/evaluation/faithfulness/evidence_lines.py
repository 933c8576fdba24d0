"""The lines of images.jsonl: the evidence of one row of one image, written and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from camcli.core.types import ImageSource
from camcli.evaluation.faithfulness.scored_image import ImageEvidence, RowEvidence
from camcli.evaluation.predictions import EvaluationRow

SCHEMA_VERSION = 1


def evidence_to_json(image: ImageEvidence, key: str) -> list[dict[str, Any]]:
    """One line per row, from which every metric of the image can be computed again."""
    shared = {
        "schema_version": SCHEMA_VERSION,
        "image": image.source.name,
        "path": str(image.source.path),
        "key": key,
        "class_index": image.class_index,
        "predicted_class": image.predicted_class,
        "true_class": image.true_class,
        "confidence": image.confidence,
        "left": dict(image.left),
        "cell_drops": list(image.cell_drops),
    }
    return [shared | _row_to_json(row) for row in image.rows]


def _row_to_json(row: RowEvidence) -> dict[str, Any]:
    return {
        "model": row.row.model,
        "method": row.row.method,
        "layers": list(row.row.layers),
        "baseline": row.row.baseline,
        "map_status": row.status,
        "pixels": row.pixel_count,
        "tied": row.tied_share,
        "coverage": row.coverage,
        "curves": {name: list(curve) for name, curve in row.curves.items()},
        "masked": row.masked,
        "at_half": row.at_half,
        "cell_sums": list(row.cell_sums),
        "group_means": list(row.group_means),
        "group_drops": list(row.group_drops),
    }


def evidence_from_json(lines: Sequence[Mapping[str, Any]]) -> ImageEvidence:
    """The evidence of an image from its lines. Raises KeyError, TypeError or ValueError."""
    first = lines[0]
    return ImageEvidence(
        source=ImageSource(Path(first["path"]), str(first["image"]), ""),
        class_index=int(first["class_index"]),
        predicted_class=int(first["predicted_class"]),
        true_class=None if first["true_class"] is None else int(first["true_class"]),
        confidence=float(first["confidence"]),
        cell_drops=[float(value) for value in first["cell_drops"]],
        left={str(fill): float(value) for fill, value in first["left"].items()},
        rows=[_row_from_json(line) for line in lines],
    )


def _row_from_json(line: Mapping[str, Any]) -> RowEvidence:
    def read(value: Any) -> float | None:
        return None if value is None else float(value)

    row = EvaluationRow(
        str(line["model"]), str(line["method"]), tuple(line["layers"]), baseline=line["baseline"]
    )
    return RowEvidence(
        row=row,
        status=line["map_status"],
        pixel_count=int(line["pixels"]),
        tied_share=float(line["tied"]),
        coverage=float(line["coverage"]),
        curves={name: [float(v) for v in curve] for name, curve in line["curves"].items()},
        masked=read(line["masked"]),
        at_half=read(line["at_half"]),
        cell_sums=[float(value) for value in line["cell_sums"]],
        group_means=[float(value) for value in line["group_means"]],
        group_drops=[float(value) for value in line["group_drops"]],
    )


def iter_earlier_evidence(
    path: Path, rows: Sequence[EvaluationRow], compute_key: Callable[[str], str | None]
) -> Iterator[tuple[ImageEvidence, list[bytes]]]:
    """Yield the images of an earlier images.jsonl that are whole and still valid, with their lines.

    The file is not trusted: torn lines, other rows and other keys are left out.
    """
    seen: set[str] = set()
    for image, group in groupby(_iter_entries(path), key=lambda entry: entry[1]["path"]):
        found = list(group)
        keys = {entry["key"] for _, entry in found}
        if image in seen or keys != {compute_key(image)}:
            continue
        try:
            evidence = evidence_from_json([entry for _, entry in found])
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
        if [row.row for row in evidence.rows] == list(rows):
            seen.add(image)
            yield evidence, [raw for raw, _ in found]


def _iter_entries(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    with path.open("rb") as file:
        for raw in file:
            try:
                entry = json.loads(raw) if raw.endswith(b"\n") else None
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and all(
                isinstance(entry.get(name), str) for name in ("path", "key")
            ):
                yield raw, entry
