"""How much `--refine` gains on photographs with boxes, beside controls.

    python benchmarks/refinement.py DATASET --method layercam,cam
    python benchmarks/refinement.py DATASET --model NAME --checkpoint FILE --method chefer

Each method gets these rows, from one forward pass:

    plain           the map as it is
    affinity        `--refine affinity`
    attention       `--refine affinity:source=attention`, on transformers
    guided          `--refine guided`
    other image     control: the affinity of another image of the batch
    blur            control: a Gaussian of one cell instead of an affinity

GT-known (IoU 0.5) is reported at the threshold that is best on the other half of the photographs,
and for Otsu's threshold of each map. Differences to the plain row are on the same photographs, with
95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from camcli.core.errors import MethodError
from camcli.engine.plan import plan_requests
from camcli.engine.refine_options import parse_refine_options
from camcli.engine.refinement import Refiner
from camcli.engine.request import Request
from camcli.evaluation.datasets.reader import DatasetPaths
from camcli.evaluation.datasets.reader_registry import read_dataset
from camcli.evaluation.localization import LocalizationConfig, run_localization
from camcli.evaluation.metrics.aggregation import compute_resample_weights
from camcli.evaluation.predictions import ANNOTATED_CLASS, ModelMaps
from camcli.evaluation.score_log import unpack_counts
from camcli.methods.option_parsing import parse_methods
from camcli.methods.registry import Method
from camcli.models.model import Model, load_model
from camcli.runs.run_config import RunConfig

SPECS = {"affinity": "affinity", "attention": "affinity:source=attention", "guided": "guided"}
RESAMPLES = 2000


def create_rows(model: Model, method: Method, layers: str | None) -> list[Request]:
    """The requests of all rows of a method; those that do not suit the model are left out."""
    (plain,) = plan_requests(model, [method], layers)
    rows = {"plain": plain}
    for name, spec in SPECS.items():
        try:
            (rows[name],) = plan_requests(
                model, [method], layers, refine=parse_refine_options(spec)
            )
        except MethodError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    refiner = rows["affinity"].refiner
    assert refiner is not None
    rows["other image"] = replace(plain, refiner=_create_other_image_control(refiner))
    rows["blur"] = replace(plain, refiner=_create_blur_control(refiner))
    return [
        replace(request, method=replace(method, name=f"{method.name} | {name}"))
        for name, request in rows.items()
    ]


def _create_other_image_control(refiner: Refiner) -> Refiner:
    """The maps move to the next image of the batch, are refined there, and move back."""

    def refine(state: Any, maps: torch.Tensor) -> torch.Tensor:
        return refiner.refine(state, maps.roll(1, dims=0)).roll(-1, dims=0)

    return replace(refiner, refine=refine)


def _create_blur_control(refiner: Refiner) -> Refiner:
    """A Gaussian of one cell on the grid of the affinity."""

    def refine(state: Any, maps: torch.Tensor) -> torch.Tensor:
        size = refiner.refine(state, maps).shape[1:]
        small = torch.nn.functional.interpolate(maps.relu()[:, None], size, mode="bilinear")[:, 0]
        return torch.from_numpy(gaussian_filter(small.numpy(), (0, 1, 1)))

    return replace(refiner, refine=refine)


@dataclass(frozen=True)
class RowScores:
    """Hits by level (N,255), and hits at the row's own threshold (N,)."""

    hits: NDArray[np.float64]
    own: NDArray[np.float64]

    def hold_out(self, halves: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[float]]:
        """Each photograph's hit at the level that is best on the other half, and both levels."""
        levels = [int(self.hits[halves == half].mean(axis=0).argmax()) for half in (1, 0)]
        chosen = np.where(halves == 0, self.hits[:, levels[0]], self.hits[:, levels[1]])
        return chosen, [level / 255 for level in levels]


def read_scores(folder: Path) -> tuple[dict[str, RowScores], NDArray[np.float64]]:
    """The scores of every row, and the bootstrap weights (N,R) of the photographs."""
    images = [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]
    names = list(dict.fromkeys((line["image"], line["class_index"]) for line in images))
    found: dict[str, dict[tuple[str, int], Any]] = defaultdict(dict)
    keys: dict[str, tuple[str, int]] = {}
    order = iter(names)
    for line in map(json.loads, (folder / "scores.jsonl").read_text().splitlines()):
        if "row" in line:
            name = keys.get(line["key"]) or keys.setdefault(line["key"], next(order))
            found[line["row"]["method"]][name] = unpack_counts(line)
    weights = np.stack([compute_resample_weights(image, RESAMPLES, 0) for image, _ in names])
    rows = {
        method: RowScores(
            np.stack([of_image[name]["single"] for name in names]),
            np.array([float(of_image[name]["gt_known"]) for name in names]),
        )
        for method, of_image in found.items()
    }
    return rows, weights


def print_rows(rows: Mapping[str, RowScores], weights: NDArray[np.float64]) -> None:
    """One line a row: held out, its difference to the plain row, the levels, Otsu."""
    halves, drawn = weights[:, 2], weights[:, 3:]
    print("| map | held out | difference | best levels | at its default |")
    print("|---|---|---|---|---|")
    for name, row in rows.items():
        chosen, levels = row.hold_out(halves)
        plain = rows.get(f"{name.partition(' | ')[0]} | plain")
        change = ""
        if plain is not None and plain is not row:
            gain = chosen - plain.hold_out(halves)[0]
            spread = (gain @ drawn) / drawn.sum(axis=0)
            low, high = np.quantile(spread, [0.025, 0.975])
            change = f"{gain.mean():+.3f} ({low:+.3f}..{high:+.3f})"
        told = ", ".join(f"{level:.2f}" for level in levels)
        print(f"| {name} | {chosen.mean():.3f} | {change} | {told} | {row.own.mean():.3f} |")


def main() -> None:
    """Evaluate all rows, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--method", default="layercam")
    parser.add_argument("--model")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--layers")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--threshold", help="of the last column, such as otsu")
    arguments = parser.parse_args()
    model = load_model(arguments.model, arguments.checkpoint, device="cpu")
    requests = tuple(
        request
        for method in parse_methods(arguments.method)
        for request in create_rows(model, method, arguments.layers)
    )
    config = RunConfig(model, requests, ANNOTATED_CLASS, threshold=arguments.threshold)
    with tempfile.TemporaryDirectory() as folder:
        paths = DatasetPaths(arguments.dataset)
        settings = LocalizationConfig(
            paths=paths,
            dataset=read_dataset(paths),
            limit=arguments.limit,
            resamples=10,
            output=Path(folder) / "out",
        )
        run_localization(settings, [ModelMaps(config)])
        rows, weights = read_scores(Path(folder) / "out")
    print(f"{model.name}, {len(weights)} photographs")
    print_rows(rows, weights)


if __name__ == "__main__":
    main()
