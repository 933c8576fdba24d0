"""The options of an evaluation of faithfulness, checked before torch is imported."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from camcli.core.errors import UsageError, format_suggestion
from camcli.core.types import FitMode
from camcli.evaluation.faithfulness.faithfulness_metrics import parse_metrics

if TYPE_CHECKING:
    from camcli.io.charts import ChartFormat

SanityCheck = Literal["cascade", "independent", "classes"]
FillName = Literal["zero", "blur", "mean", "linear"]
FILLS: dict[FillName, str] = {
    "zero": "0 of the normalized input: the mean color of the training data",
    "blur": "the blurred image",
    "mean": "the mean color of the image",
    "linear": "linear imputation from the neighbors, with noise of 0.01",
}
RISE_KERNEL_SIDE, RISE_SIGMA = 11, 5
MAX_BLUR_SIDE = 501
RANDOM_CAM = "randomcam"  # a method: it reads the network's features
BASELINE_NAMES = ("center", "random", "sobel", RANDOM_CAM)
DEFAULT_BASELINES = ",".join(BASELINE_NAMES)
REFUSED_TARGETS = {
    "top": "it explains several classes",
    "all": "it explains several classes",
    "above": "it explains several classes",
    "finer": "a contrast is no confidence",
    "like": "a similarity is no confidence",
}


@dataclass(frozen=True, slots=True)
class FaithfulnessOptions:
    """The options of an evaluation of faithfulness, as the command line has them."""

    metrics: str = "standard"
    steps: int = 20
    blur: str = "rise"
    cells: int = 7
    baselines: str = DEFAULT_BASELINES
    target: str = "predicted"
    limit: int | None = None
    resamples: int = 1000
    seed: int = 0
    output: Path | None = None
    overwrite: bool = False
    resume: bool = False
    sanity: str = "none"
    chart_format: ChartFormat = "png"


@dataclass(frozen=True, slots=True)
class Blur:
    """A Gaussian blur; `sigma` None is RISE's own kernel, literally."""

    side: int = RISE_KERNEL_SIDE
    sigma: float | None = None

    @property
    def name(self) -> str:
        """The value of `--blur`."""
        return "rise" if self.sigma is None else f"{self.side}:{self.sigma:g}"


def parse_blur(text: str) -> Blur:
    """Read `rise`, or SIDE:SIGMA in pixels, such as 51:41."""
    if text == "rise":
        return Blur()
    found = re.fullmatch(r"(\d{1,3}):(\d{1,4}(?:\.\d+)?)", text)
    if not found or int(found[1]) % 2 == 0 or float(found[2]) <= 0 or int(found[1]) > MAX_BLUR_SIDE:
        raise UsageError(f"--blur {text}: write rise, or an odd side and a sigma, such as 51:41")
    return Blur(int(found[1]), float(found[2]))


def parse_baselines(text: str) -> tuple[str, ...]:
    """Read `none`, or names separated by commas. Raises UsageError."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if names == ("none",):
        return ()
    for name in names:
        if name not in BASELINE_NAMES:
            near = format_suggestion(name, BASELINE_NAMES)
            known = ", ".join(BASELINE_NAMES)
            raise UsageError(f"--baselines {name}: no such baseline{near} ({known}, none)")
    return names


def parse_sanity_checks(text: str) -> tuple[SanityCheck, ...]:
    """Read `none`, or checks separated by commas. Raises UsageError."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if names == ("none",):
        return ()
    known = get_args(SanityCheck)
    for name in names:
        if name not in known:
            near = format_suggestion(name, known)
            raise UsageError(f"--sanity {name}: no such check{near} ({', '.join(known)}, none)")
    return tuple(check for check in known if check in names)


def check_faithfulness_options(options: FaithfulnessOptions, fit: FitMode) -> None:
    """Refuse what cannot be scored. Raises UsageError."""
    kind = options.target.partition(":")[0]
    if kind in REFUSED_TARGETS:
        raise UsageError(
            f"--target {options.target} does not work here: {REFUSED_TARGETS[kind]}. "
            "Use predicted, a class, folder or @targets.csv"
        )
    if fit == "tencrop":
        raise UsageError("--fit tencrop does not work here: ten crops have no pixels in common")
    parse_metrics(options.metrics)
    parse_blur(options.blur)
    parse_baselines(options.baselines)
    parse_sanity_checks(options.sanity)


@dataclass(frozen=True, slots=True)
class MetricLimit:
    """A limit for a metric of every method: `--fail-under` or `--fail-over`."""

    metric: str
    value: float
    is_minimum: bool

    def is_missed(self, value: float | None) -> bool:
        """Whether a value is beyond the limit; a metric that was not measured is."""
        if value is None:
            return True
        return value < self.value if self.is_minimum else value > self.value


def parse_limits(under: Sequence[str], over: Sequence[str], metrics: str) -> list[MetricLimit]:
    """Read METRIC=X of `--fail-under` and `--fail-over`. Raises UsageError."""
    return [
        _parse_limit(option, text, metrics, is_minimum=option == "--fail-under")
        for option, texts in (("--fail-under", under), ("--fail-over", over))
        for text in texts
    ]


def _parse_limit(option: str, text: str, metrics: str, *, is_minimum: bool) -> MetricLimit:
    name, _, value = text.partition("=")
    names = [metric.name for metric in parse_metrics(metrics)]
    if name not in names:
        near = format_suggestion(name, names)
        raise UsageError(f"{option} {text}: no such metric here{near} ({', '.join(names)})")
    if not re.fullmatch(r"-?\d*\.?\d+", value):
        raise UsageError(f"{option} {text}: write METRIC=X, such as road=0.1")
    return MetricLimit(name, float(value), is_minimum)
