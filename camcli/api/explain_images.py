"""Explain images from Python: the steps of `camcli explain`, without its files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Literal, get_args

from camcli.api.explanation import Explanation
from camcli.api.image_inputs import ImageLike, is_single_image, iter_images
from camcli.core.boxes import BoxSelection
from camcli.core.concurrency import open_thread_pool, prefetch_map
from camcli.core.errors import ImageError, UsageError
from camcli.core.thresholds import parse_threshold
from camcli.core.types import DEFAULT_MAX_PIXELS, Failure, FitMode, ImageSource, Result, Sample
from camcli.engine.fusion import FUSIONS
from camcli.engine.plan import PlanOptions, plan_layer_specs
from camcli.engine.refine_options import parse_refine_options
from camcli.engine.smoothing import parse_smoothing_options
from camcli.methods.option_parsing import parse_methods, parse_options
from camcli.methods.registry import Method
from camcli.models.introspection.selectors import BlockChoice, LayerChoice, create_layer_specs
from camcli.models.model import Model
from camcli.runs.batch import compute_outcomes
from camcli.runs.pipeline import add_boxes, load_image_sample
from camcli.runs.run_config import RunConfig, RunState
from camcli.runs.similarity import bind_target

READING_THREADS = 2


def explain(
    model: Model,
    images: ImageLike | Iterable[ImageLike],
    method: str | Sequence[str] | None = None,
    *,
    layers: LayerChoice = None,
    block: BlockChoice = None,
    target: str | int | Sequence[str | int] = "predicted",
    fusion: str | None = None,
    smooth: str = "none",
    refine: str = "none",
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    threshold: str | float | None = None,
    boxes: BoxSelection = "largest",
    fit: FitMode = "squash",
    rgb: Sequence[int] = (),
    batch_size: int = 8,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    on_error: Literal["stop", "continue"] = "stop",
) -> Any:
    """Explain what the network looked at in one image or in many.

    `images` is a path, a PIL image, an array (H,W,C), a tensor (C,H,W), or many of these: a list,
    a generator, a folder, a glob, (B,...) values. C is the network's number of channels. One
    image gives a list of `Explanation`s, one for each method, choice of layers, and class. Many
    images give a generator, in the order of the images, that reads ahead and keeps one batch in
    memory.

    The arguments are the options of `camcli explain`; `options` has the method's own, such as
    `{"masks": 500}`. `max_pixels` limits files, not images in memory. Raises UsageError,
    MethodError, LayerError or TargetError for a wrong argument, at once. An image that
    cannot be read raises ImageError; with `on_error="continue"` its place is taken by a `Failure`,
    which has `name` and `reason`.
    """
    check_choice("on_error", on_error, ("stop", "continue"))
    methods = choose_methods(method)
    config, plan_options, layer_specs = create_run_config(
        model,
        methods,
        layers=layers,
        block=block,
        target=target,
        fusion=fusion,
        smooth=smooth,
        refine=refine,
        options=options,
        seed=seed,
        threshold=threshold,
        boxes=boxes,
        fit=fit,
        rgb=rgb,
        batch_size=batch_size,
    )
    requests = plan_layer_specs(config.model, methods, layer_specs, plan_options)
    config = replace(config, requests=requests, max_pixels=max_pixels)
    sources = iter_images(images, model.transform.channel_count)
    found = _iter_explanations(config, sources, on_error)
    return list(found) if is_single_image(images) else found


def choose_methods(names: str | Sequence[str] | None) -> list[Method]:
    """Find the methods of these names; None gives none. Raises UsageError, with near matches."""
    if names is None:
        return []
    listed: list[Any] = [names] if isinstance(names, str) or callable(names) else list(names)
    for name in listed:
        if not isinstance(name, str):
            raise UsageError(f"method={name!r}: give the name of a method, such as 'gradcam'")
    return parse_methods(listed)


def create_run_config(
    model: Model,
    methods: Sequence[Method],
    *,
    layers: LayerChoice = None,
    block: BlockChoice = None,
    target: str | int | Sequence[str | int] = "predicted",
    fusion: str | None = None,
    smooth: str = "none",
    refine: str = "none",
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    threshold: str | float | None = None,
    boxes: BoxSelection = "largest",
    fit: FitMode = "squash",
    rgb: Sequence[int] = (),
    batch_size: int = 8,
) -> tuple[RunConfig, PlanOptions, tuple[str | None, ...]]:
    """Create the run configuration, and the options and layers from which to plan requests."""
    check_choice("fit", fit, get_args(FitMode))
    check_choice("boxes", boxes, get_args(BoxSelection))
    check_choice("fusion", fusion, (None, "none", *FUSIONS))
    targets = [target] if isinstance(target, str | int) or target is None else list(target)
    for name, text in [
        ("smooth", smooth),
        ("refine", refine),
        *(("target", each) for each in targets),
    ]:
        if not isinstance(text, str | int | None):
            raise UsageError(f"{name}={text!r}: write a text, such as 'top:5'")
    _check_layer_choice("layers", layers, str, "'stage1..5'")
    _check_layer_choice("block", block, int | str, "11 or '0..11'")
    if type(batch_size) is not int or not 1 <= batch_size <= 2**16:
        raise UsageError(f"batch_size={batch_size}: write a whole number of 1 or more")
    if len(rgb) not in (0, 1, 3) or any(type(number) is not int or number < 1 for number in rgb):
        raise UsageError(
            f"rgb={rgb!r}: give three bands, such as (3, 2, 1), or one; 1 is the first"
        )
    smoothing = parse_smoothing_options(smooth, seed, fit)
    model, bound = bind_target(model, [str(each) for each in targets], fit)
    config = RunConfig(
        model=model,
        requests=(),
        target=bound,
        fit=fit,
        batch_size=batch_size,
        threshold=parse_threshold(None if threshold is None else str(threshold)),
        box_selection=boxes,
        smoothing=smoothing,
        picture_bands=tuple(rgb),
    )
    settings = {m.name: _parse_options(m, options or {}, seed, methods) for m in methods}
    plan_options = PlanOptions(
        fusion=fusion,
        options=settings,
        smoothing=smoothing,
        refine=parse_refine_options(str(refine)),
    )
    return config, plan_options, create_layer_specs(layers, block)


def _check_layer_choice(name: str, given: object, kind: Any, example: str) -> None:
    """Raise UsageError unless it is None, one of the kind, or a list or tuple of these."""
    listed = given if isinstance(given, list | tuple) else [] if given is None else [given]
    for each in listed:
        if not isinstance(each, kind) or isinstance(each, bool):
            raise UsageError(f"{name}={each!r}: write {example}, or a list of such")


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise UsageError for a value that is not one of the choices."""
    if value not in choices:
        listed = ", ".join(str(choice) for choice in choices if choice is not None)
        raise UsageError(f"{name}={value!r}: choose from {listed}")


def _to_text(value: Any) -> str:
    """An option's value as the command line writes it; a NumPy number becomes a plain one."""
    return json.dumps(value.item() if hasattr(value, "item") else value, default=str)


def _parse_options(
    method: Method, options: Mapping[str, Any], seed: int, methods: Sequence[Method]
) -> dict[str, Any]:
    """Select the options of this method; at least one method must know each option."""
    for key in options:
        if not any(key in m.options for m in methods):
            known = ", ".join(o for m in methods for o in m.options) or "none"
            raise UsageError(f"options: {key!r} is not an option of {method.name} (known: {known})")
    texts = {k: v if isinstance(v, str) else _to_text(v) for k, v in options.items()}
    texts.setdefault("seed", str(seed))
    return parse_options(method, {k: v for k, v in texts.items() if k in method.options})


def _iter_explanations(
    config: RunConfig, images: Iterator[ImageSource | Failure], on_error: str
) -> Iterator[Explanation | Failure]:
    state = RunState.from_config(config)
    with open_thread_pool(READING_THREADS) as pool:
        samples = prefetch_map(pool, partial(load_image_sample, config), images, config.batch_size)
        while batch := list(islice(samples, config.batch_size)):
            read = [sample for sample in batch if isinstance(sample, Sample)]
            outcomes = iter(compute_outcomes(config, read, state))
            for sample in batch:
                for outcome in [sample] if isinstance(sample, Failure) else next(outcomes):
                    yield from _create_explanations(config, outcome, on_error)


def _create_explanations(
    config: RunConfig, outcome: Result | Failure, on_error: str
) -> Iterator[Explanation | Failure]:
    if isinstance(outcome, Failure):
        if on_error == "stop":
            raise ImageError(str(outcome))
        yield outcome
        return
    result = add_boxes(config, outcome)
    for explanation in result.explanations:
        yield Explanation(result, explanation, config.model.input_size)
