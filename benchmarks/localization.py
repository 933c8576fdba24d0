"""How fast camcli scores maps, compared with the approach of wsolevaluation.

    python benchmarks/localization.py PHOTOS/     # needs: pip install -e '.[test]'

Scores Grad-CAM maps of up to 500 photographs, by the built-in CNN, against one random box each. The
two take turns map by map, on one thread, and must give the same numbers:

    camcli          all regions of all 255 grey levels in one pass: MaxBoxAcc and MaxBoxAccV2
    wsolevaluation  the evaluator of tests/reference/wsol_evaluation.py, written from the protocol
                    with OpenCV: a contour search at each of 1000 thresholds, for MaxBoxAcc and
                    again for V2
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from camcli.core.geometry import crop_visible_map
from camcli.core.types import Result
from camcli.engine.plan import plan_requests
from camcli.engine.targets import parse_target
from camcli.evaluation.datasets.annotations import Annotation, annotation_to_canvas
from camcli.evaluation.metrics.scoring import (
    CANVAS_SIDE,
    compute_hits_by_level,
    create_canvas_map,
)
from camcli.io.discovery import find_image_sources
from camcli.methods.registry import find_method
from camcli.models.model import load_model
from camcli.runs.pipeline import run_pipeline
from camcli.runs.run_config import RunConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from reference import wsol_evaluation


def _compute_maps(photos: str, count: int) -> Iterator[NDArray[np.float32]]:
    model = load_model(device="cpu")
    found = find_image_sources([photos], [], skip_folder=Path("camcli-out"))[:count]
    requests = plan_requests(model, [find_method("gradcam")])
    job = RunConfig(model, requests, parse_target("predicted")(model.labels))
    for result in run_pipeline(job, found, lambda result: result):
        if isinstance(result, Result):
            shown = result.explanations[0].fused_map.normalized
            yield crop_visible_map(shown, result.sample.view, (CANVAS_SIDE, CANVAS_SIDE))


def _time(run: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def main() -> None:
    """Score every map both ways; print the medians, their ratio, and how many numbers agree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("photos")
    parser.add_argument("--count", type=int, default=500)
    arguments = parser.parse_args()
    maps = list(_compute_maps(arguments.photos, arguments.count))
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    ours, theirs, same = [], [], 0
    for shown in maps:
        x, y = np.sort(rng.integers(0, CANVAS_SIDE, (2, 2)), axis=1)
        corners = (float(x[0]), float(y[0]), float(x[1] + 1), float(y[1] + 1))
        truth, _ = annotation_to_canvas(
            Annotation("map", Path(), 0, (corners,)), (CANVAS_SIDE, CANVAS_SIDE), CANVAS_SIDE
        )
        assert truth is not None
        boxes = truth.scaled_boxes

        def quick(shown: Any = shown, truth: Any = truth) -> Any:
            return compute_hits_by_level(create_canvas_map(shown).regions, truth)

        def slow(shown: Any = shown, boxes: Any = boxes) -> Any:
            return [
                wsol_evaluation.correct(shown, boxes, False, (0.5,)),
                wsol_evaluation.correct(shown, boxes, True),
            ]

        found, took = _time(quick)
        ours.append(took)
        expected, took = _time(slow)
        theirs.append(took)
        level = (wsol_evaluation.THRESHOLDS * 255).astype(int)
        same += bool(
            (found["single"][level] == expected[0][0]).all()
            and (found["multi"][:, level] == np.array(expected[1])).all()
        )
    ratio = median(t / o for o, t in zip(ours, theirs, strict=True))
    print(f"{len(maps)} maps of {arguments.photos}, milliseconds a map, medians")
    print(f"camcli          {1e3 * median(ours):7.2f}")
    print(f"wsolevaluation  {1e3 * median(theirs):7.2f}")
    print(f"{ratio:.1f} times as fast; {same} of {len(maps)} maps have the same numbers")


if __name__ == "__main__":
    main()
