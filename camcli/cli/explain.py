"""`camcli explain`: heatmaps, overlays, grids and boxes for images."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from camcli import sources, targets
from camcli.cli import console, options
from camcli.errors import LayerError, one_line
from camcli.records import Failed, Source, versus

ImageFormat = Literal["jpg", "png", "webp"]


def explain(
    inputs: Annotated[
        list[str],
        Argument(metavar="INPUT...", help="Files, folders, globs, or - for a list on stdin."),
    ],
    model: options.ModelName = None,
    checkpoint: options.Checkpoint = None,
    labels: options.LabelFile = None,
    method: options.MethodNames = None,
    layers: Annotated[
        str | None,
        Option(metavar="SPEC", help="stage1..5, stage4, last, all, or names; see `camcli layers`."),
    ] = None,
    block: options.Block = None,
    fusion: options.FusionName = None,
    target: Annotated[
        str,
        Option(
            help="predicted, top:5, a class index or name, folder, @targets.csv; CLASS-vs-CLASS, or"
            " finer:N: what tells the predicted class from the N nearest."
        ),
    ] = "predicted",
    head: options.HeadName = None,
    smooth: options.Smooth = "none",
    set_: options.Settings = None,
    seed: options.Seed = 0,
    output: Annotated[Path, Option(metavar="DIR", help="Where files go.")] = Path("camcli-out"),
    overwrite: options.Overwrite = False,
    save: Annotated[
        str, Option(metavar="LIST", help="Of overlay, heatmap, grid, boxes, array.")
    ] = "overlay,boxes",
    image_format: Annotated[ImageFormat, Option(help="For overlays and grids.")] = "jpg",
    threshold: options.Threshold = None,
    boxes: options.Boxes = "largest",
    colormap: Annotated[str, Option(help="Any matplotlib colormap.")] = "jet",
    alpha: Annotated[float, Option(min=0, max=1, help="Opacity of the heatmap.")] = 0.5,
    fit: options.FitName = "squash",
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    interpolation: options.Interpolation = None,
    batch_size: options.BatchSize = None,
    device: options.Device = "auto",
    workers: options.Workers = None,
    format_: options.FormatName = "auto",
) -> int:
    """What did the network look at? Writes heatmaps, overlays, grids and boxes."""
    wanted = options.chosen(method) if method else []
    settings = options.settings(set_ or [], wanted, seed)
    smoothing = options.smoothing(smooth, seed, fit)
    normalised = options.transform(mean, std, interpolation)
    kinds, level, input_size = options.saves(save), options.threshold(threshold), options.size(size)
    bind = targets.parse(target)
    options.one_choice_of_layers(layers, block)
    options.must_have_opencv(boxes)
    options.must_exist("--checkpoint", checkpoint)
    options.must_exist("--labels", labels)
    options.refuse_existing_run(output, overwrite)
    listed = sources.read_list(sys.stdin.read()) if "-" in inputs else []
    found = sources.find(inputs, listed, skip=output)

    from camcli.render import palette

    palette(colormap)

    from camcli import models, outputs, pipeline, plan, results

    name = model if model or checkpoint else plan.default_model(wanted)
    loaded = models.load(
        *(name, checkpoint, labels, input_size, device), head=head, transform=normalised
    )
    console.note(loaded.note)
    job = pipeline.Job(
        loaded,
        plan.plan(loaded, wanted, layers, block, fusion, settings, smoothing),
        bind(loaded.labels),
        fit,
        options.batch_size(batch_size, loaded.device.type, fit),
        workers or options.workers(),
        level,
        boxes,
        smoothing,
    )
    style = outputs.Style(loaded.size, colormap, alpha, image_format, "boxes" in kinds)
    slugs = outputs.class_slugs(loaded.labels)
    show = _shower(format_, found, [request.method.name for request in job.requests])
    tally = Tally(time.monotonic())
    with (
        results.opened(output, overwrite) as write,
        console.progress("explaining", len(found) * len(job.requests), format_ == "quiet") as bar,
    ):
        job = replace(job, tick=bar.inner)
        for outcome in pipeline.run(
            job, found, lambda result: outputs.save(result, kinds, style, output, slugs)
        ):
            line = results.describe(outcome, loaded.name)
            write(line)
            show(line)
            tally.count(line)
            bar.advance()
    tally.summarise(output, lambda: plan.default_layer(loaded).name)
    return tally.status


@dataclass(slots=True)
class Tally:
    """What became of a run's images, for the summary and the exit status."""

    began: float
    images: set[str] = field(default_factory=set)
    failed: int = 0
    blank: Counter[str] = field(default_factory=Counter)

    def count(self, line: Mapping[str, Any]) -> None:
        """Take in one line of results.jsonl; name at once what failed."""
        name = line["path"]
        if line["status"] == "failed":
            self.failed += 1
            console.complain(f"{name}: {line['error']}")
            return
        self.images.add(name)
        for found in line["explanations"]:
            bad = found.get("layer_status", {}) or {"map": found["map_status"]}
            for layer, status in bad.items():
                if status != "ok":
                    self.blank[status] += 1
                    what = f"{line['method']} of {found['class_name']}, {layer}"
                    console.complain(f"{name}: no map ({what}): {options.WHY[status]}")

    def summarise(self, output: Path, default: Callable[[], str]) -> None:
        """Say what was done, and what to try where the gradient was zero."""
        took = time.monotonic() - self.began
        done = len(self.images)
        parts = [f"{done} image{'s' * (done != 1)} in {took:.1f} s ({done / took:.1f} a second)"]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{n} without a map ({status})" for status, n in self.blank.items()]
        console.say(f"{', '.join(parts)}; written to {one_line(output)}/")
        layer = None
        with suppress(LayerError):
            layer = default() if self.blank["zero_gradient"] else None
        if layer:
            console.say(
                f"zero gradient: only prefix tokens, or nothing, of that layer reaches the class "
                f"score (CLS pooling, past the last attention); it does depend on {layer}: "
                f"try --layers {layer}"
            )

    @property
    def status(self) -> int:
        """0 when every image has every map, else 1."""
        return int(bool(self.failed or self.blank.total()))


def _shower(
    chosen: options.Format, found: Sequence[Source | Failed], methods: Sequence[str]
) -> Callable[[Mapping[str, Any]], None]:
    if chosen == "quiet":
        return lambda line: None
    if console.for_machines(chosen):
        return lambda line: console.emit(json.dumps(line))
    width = min(40, max(len(one_line(item.name)) for item in found))
    widest = max(9, *map(len, methods))
    return lambda line: _show_rows(line, width, widest)


def _show_rows(line: Mapping[str, Any], width: int, widest: int) -> None:
    for row in _rows(line, width, widest):
        console.emit(row)


def _rows(line: Mapping[str, Any], width: int, widest: int) -> Iterator[str]:
    for found in line.get("explanations", ()):
        boxes = ["{x1},{y1}-{x2},{y2}".format(**box) for box in found["boxes"]]
        where = boxes[0] + (f" +{len(boxes) - 1}" if boxes[1:] else "") if boxes else "-"
        rivals = [rival["class_name"] for rival in found.get("against", ())]
        name, label = one_line(line["image"]), one_line(versus(found["class_name"], rivals))
        status = "" if found["map_status"] == "ok" else f"  {found['map_status']}"
        said = f"{line['method']:{widest}} {label:24.24} {found['score'] or 0:5.2f}"
        yield f"{name:{width}}  {said}  {where}{status}"
