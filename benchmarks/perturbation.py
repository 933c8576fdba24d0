"""Score-CAM and Ablation-CAM compared with grad-cam and torchcam: seconds, memory, and the maps.

    python benchmarks/perturbation.py [IMAGE]      # needs: pip install -e '.[test]'

Each measurement runs in its own process, one after the other, in three rounds. The table has the
best of the rounds. Memory is the peak of the process above its memory before the maps.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
CASES = [
    ("scorecam", "lite0", "bn2"),
    ("scorecam", "lite0", "blocks.4"),
    ("scorecam", "resnet18", "layer4"),
    ("ablationcam", "lite0", "bn2"),
    ("ablationcam", "lite0", "blocks.4"),
    ("ablationcam", "resnet18", "layer4"),
]
PEERS = {"scorecam": ("grad-cam", "torchcam"), "ablationcam": ("grad-cam",)}
CLASS_NAMES = {"scorecam": "ScoreCAM", "ablationcam": "AblationCAM"}
ROUNDS = 3


def load_network(name: str) -> Any:
    """Lite0 with its weights, or a ResNet-18 with random weights."""
    import timm
    import torch

    from camcli.models.zoo.builtin_networks import load_builtin_cnn

    if name == "lite0":
        return load_builtin_cnn().eval()
    torch.manual_seed(0)
    return timm.create_model("resnet18").eval()


def predict_class(network: Any, inputs: Any) -> int:
    """The class with the largest logit."""
    import torch

    with torch.no_grad():
        return int(network(inputs).argmax())


def camcli_map(method: str, name: str, layer: str, inputs: Any) -> Callable[[], Any]:
    """The map of camcli, computed as in `camcli explain`."""
    import torch

    from camcli.core.types import Transform
    from camcli.engine.explain_batch import explain_batch
    from camcli.engine.plan import plan_requests
    from camcli.methods.registry import find_method
    from camcli.models.model import wrap_network

    model = wrap_network(name, load_network(name), Transform((224, 224)))
    options = {method: {"weights": "softmax"}} if method == "scorecam" else {}
    requests = plan_requests(model, [find_method(method)], layer, options=options)
    target = torch.tensor([[predict_class(model.network, inputs)]])
    return lambda: explain_batch(model, inputs, requests, lambda _: target)[0][0].fused.values[0]


def grad_cam_map(method: str, name: str, layer: str, inputs: Any) -> Callable[[], Any]:
    """The map of grad-cam, with masks enlarged as in the paper's code: corners are not aligned."""
    import pytorch_grad_cam
    import torch
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.nn.UpsamplingBilinear2d = lambda size: torch.nn.Upsample(size, mode="bilinear")  # type: ignore[misc, assignment]
    network = load_network(name)
    peer = getattr(pytorch_grad_cam, CLASS_NAMES[method])(network, [network.get_submodule(layer)])
    target = ClassifierOutputTarget(predict_class(network, inputs))
    return lambda: peer(inputs, [target])[0]


def torchcam_map(method: str, name: str, layer: str, inputs: Any) -> Callable[[], Any]:
    """The map of torchcam, before it is scaled."""
    import torch
    import torchcam

    network = load_network(name)
    target = predict_class(network, inputs)
    peer = getattr(torchcam.methods, CLASS_NAMES[method])(network, layer)

    def run() -> Any:
        with torch.no_grad():
            network(inputs)
        return peer(target, normalized=False)[0][0]

    return run


MAKERS = {"camcli": camcli_map, "grad-cam": grad_cam_map, "torchcam": torchcam_map}


def measure(library: str, method: str, name: str, layer: str, image: str) -> dict[str, Any]:
    """Seconds, MiB and the map at the size of the input, measured in this process."""
    import torch
    from PIL import Image

    torch.set_num_threads(2)
    with Image.open(image) as opened:
        small = opened.convert("RGB").resize((224, 224))
    pixels = np.asarray(small, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
    run = MAKERS[library](method, name, layer, torch.from_numpy(pixels.copy()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    found = torch.as_tensor(run()).float().detach()
    took = time.perf_counter() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    large = torch.nn.functional.interpolate(found[None, None], (224, 224), mode="bilinear")
    return {"seconds": took, "mib": peak, "map": large[0, 0].tolist()}


def measure_in_process(*arguments: str) -> dict[str, Any]:
    """As `measure`, in a new process."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print a row for each case and library."""
    image = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "sample_images" / "chelsea.jpg")
    print("| | | seconds | times camcli's | MiB | correlation |\n|---|---|---|---|---|---|")
    for method, name, layer in CASES:
        libraries = ("camcli", *PEERS[method])
        case = (method, name, layer, image)
        rounds = [{k: measure_in_process(k, *case) for k in libraries} for _ in range(ROUNDS)]
        best = {k: min(r[k]["seconds"] for r in rounds) for k in libraries}
        own = np.ravel(rounds[0]["camcli"]["map"])
        for library in libraries:
            alike = np.corrcoef(own, np.ravel(rounds[0][library]["map"]))[0, 1]
            memory = min(r[library]["mib"] for r in rounds)
            ratio = best[library] / best["camcli"]
            print(
                f"| {method}, {name}, {layer} | {library} | {best[library]:.2f} | {ratio:.1f} "
                f"| {memory:.0f} | {alike:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(*sys.argv[2:])))
    else:
        main()
