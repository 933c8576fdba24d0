"""How fast a folder becomes overlays, boxes and lines of JSON, beside the peers and the ideal.

    python benchmarks/pipeline.py PHOTOS          # needs: pip install -e '.[test]'
    python benchmarks/pipeline.py PHOTOS --count 1000 --rounds 3 --precision bf16 --compile

Every contender makes of each photograph the same files: an overlay as a JPEG at the original size,
the box around the largest region, and a line of JSON, of Grad-CAM at EfficientNet-Lite0's last
layer. Without PHOTOS, pictures of noise are made.

    camcli            `camcli explain`, without loading the model
    pytorch_grad_cam  the loop that its README leads to: batches of 8, cv2 to read and write
    torchcam          the loop that its README leads to: batches of 8, Pillow to read and write
    ideal             the slowest of camcli's three stages, each by itself with all cores: reading,
                      computing, writing. Nothing can be faster unless a stage becomes so
    one by one        the sum of the three stages: where computing already fills all cores, reading
                      and writing can be no more than fitted into its gaps

Contenders take turns over the same photographs, each in a process of its own and once warm, so that
other load on the machine meets all alike; ratios are medians of those within a round.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import pytorch_grad_cam
import torch
import torchcam.methods
import torchcam.utils
from PIL import Image
from pytorch_grad_cam.utils.image import show_cam_on_image
from timm.data.transforms_factory import create_transform
from torch import Tensor

from camcli.cli import app as cli
from camcli.cli import malloc as allocator
from camcli.core.concurrency import open_thread_pool, prefetch_map
from camcli.core.types import ImageSource
from camcli.engine import targets
from camcli.engine.acceleration.bn_folding import fold_batch_norms
from camcli.engine.plan import plan_requests
from camcli.io import files
from camcli.io import writers as outputs
from camcli.methods import registry as methods
from camcli.models import model as models
from camcli.runs import batch as batches
from camcli.runs import pipeline
from camcli.runs.config import RunConfig, RunState

BATCH = 8
Run = Callable[[Sequence[Path], Path], float]


def _camcli(extra: Sequence[str], photos: Sequence[Path], output: Path) -> float:
    """The command itself; the seconds are its own, of run.json, first image to last."""
    sys.argv = ["camcli", "explain", *map(str, photos), "--output", str(output), *extra]
    sys.argv += ["--format", "jsonl"]
    with redirect_stdout(StringIO()):
        status = cli.main()
    if status:
        raise SystemExit(f"camcli ended with {status}")
    seconds = json.loads((output / "run.json").read_text())["seconds"]
    return float(sum(seconds.values()))


def _tensors(photos: Sequence[Path]) -> Iterator[tuple[Sequence[Path], Tensor]]:
    """As one would: a batch after the other, squashed to the input's size."""
    transform = create_transform(
        (3, 224, 224),
        interpolation="bicubic",
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        crop_mode="squash",
        crop_pct=1.0,
    )
    for start in range(0, len(photos), BATCH):
        part = photos[start : start + BATCH]
        yield part, torch.stack([transform(Image.open(p).convert("RGB")) for p in part])


def _timed(loop: Callable[[Sequence[Path], Path], None], photos: Sequence[Path], to: Path) -> float:
    to.mkdir(parents=True)
    began = time.perf_counter()
    loop(photos, to)
    return time.perf_counter() - began


def _grad_cam(network: torch.nn.Module, layer: str) -> Run:
    own = copy.deepcopy(network).requires_grad_(True)
    cam = pytorch_grad_cam.GradCAM(own, [own.get_submodule(layer)])

    def loop(photos: Sequence[Path], to: Path) -> None:
        with (to / "results.jsonl").open("w") as lines:
            for part, inputs in _tensors(photos):
                for path, grey in zip(part, cam(inputs, targets=None), strict=True):
                    picture = np.asarray(cv2.imread(str(path)))[..., ::-1]
                    heat = cv2.resize(grey, picture.shape[1::-1])
                    shown = show_cam_on_image(np.float32(picture) / 255, heat, use_rgb=True)
                    cv2.imwrite(str(to / f"{path.stem}.jpg"), shown[..., ::-1])
                    lines.write(json.dumps({"image": path.name, "box": _box(heat)}) + "\n")

    return partial(_timed, loop)


def _torchcam(network: torch.nn.Module, layer: str) -> Run:
    own = copy.deepcopy(network).requires_grad_(True)
    extractor = torchcam.methods.GradCAM(own, layer)

    def loop(photos: Sequence[Path], to: Path) -> None:
        with (to / "results.jsonl").open("w") as lines:
            for part, inputs in _tensors(photos):
                scores = own(inputs)
                (maps,) = extractor(scores.argmax(dim=1).tolist(), scores)
                for path, small in zip(part, maps, strict=True):
                    picture = Image.open(path).convert("RGB")
                    grey = Image.fromarray(small.numpy())
                    shown = torchcam.utils.overlay_mask(picture, grey, alpha=0.5)
                    shown.save(to / f"{path.stem}.jpg", quality=90)
                    heat = np.asarray(grey.resize(picture.size, Image.Resampling.BILINEAR))
                    lines.write(json.dumps({"image": path.name, "box": _box(heat)}) + "\n")

    return partial(_timed, loop)


def _box(heat: np.ndarray[Any, np.dtype[np.float32]]) -> list[int]:
    """Around the largest contour above a fifth of the maximum."""
    above = (heat > 0.2 * heat.max()).astype(np.uint8)
    contours, _ = cv2.findContours(above, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [int(v) for v in cv2.boundingRect(max(contours, key=cv2.contourArea))]


def _stages(job: RunConfig, photos: Sequence[Path], to: Path) -> Mapping[str, float]:
    """The seconds of each stage by itself, with all cores; nothing else is done meanwhile."""
    sources = [ImageSource(path, path.name, path.stem) for path in photos]
    style, slugs = (
        outputs.DrawingStyle(job.model.input_size),
        files.create_class_slugs(job.model.labels),
    )
    seconds = {"reading": 0.0, "computing": 0.0, "writing": 0.0}

    def save(result: Any) -> None:
        boxed = pipeline.add_boxes(job, result)
        outputs.write_result(boxed, ("overlay", "boxes"), style, to, slugs)

    course = RunState.from_config(job)
    with open_thread_pool(job.workers) as pool, fold_batch_norms(job.model, job.requests):
        for start in range(0, len(sources), 20 * BATCH):
            times = [time.perf_counter()]
            part = sources[start : start + 20 * BATCH]
            samples: list[Any] = list(
                prefetch_map(pool, partial(pipeline.load_image_sample, job), part, len(part))
            )
            times.append(time.perf_counter())
            found = []
            for n in range(0, len(samples), BATCH):
                found += batches.compute_outcomes(job, samples[n : n + BATCH], course)
            times.append(time.perf_counter())
            list(prefetch_map(pool, save, [row[0] for row in found], len(found)))
            times.append(time.perf_counter())
            for n, stage in enumerate(seconds):
                seconds[stage] += times[n + 1] - times[n]
    return seconds


def _noise(folder: Path, count: int) -> list[Path]:
    drawn = np.random.default_rng(0)
    for n in range(count):
        small = drawn.integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(small).resize((341, 256)).save(folder / f"{n:05}.jpg", quality=90)
    return sorted(folder.iterdir())


def main() -> None:
    """Measure all contenders in turns; print each round, then the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("photos", type=Path, nargs="?", help="a folder of JPEG files")
    parser.add_argument("--count", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["fp32", "bf16", "auto"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contender:
        listed = [Path(line) for line in sys.stdin.read().splitlines()]
        print(json.dumps(_contend(given.contender, listed, given.to)))
        return
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "in"
        made.mkdir()
        photos = (
            sorted(given.photos.rglob("*.[jJ]*")) if given.photos else _noise(made, given.count)
        )
        _measure(photos[: given.count], Path(folder), given)


def _alone(name: str, photos: Sequence[Path], to: Path) -> dict[str, float]:
    """One contender in a process of its own, which others' settings do not reach; its seconds."""
    told = "\n".join(map(str, photos))
    command = [sys.executable, __file__, "--contender", name, "--to", str(to)]
    ran = subprocess.run(command, input=told, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _contend(name: str, photos: Sequence[Path], to: Path) -> dict[str, float]:
    """The seconds of a contender, or of each of camcli's stages; once warm."""
    if name.startswith("camcli"):
        _camcli(name.split()[1:], photos[: 4 * BATCH], to / "warm")
        return {"": _camcli(name.split()[1:], photos, to / "all")}
    if name == "stages":
        allocator.keep_freed_memory()
    model = models.load_model(None, device="cpu")
    requests = plan_requests(model, [methods.find_method("gradcam")])
    if name == "stages":
        job = RunConfig(model, requests, targets.parse_target("predicted")(model.labels))
        _stages(job, photos[: 4 * BATCH], to / "warm")
        return dict(_stages(job, photos, to / "all"))
    peer = {"pytorch_grad_cam": _grad_cam, "torchcam": _torchcam}[name]
    run = peer(model.network, requests[0].source_layers[0].name)
    run(photos[: 4 * BATCH], to / "warm")
    return {"": run(photos, to / "all")}


def _measure(photos: Sequence[Path], folder: Path, given: argparse.Namespace) -> None:
    names = ["camcli", "pytorch_grad_cam", "torchcam", "stages"]
    names += [f"camcli --precision {given.precision}"] if given.precision else []
    names += ["camcli --compile"] if given.compile else []
    packages = ("torch", "timm", "grad-cam", "torchcam", "pillow")
    print(f"{len(photos)} photographs, {os.cpu_count()} cpus,", {n: version(n) for n in packages})
    seconds: dict[str, list[float]] = defaultdict(list)
    for round_ in range(given.rounds):
        for name in names:
            told = _alone(name, photos, folder / f"{name} {round_}")
            if name == "stages":
                seconds["ideal"].append(max(told.values()))
                seconds["one by one"].append(sum(told.values()))
            else:
                seconds[name].append(told[""])
            print(f"{name:22}", {n: round(v, 2) for n, v in told.items()}, flush=True)
    print(f"\n{'contender':24}{'images/s':>9}{'camcli is':>11}")
    for name, own in seconds.items():
        ratio = median(o / c for o, c in zip(own, seconds["camcli"], strict=True))
        print(f"{name:24}{len(photos) / median(own):9.1f}{ratio:10.2f}x")


if __name__ == "__main__":
    main()
