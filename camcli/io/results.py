"""The lines of results.jsonl, as `results.schema.json` describes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from camcli.core.types import ClassExplanation, Failure, FileStamp, Result, Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from camcli.core.geometry import View

RESULTS_SCHEMA_VERSION = 1
RESULTS_FILE = "results.jsonl"
RUN_FILE = "run.json"


def outcome_to_json(outcome: Result | Failure, model_name: str, run_key: str) -> dict[str, Any]:
    """One line of results.jsonl: the results of a method for an image, or the failure.

    `run_key` is the digest of the run's settings and weights.
    """
    if isinstance(outcome, Failure):
        return failure_to_json(outcome) | {"model": model_name}
    return _result_to_json(outcome, model_name) | {
        "key": compute_result_key(run_key, outcome.sample.file_stamp)
    }


def compute_result_key(run_key: str, file_stamp: FileStamp | None) -> str:
    """A digest of all that a result depends on: settings, weights, and the image file."""
    return sha256(f"{run_key} {file_stamp}".encode()).hexdigest()[:16]


def sample_to_json(sample: Sample) -> dict[str, Any]:
    """The first fields of every line about a readable image."""
    line = {
        "schema_version": RESULTS_SCHEMA_VERSION,
        "image": sample.source.name,
        "path": str(sample.source.path),
        "width": sample.view.image_width,
        "height": sample.view.image_height,
        "status": "ok",
    }
    return line | ({"has_more_frames": True} if sample.has_more_frames else {})


def failure_to_json(item: Failure) -> dict[str, Any]:
    """The line of an image without a result."""
    return {
        "schema_version": RESULTS_SCHEMA_VERSION,
        "image": item.name,
        "path": item.path,
        "status": "failed",
        "error": item.reason,
    }


def _result_to_json(result: Result, model_name: str) -> dict[str, Any]:
    line = {
        **sample_to_json(result.sample),
        "model": model_name,
        "method": result.method_name,
        "layers": list(result.layer_names),
        "threshold": result.threshold,
        "explanations": [
            explanation_to_json(shown) | _mask_to_json(result, shown, files) | {"files": files}
            for shown, files in zip(result.explanations, result.output_files, strict=True)
        ],
    }
    refine = {"refine": result.refine} if result.refine else {}
    head = {"head": result.head_kind} if result.head_kind else {}
    return line | refine | head | _view_to_json(result.sample.view)


def _view_to_json(view: View) -> dict[str, Any]:
    """The rectangle that the maps cover, if it is not the whole image."""
    from camcli.core.geometry import View

    if view == View.from_whole_image(*view.image_size):
        return {}
    edges = {"left": view.left, "top": view.top, "right": view.right, "bottom": view.bottom}
    return {"view": {name: round(float(position), 3) for name, position in edges.items()}}


def explanation_to_json(explanation: ClassExplanation) -> dict[str, Any]:
    """The fields of one class, without the names of its files."""
    failing = {
        p.name: p.status
        for p in (*explanation.layer_maps, *explanation.part_maps)
        if p.status != "ok"
    }
    return {
        "class_index": explanation.class_index,
        "class_name": None if explanation.class_index is None else explanation.class_name,
        **({"against": _rivals_to_json(explanation)} if explanation.rival_classes else {}),
        "score": round(explanation.score, 6) if math.isfinite(explanation.score) else None,
        **_target_to_json(explanation),
        "map_status": explanation.fused_map.status,
        **({"layer_status": failing} if failing else {}),
        "boxes": [asdict(box) for box in explanation.boxes],
    }


def _target_to_json(explanation: ClassExplanation) -> dict[str, Any]:
    """What was asked for, and whether the network predicts the class."""
    if explanation.score_kind == "none":
        return {}
    targets = {"targets": list(explanation.targets)} if any(explanation.targets) else {}
    if explanation.score_kind == "probability":
        return {**targets, "predicted": explanation.is_predicted}
    side = {"direction": "low" if explanation.is_low else "high"}
    is_value = explanation.score_kind == "value"
    return {"score_kind": explanation.score_kind, **targets, **(side if is_value else {})}


def create_mask(explanation: ClassExplanation, view: View) -> NDArray[np.bool_]:
    """The pixels of the image that the boxes bound: (height, width); none without an answer."""
    import numpy as np

    from camcli.core.boxes import region_to_mask

    if explanation.region is None:
        return np.zeros((view.image_height, view.image_width), np.bool_)
    return region_to_mask(explanation.region, view)


def _mask_to_json(
    result: Result, explanation: ClassExplanation, files: Mapping[str, str]
) -> dict[str, Any]:
    """The mask in COCO's run-length encoding, if the run saves masks."""
    from camcli.core.run_length import encode_mask

    if "mask" not in files:
        return {}
    return {"mask": encode_mask(create_mask(explanation, result.sample.view))}


def _rivals_to_json(explanation: ClassExplanation) -> list[dict[str, Any]]:
    return [{"class_index": index, "class_name": name} for index, name in explanation.rival_classes]
