"""The cost of each method on the CPU, as a multiple of the plain forward pass.

    python benchmarks/costs.py --write    # camcli/methods/costs.json, which `camcli methods` shows
    python benchmarks/costs.py --refine affinity --methods gradcam chefer    # what refinement costs

Measures one image with the method's default options, on the built-in CNN, or on the built-in
transformer if the method needs attention; one method needs an MCTformer. The forward pass and the
method take turns, five times each, or once if the method runs the network many times. The result is
the median.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch

from camcli.core.types import Transform
from camcli.engine.default_model import choose_default_model
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.engine.refine_options import parse_refine_options
from camcli.methods.registry import METHODS, Method
from camcli.models.model import Model, load_model, wrap_network
from camcli.models.zoo.mctformer import MCTformer

COSTS_FILE = Path(__file__).parent.parent / "camcli" / "methods" / "costs.json"


@cache
def load_builtin(name: str) -> Model:
    """A built-in network, loaded once."""
    return load_model(name, device="cpu")


@cache
def create_mctformer() -> Model:
    """MCTformer of version 2 with random weights, which take the same time."""
    return wrap_network("mctformer", MCTformer(20, "2"), Transform((224, 224)), head="sigmoid")


def measure_seconds(run: Callable[[], Any]) -> float:
    """The seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure_cost(method: Method) -> float:
    """The time of one map, in forward passes of one image."""
    has_class_tokens = "MCTformer" in method.works_on  # camcli ships no such network
    model = create_mctformer() if has_class_tokens else load_builtin(choose_default_model([method]))
    inputs = torch.randn(1, 3, *model.input_size, generator=torch.Generator().manual_seed(0))
    requests = plan_requests(model, [method])

    def choose(logits: torch.Tensor) -> torch.Tensor:
        return logits.topk(1).indices

    def forward() -> None:
        with torch.no_grad():
            model.network(inputs)

    def explain() -> None:
        explain_batch(model, inputs, requests, choose)

    slow = any("N " in kind for kind in method.costs)  # "N forward passes" and the like
    rounds = 1 if slow else 5
    forward()
    if not slow:
        explain()
    pairs = [(measure_seconds(forward), measure_seconds(explain)) for _ in range(rounds)]
    return median(own for _, own in pairs) / median(plain for plain, _ in pairs)


def measure_refinement(method: Method, spec: str) -> float:
    """The time of one refined map, in plain maps of the same method; the two take turns."""
    model = load_builtin(choose_default_model([method]))
    inputs = torch.randn(1, 3, *model.input_size, generator=torch.Generator().manual_seed(0))

    def create_run(refine: str) -> Callable[[], Any]:
        requests = plan_requests(model, [method], refine=parse_refine_options(refine))
        return lambda: explain_batch(model, inputs, requests, lambda logits: logits.topk(1).indices)

    plain, refined = create_run("none"), create_run(spec)
    pairs = [(measure_seconds(plain), measure_seconds(refined)) for _ in range(12)]
    return median(own / other for other, own in pairs[2:])


def main() -> None:
    """Measure and print every method; with --write also store the costs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--write", action="store_true", help=f"store the costs in {COSTS_FILE.name}"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--refine", metavar="SPEC", help="print what --refine SPEC costs, in plain maps, instead"
    )
    options = parser.parse_args()
    if options.refine:
        for name in options.methods:
            ratio = measure_refinement(METHODS[name], options.refine)
            print(f"{name:22}{ratio:8.2f}", flush=True)
        return
    costs = json.loads(COSTS_FILE.read_text(encoding="utf-8")) if COSTS_FILE.exists() else {}
    for name in options.methods:
        costs[name] = float(f"{measure_cost(METHODS[name]):.2g}")
        print(f"{name:22}{costs[name]:8g}", flush=True)
    if options.write:
        kept = {name: costs[name] for name in METHODS if name in costs}
        COSTS_FILE.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
