"""scores.jsonl: every score with all its counts, from which `--resume` continues an evaluation."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from camcli.core.errors import UsageError, to_one_line
from camcli.evaluation.baselines import BASELINE_NAMES
from camcli.evaluation.datasets.annotations import FAILURE_KINDS, Corners, Problem
from camcli.evaluation.datasets.evaluation_samples import EvaluationSample
from camcli.evaluation.metrics.scoring import MapScore
from camcli.evaluation.predictions import EvaluationRow, MapSource, ModelMaps
from camcli.evaluation.scores import FoundBoxes, ImageScore, create_baseline_row
from camcli.io.jsonl import ResultsLog
from camcli.runs.manifest import compute_weights_digest
from camcli.runs.pipeline import find_file_stamp

Line = Mapping[str, Any]


@dataclass(slots=True)
class EarlierScores:
    """The lines of an earlier scores.jsonl, by the key of their sample and by image."""

    path: Path
    scores_by_key: dict[str, list[Line]] = field(default_factory=dict)
    problems_by_image: dict[str, list[Problem]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> EarlierScores:
        """Read a file that is not trusted: skip what is no line, and cut off a torn end."""
        found = cls(path)
        if not path.is_file():
            return found
        whole = 0
        with path.open("rb+") as file:
            for raw in file:
                if not raw.endswith(b"\n"):
                    break
                whole += len(raw)
                found._add_line(raw)
            file.truncate(whole)
        return found

    def _add_line(self, raw: bytes) -> None:
        try:
            line = json.loads(raw)
            if "problem" in line:
                problem = Problem(*(str(value) for value in line["problem"]))  # type: ignore[arg-type]
                self.problems_by_image.setdefault(problem.location, []).append(problem)
            else:
                self.scores_by_key.setdefault(str(line["key"]), []).append(line)
        except (ValueError, TypeError, KeyError, RecursionError):
            return

    def check_has_any(self, keys: Iterable[str]) -> None:
        """Raise UsageError if the file has scores, but none with one of these keys."""
        if self.scores_by_key and self.scores_by_key.keys().isdisjoint(keys):
            raise UsageError(
                f"cannot resume: {to_one_line(self.path.parent)} has scores of other settings, "
                "weights or images. Choose another --output, or replace them with --overwrite"
            )

    def find_done(
        self,
        samples: Sequence[EvaluationSample],
        keys: Mapping[int, str],
        rows: Sequence[EvaluationRow],
    ) -> dict[int, list[ImageScore]]:
        """The scores of each sample that has one for every row, by the sample's index.

        `keys` has the key of each sample.
        """
        found = {s.index: self._find_scores(keys[s.index], s, rows) for s in samples}
        return {index: scores for index, scores in found.items() if scores}

    def _find_scores(
        self, key: str, sample: EvaluationSample, rows: Sequence[EvaluationRow]
    ) -> list[ImageScore]:
        try:
            scores = [_score_from_json(line, sample) for line in self.scores_by_key.get(key, ())]
        except (ValueError, TypeError, KeyError, AttributeError, zlib.error):
            return []
        by_row = {score.row: score for score in scores}
        return [by_row[row] for row in rows] if by_row.keys() >= set(rows) else []

    def list_problems(self, images: Collection[str]) -> list[Problem]:
        """The problems of these images."""
        return [problem for image in images for problem in self.problems_by_image.get(image, ())]


def list_all_rows(rows: Sequence[EvaluationRow]) -> list[EvaluationRow]:
    """The rows of a source with their baselines."""
    return [*rows, *(create_baseline_row(rows[0], name) for name in BASELINE_NAMES)]


def compute_sample_keys(
    source: MapSource, samples: Sequence[EvaluationSample], settings: Mapping[str, Any], seed: int
) -> dict[int, str]:
    """A digest of all that the scores of each sample depend on, by the sample's index."""
    source_key = _compute_source_key(source, settings, seed)
    return {sample.index: _compute_sample_key(source_key, sample) for sample in samples}


def _compute_source_key(source: MapSource, settings: Mapping[str, Any], seed: int) -> str:
    """A digest of what scores depend on besides images: settings, rows and weights."""
    model = source.config.model if isinstance(source, ModelMaps) else None
    weights = [compute_weights_digest(model.network), asdict(model.transform)] if model else []
    rows = [asdict(row) for row in source.rows]
    text = json.dumps([settings, seed, rows, source.labels.names, weights], default=str)
    return sha256(text.encode(errors="replace")).hexdigest()


def _compute_sample_key(source_key: str, sample: EvaluationSample) -> str:
    """A digest of all that the scores of a sample depend on."""
    annotation = sample.annotation
    stamp = find_file_stamp(annotation.image_path)
    own = (annotation.image_name, sample.class_index, annotation.boxes, annotation.size, stamp)
    return sha256(f"{source_key} {own}".encode(errors="replace")).hexdigest()[:16]


def append_score(log: ResultsLog, key: str, image_score: ImageScore) -> None:
    """Append one score with its counts. Raises StorageError."""
    score = image_score.score
    names = list(score.counts)
    values = [np.asarray(score.counts[name], np.float64) for name in names]
    packed = zlib.compress(b"".join(value.tobytes() for value in values))
    log.append(
        {
            "key": key,
            "row": asdict(image_score.row),
            "status": image_score.status,
            "rank": image_score.rank,
            "iou": score.iou,
            "pointing": score.is_pointing_hit,
            "split": score.error_type,
            "shapes": {n: list(v.shape) for n, v in zip(names, values, strict=True)},
            "counts": b64encode(packed).decode(),
            "boxes": image_score.found_boxes and asdict(image_score.found_boxes),
        }
    )


def append_problem(log: ResultsLog, problem: Problem) -> None:
    """Append a problem of an image that has scores, so that a resumed evaluation reports it too."""
    if problem.kind not in FAILURE_KINDS:
        log.append({"problem": [problem.kind, problem.location, problem.detail]})


def _score_from_json(line: Line, sample: EvaluationSample) -> ImageScore:
    own = line["row"]
    row = EvaluationRow(
        str(own["model"]),
        str(own["method"]),
        tuple(own["layers"]),
        own["threshold"],
        bool(own["baseline"]),
    )
    score = MapScore(unpack_counts(line), float(line["iou"]), bool(line["pointing"]), line["split"])
    rank = None if line["rank"] is None else int(line["rank"])
    found_boxes = _boxes_from_json(line.get("boxes"))
    return ImageScore(row, sample, score, str(line["status"]), rank, found_boxes)


def _boxes_from_json(boxes: Mapping[str, Any] | None) -> FoundBoxes | None:
    """The boxes of a line; None for a baseline, and for lines of before they were written."""
    if boxes is None:
        return None
    width, height = map(int, boxes["image_size"])
    found, truth = (tuple(map(_read_corners, boxes[key])) for key in ("boxes", "truth_boxes"))
    return FoundBoxes((width, height), found, truth)


def _read_corners(box: Any) -> Corners:
    """Four numbers, whole ones as such. Raises ValueError or TypeError for anything else."""
    x1, y1, x2, y2 = (edge if isinstance(edge, int) else float(edge) for edge in box)
    return x1, y1, x2, y2


def unpack_counts(line: Line) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """The counts of one line, by the name of their metric."""
    values = np.frombuffer(zlib.decompress(b64decode(line["counts"])), np.float64)
    counts, start = {}, 0
    for name, shape in line["shapes"].items():
        size = int(np.prod(shape, dtype=np.int64))
        counts[str(name)] = values[start : start + size].reshape(shape)
        start += size
    return counts
