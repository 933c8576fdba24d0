"""How fast camcli measures faithfulness, compared with peers, on the same maps.

    python benchmarks/faithfulness.py PHOTOS      # needs: pip install -e '.[test]'
    python benchmarks/faithfulness.py PHOTOS --count 8

The network is the built-in EfficientNet-Lite0, and the maps are camcli's Grad-CAM maps.

    ROAD                camcli's `road`: 9 shares, both orders, beside pytorch-grad-cam's
                        ROADCombined; without noise in both, for each draws its own
    insertion/deletion  camcli with a grey fill in both, beside torch-cam's, at the same steps

Contenders take turns over the same photographs. A pass is one image through the network. Times are
CPU seconds of this process, so that other load on the machine does not count; ratios are of sums.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import camcli
from camcli.core.types import ImageSource
from camcli.evaluation.faithfulness.faithfulness_metrics import (
    METRICS,
    compute_shares,
    parse_metrics,
)
from camcli.evaluation.faithfulness.faithfulness_options import Blur
from camcli.evaluation.faithfulness.fills import create_fills
from camcli.evaluation.faithfulness.masked_passes import PassPlan
from camcli.evaluation.faithfulness.metric_values import compute_area, compute_insertion
from camcli.evaluation.faithfulness.pass_runner import PassRunner
from camcli.evaluation.faithfulness.pixel_ranks import create_tie_order, rank_pixels
from camcli.evaluation.faithfulness.scored_image import PixelMap, PreparedImage
from camcli.evaluation.predictions import EvaluationRow
from camcli.io.discovery import find_image_sources
from camcli.io.images import load_image
from camcli.io.transforms import compute_view, preprocess_image

ROAD_PERCENTILES = [10, 20, 30, 40, 50, 60, 70, 80, 90]
STEPS = 20


class CountingNetwork(nn.Module):
    """A network that counts the images that it sees."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.count = network, 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Count and run."""
        self.count += len(inputs)
        logits: Tensor = self.network(inputs)
        return logits


def prepare(model: Any, source: ImageSource) -> tuple[PreparedImage, Tensor]:
    """One photograph with its Grad-CAM map, without ties: (H,W) in [0,1]."""
    image = load_image(source.path)
    inputs = torch.from_numpy(
        preprocess_image(
            image, compute_view(*image.size, model.transform, "squash"), model.transform
        )
    )
    (found,) = camcli.explain(model, source.path, method="gradcam")
    raw = torch.from_numpy(found.found.fused_map.values)[None, None].float()
    resized = nn.functional.interpolate(raw, model.input_size, mode="bilinear")[0, 0]
    noise = torch.rand(resized.shape, generator=torch.Generator().manual_seed(0))
    smooth = resized / resized.max() + 1e-4 * noise  # no ties, which peers treat in other ways
    mask = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    height, width = mask.shape
    window = (0, 0, width, height)
    order = create_tie_order(source.name, mask.numel(), 0)
    row = EvaluationRow("lite0", "gradcam", ())
    pixel_map = PixelMap(row, mask, mask, rank_pixels(mask, window, order), "ok")
    fills = create_fills(inputs, model.transform, Blur(), 0)
    fills = replace(fills, noise=torch.zeros_like(inputs))
    prepared = PreparedImage(source, inputs, found.class_index, window, fills, [pixel_map])
    return prepared, mask


def measure(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and the result."""
    start = time.process_time()
    with torch.no_grad():
        result = function()
    return time.process_time() - start, result


def run_camcli(model: Any, image: PreparedImage, metrics: str) -> Any:
    """Evidence of one image."""
    (found,) = PassRunner(model, PassPlan(parse_metrics(metrics), STEPS), 8).iter_evidence([image])
    return found


def get_value(evidence: Any, name: str) -> float:
    """One metric of the only row."""
    metric = next(metric for metric in METRICS if metric.name == name)
    return float(metric.compute(evidence, evidence.rows[0]) or 0)


def run_grad_cam_road(network: nn.Module, image: PreparedImage, mask: Tensor) -> float:
    """pytorch-grad-cam's ROADCombined, with softmax confidences as camcli has."""
    from pytorch_grad_cam.metrics import road
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    road.NoisyLinearImputer.__init__.__defaults__ = (0.0, road.neighbors_weights)
    score = road.ROADCombined(percentiles=ROAD_PERCENTILES)(
        image.image[None],
        mask.numpy()[None],
        [ClassifierOutputSoftmaxTarget(image.class_index)],
        network,
    )
    return float(np.asarray(score).ravel()[0])


def report(name: str, seconds: Sequence[float], passes: Sequence[float], values: Any) -> None:
    """Print camcli beside a peer."""
    ours, theirs = seconds
    print(
        f"{name}: camcli {ours:.1f} s, {passes[0]:.0f} passes an image; peer {theirs:.1f} s, "
        f"{passes[1]:.0f} passes; peer / camcli = {theirs / ours:.2f}"
    )
    for label, (own, other) in values.items():
        largest = np.abs(np.array(own) - np.array(other)).max()
        print(f"  {label}: camcli {np.mean(own):.4f}, peer {np.mean(other):.4f}")
        print(f"  largest difference on an image: {largest:.4f}")


def compare_road(model: Any, counter: CountingNetwork, pairs: Sequence[Any]) -> None:
    """ROAD beside pytorch-grad-cam."""
    seconds, passes = [0.0, 0.0], [0.0, 0.0]
    values: tuple[list[float], list[float]] = ([], [])
    for image, mask in pairs:
        counter.count = 0
        spent, evidence = measure(lambda: run_camcli(model, image, "road"))  # noqa: B023
        seconds[0] += spent
        passes[0] += counter.count
        values[0].append(get_value(evidence, "road"))
        counter.count = 0
        spent, road = measure(lambda: run_grad_cam_road(counter, image, mask))  # noqa: B023
        seconds[1] += spent
        passes[1] += counter.count
        values[1].append(road)
    report("ROAD", seconds, [n / len(pairs) for n in passes], {"road": values})


class StoredMap:
    """What torch-cam asks of a CAM extractor, for a map that is already there."""

    def __init__(self, network: nn.Module, mask: Tensor) -> None:
        self.model, self.mask = network, mask

    @contextmanager
    def _hooks_off(self) -> Iterator[None]:
        yield

    def __call__(self, *_arguments: Any, **_options: Any) -> list[Tensor]:
        """The map."""
        return [self.mask[None]]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        """The only map."""
        return cams[0]


def run_torch_cam(network: nn.Module, image: PreparedImage, mask: Tensor) -> tuple[float, float]:
    """torch-cam's deletion and insertion, both with zeros."""
    from torchcam.metrics import DeletionInsertionMetric

    extractor: Any = StoredMap(network, mask)
    softmax = partial(torch.softmax, dim=-1)
    metric = DeletionInsertionMetric(extractor, softmax, steps=STEPS, batch_size=8)
    metric.update(image.image[None], image.class_index)
    found = metric.summary()
    return found["deletion_auc"], found["insertion_auc"]


def compare_deletion(model: Any, counter: CountingNetwork, pairs: Sequence[Any]) -> None:
    """Deletion and insertion with zeros beside torch-cam."""
    seconds, passes = [0.0, 0.0], [0.0, 0.0]
    deletion: tuple[list[float], list[float]] = ([], [])
    insertion: tuple[list[float], list[float]] = ([], [])
    for image, mask in pairs:
        counter.count = 0
        spent, evidence = measure(lambda: run_camcli(model, image, "srg_zero"))  # noqa: B023
        seconds[0] += spent
        passes[0] += counter.count
        curves = evidence.rows[0].curves
        shares = compute_shares(evidence.rows[0].pixel_count, STEPS)
        deletion[0].append(compute_area(shares, curves["zero_morf"]))
        insertion[0].append(compute_insertion(shares, curves["zero_lerf"]))
        counter.count = 0
        spent, peer = measure(lambda: run_torch_cam(counter, image, mask))  # noqa: B023
        seconds[1] += spent
        passes[1] += counter.count
        deletion[1].append(peer[0])
        insertion[1].append(peer[1])
    report(
        "deletion and insertion",
        seconds,
        [n / len(pairs) for n in passes],
        {"deletion": deletion, "insertion": insertion},
    )


def main() -> None:
    """Compare on some photographs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=8)
    options = parser.parse_args()
    model = camcli.load()
    counter = CountingNetwork(model.network)
    found = find_image_sources([str(options.photos)], [], Path("none"))
    sources = [source for source in found if isinstance(source, ImageSource)][: options.count]
    pairs = [prepare(model, source) for source in sources]
    counted = replace(model, network=counter)
    compare_road(counted, counter, pairs)
    compare_deletion(counted, counter, pairs)


if __name__ == "__main__":
    main()
