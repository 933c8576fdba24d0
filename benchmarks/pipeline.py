"""How fast camcli turns a folder into overlays, boxes and JSON, compared with peers.

    python benchmarks/pipeline.py PHOTOS          # needs: pip install -e '.[test]'
    python benchmarks/pipeline.py PHOTOS --count 1000 --rounds 3 --precision bf16 --compile

Every contender computes Grad-CAM at EfficientNet-Lite0's last layer and writes the same for each
photograph: an overlay as a JPEG at the original size, and a line of JSON with the box around the
largest region. Without PHOTOS, the benchmark creates images of noise.

    camcli            `camcli explain`, without the time to load the model
    pytorch_grad_cam  the loop that its README suggests: batches of 8, cv2 to read and write
    torchcam          the loop that its README suggests: batches of 8, Pillow to read and write
    ideal             the slowest of camcli's three stages (reading, computing, writing), each alone
                      with all cores: a bound that camcli cannot exceed
    one by one        the sum of the three stages: the speed without any overlap of them

Contenders take turns over the same photographs, each in its own process and after a warm-up, so
that other load on the machine affects all of them alike. Ratios are medians of those in a round.
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

from camcli.cli.app import main as run_camcli
from camcli.cli.malloc import keep_freed_memory
from camcli.core.concurrency import open_thread_pool, prefetch_map
from camcli.core.types import ImageSource
from camcli.engine.acceleration.bn_folding import fold_batch_norms
from camcli.engine.plan import plan_requests
from camcli.engine.targets import parse_target
from camcli.io.files import create_class_slugs
from camcli.io.writers import DrawingStyle, write_result
from camcli.methods.registry import find_method
from camcli.models.model import load_model
from camcli.runs.batch import compute_outcomes
from camcli.runs.pipeline import add_boxes, load_image_sample
from camcli.runs.run_config import RunConfig, RunState

BATCH = 8
Run = Callable[[Sequence[Path], Path], float]


def _explain(extra: Sequence[str], photos: Sequence[Path], output: Path) -> float:
    """The command itself; returns the seconds in its run.json, from first to last image."""
    sys.argv = ["camcli", "explain", *map(str, photos), "--output", str(output), *extra]
    sys.argv += ["--format", "jsonl"]
    with redirect_stdout(StringIO()):
        status = run_camcli()
    if status:
        raise SystemExit(f"camcli ended with {status}")
    seconds = json.loads((output / "run.json").read_text())["seconds"]
    return float(sum(seconds.values()))


def _iter_batches(photos: Sequence[Path]) -> Iterator[tuple[Sequence[Path], Tensor]]:
    """The simple way: batch after batch, squashed to the size of the input."""
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


def _time(loop: Callable[[Sequence[Path], Path], None], photos: Sequence[Path], to: Path) -> float:
    to.mkdir(parents=True)
    start = time.perf_counter()
    loop(photos, to)
    return time.perf_counter() - start


def _create_grad_cam(network: torch.nn.Module, layer: str) -> Run:
    own = copy.deepcopy(network).requires_grad_(True)
    cam = pytorch_grad_cam.GradCAM(own, [own.get_submodule(layer)])

    def loop(photos: Sequence[Path], to: Path) -> None:
        with (to / "results.jsonl").open("w") as lines:
            for part, inputs in _iter_batches(photos):
                for path, grey in zip(part, cam(inputs, targets=None), strict=True):
                    picture = np.asarray(cv2.imread(str(path)))[..., ::-1]
                    heat = cv2.resize(grey, picture.shape[1::-1])
                    shown = show_cam_on_image(np.float32(picture) / 255, heat, use_rgb=True)
                    cv2.imwrite(str(to / f"{path.stem}.jpg"), shown[..., ::-1])
                    lines.write(json.dumps({"image": path.name, "box": _find_box(heat)}) + "\n")

    return partial(_time, loop)


def _create_torchcam(network: torch.nn.Module, layer: str) -> Run:
    own = copy.deepcopy(network).requires_grad_(True)
    extractor = torchcam.methods.GradCAM(own, layer)

    def loop(photos: Sequence[Path], to: Path) -> None:
        with (to / "results.jsonl").open("w") as lines:
            for part, inputs in _iter_batches(photos):
                scores = own(inputs)
                (maps,) = extractor(scores.argmax(dim=1).tolist(), scores)
                for path, small in zip(part, maps, strict=True):
                    picture = Image.open(path).convert("RGB")
                    grey = Image.fromarray(small.numpy())
                    shown = torchcam.utils.overlay_mask(picture, grey, alpha=0.5)
                    shown.save(to / f"{path.stem}.jpg", quality=90)
                    heat = np.asarray(grey.resize(picture.size, Image.Resampling.BILINEAR))
                    lines.write(json.dumps({"image": path.name, "box": _find_box(heat)}) + "\n")

    return partial(_time, loop)


def _find_box(heat: np.ndarray[Any, np.dtype[np.float32]]) -> list[int]:
    """Around the largest contour above a fifth of the maximum."""
    above = (heat > 0.2 * heat.max()).astype(np.uint8)
    contours, _ = cv2.findContours(above, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [int(v) for v in cv2.boundingRect(max(contours, key=cv2.contourArea))]


def _measure_stages(job: RunConfig, photos: Sequence[Path], to: Path) -> Mapping[str, float]:
    """The seconds of each stage alone, with all cores and nothing else at the same time."""
    sources = [ImageSource(path, path.name, path.stem) for path in photos]
    style, slugs = (
        DrawingStyle(job.model.input_size),
        create_class_slugs(job.model.labels),
    )
    seconds = {"reading": 0.0, "computing": 0.0, "writing": 0.0}

    def save(result: Any) -> None:
        boxed = add_boxes(job, result)
        write_result(boxed, ("overlay", "boxes"), style, to, slugs)

    state = RunState.from_config(job)
    with open_thread_pool(job.workers) as pool, fold_batch_norms(job.model, job.requests):
        for start in range(0, len(sources), 20 * BATCH):
            times = [time.perf_counter()]
            part = sources[start : start + 20 * BATCH]
            samples: list[Any] = list(
                prefetch_map(pool, partial(load_image_sample, job), part, len(part))
            )
            times.append(time.perf_counter())
            found = []
            for n in range(0, len(samples), BATCH):
                found += compute_outcomes(job, samples[n : n + BATCH], state)
            times.append(time.perf_counter())
            list(prefetch_map(pool, save, [row[0] for row in found], len(found)))
            times.append(time.perf_counter())
            for n, stage in enumerate(seconds):
                seconds[stage] += times[n + 1] - times[n]
    return seconds


def _create_noise_images(folder: Path, count: int) -> list[Path]:
    generator = np.random.default_rng(0)
    for n in range(count):
        small = generator.integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(small).resize((341, 256)).save(folder / f"{n:05}.jpg", quality=90)
    return sorted(folder.iterdir())


def main() -> None:
    """Let all contenders take turns; print each round, then the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("photos", type=Path, nargs="?", help="a folder of JPEG files")
    parser.add_argument("--count", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["fp32", "bf16", "auto"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        listed = [Path(line) for line in sys.stdin.read().splitlines()]
        print(json.dumps(_run_contender(options.contender, listed, options.to)))
        return
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "in"
        made.mkdir()
        photos = (
            sorted(options.photos.rglob("*.[jJ]*"))
            if options.photos
            else _create_noise_images(made, options.count)
        )
        _measure(photos[: options.count], Path(folder), options)


def _run_in_process(name: str, photos: Sequence[Path], to: Path) -> dict[str, float]:
    """The seconds of one contender in its own process, free from the settings of the others."""
    names = "\n".join(map(str, photos))
    command = [sys.executable, __file__, "--contender", name, "--to", str(to)]
    ran = subprocess.run(command, input=names, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _run_contender(name: str, photos: Sequence[Path], to: Path) -> dict[str, float]:
    """The seconds of a contender, or of each of camcli's stages, after a warm-up."""
    if name.startswith("camcli"):
        _explain(name.split()[1:], photos[: 4 * BATCH], to / "warm")
        return {"": _explain(name.split()[1:], photos, to / "all")}
    if name == "stages":
        keep_freed_memory()
    model = load_model(None, device="cpu")
    requests = plan_requests(model, [find_method("gradcam")])
    if name == "stages":
        job = RunConfig(model, requests, parse_target("predicted")(model.labels))
        _measure_stages(job, photos[: 4 * BATCH], to / "warm")
        return dict(_measure_stages(job, photos, to / "all"))
    peer = {"pytorch_grad_cam": _create_grad_cam, "torchcam": _create_torchcam}[name]
    run = peer(model.network, requests[0].source_layers[0].name)
    run(photos[: 4 * BATCH], to / "warm")
    return {"": run(photos, to / "all")}


def _measure(photos: Sequence[Path], folder: Path, options: argparse.Namespace) -> None:
    names = ["camcli", "pytorch_grad_cam", "torchcam", "stages"]
    names += [f"camcli --precision {options.precision}"] if options.precision else []
    names += ["camcli --compile"] if options.compile else []
    packages = ("torch", "timm", "grad-cam", "torchcam", "pillow")
    print(f"{len(photos)} photographs, {os.cpu_count()} cpus,", {n: version(n) for n in packages})
    seconds: dict[str, list[float]] = defaultdict(list)
    for round_ in range(options.rounds):
        for name in names:
            taken = _run_in_process(name, photos, folder / f"{name} {round_}")
            if name == "stages":
                seconds["ideal"].append(max(taken.values()))
                seconds["one by one"].append(sum(taken.values()))
            else:
                seconds[name].append(taken[""])
            print(f"{name:22}", {n: round(v, 2) for n, v in taken.items()}, flush=True)
    print(f"\n{'contender':24}{'images/s':>9}{'camcli is':>11}")
    for name, own in seconds.items():
        ratio = median(o / c for o, c in zip(own, seconds["camcli"], strict=True))
        print(f"{name:24}{len(photos) / median(own):9.1f}{ratio:10.2f}x")


if __name__ == "__main__":
    main()
