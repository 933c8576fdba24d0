"""How fast camcli computes maps on the CPU, compared with the forward pass and with peers.

    python benchmarks/throughput.py         # needs: pip install -e '.[test]'
    python benchmarks/throughput.py --cases lite0 vgg16 --rounds 10 --json throughput.json

Measures one batch of noise, for the top class of every image. Reads and writes no image:

    forward           the network alone, without gradients
    camcli            `explain_batch` on planned requests: maps, fused maps and their statuses
    pytorch_grad_cam  as in its README, created once: cam(inputs, targets)
    torchcam          as in its README, created once: extractor(classes, model(inputs)), `fuse_cams`

Peers run on copies of the network, because they need gradients of its weights, and at the same
layers as camcli. Neither has TS-CAM. pytorch_grad_cam resizes every map to the input and averages
over layers. The other two resize only to fuse layers, by their maximum. Weights are random except
Lite0's.

Contenders take turns, so that other load on the machine affects all of them alike. `images/s` is
the median of the rounds. `of forward` is the speed as a share of the forward pass, and `camcli is`
tells how many times as fast camcli is. Both are medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_grad_cam
import torch
import torchcam.methods
from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform
from torch import Tensor

from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.engine.request import Request
from camcli.methods.registry import find_method
from camcli.models.introspection.selectors import create_layer_specs
from camcli.models.model import Model, load_model

Run = Callable[[], Any]
Seconds = Mapping[str, list[float]]

PEERS = {"gradcam": "GradCAM", "layercam": "LayerCAM"}  # the name of the class in both peers


@dataclass(frozen=True, slots=True)
class Case:
    """One method on one network, and its default number of rounds."""

    title: str
    network: str | None  # a timm name, or None for the built-in Lite0
    method: str
    rounds: int
    layers: str | None = None
    block: int | None = None


CASES = {
    "lite0": Case("Lite0, Grad-CAM, stage 5", None, "gradcam", 15, "stage5"),
    "resnet50": Case("ResNet-50, Grad-CAM, stage 5", "resnet50", "gradcam", 5, "stage5"),
    "vgg16": Case("VGG16, LayerCAM, stages 1..5", "vgg16", "layercam", 3, "stage1..5"),
    "deit": Case("DeiT-S, Grad-CAM, block 11", "deit_small_patch16_224", "gradcam", 5, block=11),
    "tscam": Case("DeiT-S, TS-CAM", "deit_small_patch16_224", "tscam", 11),
}


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one contender in one case."""

    case: str
    contender: str
    images_per_second: float
    of_forward: float
    camcli_is: float
    seconds: list[float]


def _create_peers(model: Model, inputs: Tensor, request: Request) -> dict[str, Run]:
    name, names = PEERS[request.method.name], [layer.name for layer in request.layers]
    one, two = (copy.deepcopy(model.network).requires_grad_(True) for _ in range(2))
    reshape = vit_reshape_transform if request.layers[0].layout == "NLC" else None
    tapped = [one.get_submodule(layer) for layer in names]
    cam = getattr(pytorch_grad_cam, name)(one, tapped, reshape_transform=reshape)
    extractor = getattr(torchcam.methods, name)(two, names, reshape_transform=reshape)

    def torchcam_maps() -> Any:
        scores = two(inputs)
        maps = extractor(scores.argmax(dim=1).tolist(), scores)
        return extractor.fuse_cams(maps, model.input_size)

    return {"pytorch_grad_cam": partial(cam, inputs, targets=None), "torchcam": torchcam_maps}


def _create_contenders(case: Case, batch: int) -> dict[str, Run]:
    torch.manual_seed(0)
    model = load_model(case.network, size=(224, 224), device="cpu", pretrained=False)
    inputs = torch.randn(batch, 3, *model.input_size)
    (layer_spec,) = create_layer_specs(case.layers, case.block)
    requests = plan_requests(model, [find_method(case.method)], layer_spec)
    runs: dict[str, Run] = {
        "forward": torch.no_grad()(partial(model.network, inputs)),
        "camcli": lambda: explain_batch(model, inputs, requests, lambda x: x.topk(1).indices),
    }
    status = set(runs["camcli"]()[0][0].fused.status_names)
    if status != {"ok"}:
        raise SystemExit(f"{case.title}: nothing to compare, the maps are {sorted(status)}")
    return runs | (_create_peers(model, inputs, requests[0]) if case.method in PEERS else {})


def _measure(runs: Mapping[str, Run], rounds: int) -> Seconds:
    """The seconds of every contender in every round, after one round to warm up."""
    seconds: Seconds = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: own[1:] for name, own in seconds.items()}


def _compute_rows(case: Case, seconds: Seconds, batch: int) -> Iterator[Row]:
    for name, own in seconds.items():
        of_forward = median(f / s for f, s in zip(seconds["forward"], own, strict=True))
        camcli_is = median(s / c for s, c in zip(own, seconds["camcli"], strict=True))
        yield Row(case.title, name, batch / median(own), of_forward, camcli_is, own)


def main() -> None:
    """Measure the chosen cases one after another; print each as soon as it is done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, help="default: 3 to 15, fewer for slower cases")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write all times to this file"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    header = {"cpus": os.cpu_count(), "threads": options.threads, "batch": options.batch_size}
    header |= {name: version(name) for name in ("torch", "timm", "grad-cam", "torchcam")}
    print(", ".join(f"{key} {value}" for key, value in header.items()), end="\n\n")
    print(f"{'case':30}{'contender':17}{'images/s':>9}{'of forward':>12}{'camcli is':>11}")
    rows: list[Row] = []
    for case in (CASES[key] for key in options.cases):
        seconds = _measure(
            _create_contenders(case, options.batch_size), options.rounds or case.rounds
        )
        for row in _compute_rows(case, seconds, options.batch_size):
            speed = f"{row.images_per_second:9.1f}{row.of_forward:12.2f}{row.camcli_is:10.2f}x"
            print(f"{row.case:30}{row.contender:17}{speed}", flush=True)
            rows.append(row)
    if options.json:
        report = {"header": header, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
