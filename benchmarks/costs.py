"""What each method costs, as a multiple of the plain forward pass, on the CPU.

    python benchmarks/costs.py --write    # camcli/methods/costs.json, which `camcli methods` shows

One image, with the method's own options; on the embedded CNN, or where a method needs attention on
the embedded transformer. The forward pass and the method take turns, five times each, or once for
methods that run the network many times; medians.
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

from camcli.engine import targets
from camcli.engine.explain import explain_batch
from camcli.engine.plan import choose_default_model, plan_requests
from camcli.methods.registry import METHODS, Method
from camcli.models import model as models
from camcli.models.model import Model

FILE = Path(__file__).parent.parent / "camcli" / "methods" / "costs.json"


@cache
def loaded(name: str) -> Model:
    """An embedded network."""
    return models.load_model(name, device="cpu")


def timed(run: Callable[[], Any]) -> float:
    """Seconds."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def cost(m: Method) -> float:
    """How many forward passes of one image its map takes as long as."""
    model = loaded(choose_default_model([m]))
    inputs = torch.randn(1, 3, *model.input_size, generator=torch.Generator().manual_seed(0))
    requests = plan_requests(model, [m])
    best = targets.parse_target("predicted")(model.labels)

    def choose(logits: torch.Tensor) -> torch.Tensor:
        return targets.choose_target_classes(logits, (), best.top_count)

    def forward() -> None:
        with torch.no_grad():
            model.network(inputs)

    slow = any("N " in kind for kind in m.costs)
    rounds = 1 if slow else 5
    forward()
    if not slow:
        explain_batch(model, inputs, requests, choose)
    pairs = [
        (timed(forward), timed(lambda: explain_batch(model, inputs, requests, choose)))
        for _ in range(rounds)
    ]
    plain = min(own for own, _ in pairs) if slow else median(own for own, _ in pairs)
    return median(whole for _, whole in pairs) / plain


def main() -> None:
    """Every method; print, and with --write keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"to {FILE.name}")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    found = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    for name in options.methods:
        found[name] = float(f"{cost(METHODS[name]):.2g}")
        print(f"{name:22}{found[name]:8g}", flush=True)
    if options.write:
        kept = {name: found[name] for name in METHODS if name in found}
        FILE.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
