"""Sanity checks: do maps change when the network or the class changes?

Source: arXiv 1810.03292 (randomised weights), 1912.09818 (other classes). Deviation: the weights
of each tensor are shuffled, not drawn anew, so that scales stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from camcli.core.geometry import Float32Array
from camcli.core.types import Failure, ImageSource, Result
from camcli.engine.target_rules import Target, TargetRule, choose_top
from camcli.evaluation.faithfulness.faithfulness_options import SanityCheck
from camcli.evaluation.faithfulness.map_similarity import compare_map_ranks, compute_ssim
from camcli.evaluation.faithfulness.weight_shuffling import (
    NetworkPart,
    list_network_parts,
    shuffle_weights,
)
from camcli.runs.pipeline import run_pipeline
from camcli.runs.run_config import RunConfig

SANITY_IMAGES = 20
OTHER_CLASSES = 4
SAME_MAP = 0.9  # correlation above which a map does not see a change
BOOTSTRAP_SEED, BOOTSTRAP_RESAMPLES = 0, 1000

Maps = Mapping[str, Sequence[tuple[str, Float32Array]]]  # image -> (status, raw map) per row


@dataclass(frozen=True, slots=True)
class Similarity:
    """The similarity of maps: means over images, Spearman's with its 95 % interval.

    `blank_count` counts maps without an answer, which are left out.
    """

    spearman: float | None
    low: float | None
    high: float | None
    ssim: float | None
    count: int
    blank_count: int


@dataclass(frozen=True, slots=True)
class RowSanity:
    """The checks of one row. `null` compares maps of different images: center bias alone.

    `cascade` and `independent` have one entry per part of the network, from the classifier down;
    `classes` one per further class.
    """

    method: str
    null: Similarity
    cascade: Mapping[str, Similarity] = field(default_factory=dict)
    independent: Mapping[str, Similarity] = field(default_factory=dict)
    classes: Sequence[Similarity] = ()
    is_class_blind: bool = False

    @property
    def verdict(self) -> str:
        """What the checks say, in words."""
        found = [*self._judge_cascade(), *self._judge_classes()]
        return "; ".join(found) or "passes"

    def _judge_cascade(self) -> Iterator[str]:
        steps = list(self.cascade.values())
        if not steps:
            return
        if steps[0].spearman is not None and steps[0].spearman > SAME_MAP:
            yield "does not see the classifier"
        last = steps[-1]
        if last.low is not None and self.null.high is not None and last.low > self.null.high:
            yield "fails: maps of a random network stay alike"

    def _judge_classes(self) -> Iterator[str]:
        known = [each.spearman for each in self.classes if each.spearman is not None]
        if self.is_class_blind and self.classes:
            yield "knows no classes, by construction"
        elif known and min(known) > SAME_MAP:
            yield "hardly tells classes apart"


@dataclass(frozen=True, slots=True)
class SanityReport:
    """The checks of all rows, and the maps of two images for the picture."""

    checks: tuple[SanityCheck, ...]
    image_count: int
    seed: int
    rows: tuple[RowSanity, ...]
    part_names: tuple[str, ...]
    example_maps: Mapping[str, Sequence[Maps]]


def run_sanity_checks(
    run_config: RunConfig,
    sources: Sequence[ImageSource | Failure],
    checks: Sequence[SanityCheck],
    seed: int = 0,
    report_progress: Callable[[str], None] = lambda _text: None,
) -> SanityReport:
    """Run the checks on some images. The weights are put back, also after an interrupt."""
    report_progress("maps of the network itself")
    classes, original = _compute_original_maps(run_config, sources)
    fixed = replace(run_config, target=_create_fixed_target(classes))
    parts = list_network_parts(run_config.model.network)

    def compute_shuffled(chosen: Sequence[NetworkPart]) -> Maps:
        report_progress(f"random: {', '.join(part.name for part in chosen[-1:])}")
        with shuffle_weights(run_config.model.network, chosen, seed):
            return _compute_maps(fixed, sources)

    cascade = (
        [compute_shuffled(parts[: n + 1]) for n in range(len(parts))] if "cascade" in checks else []
    )
    independent = [compute_shuffled([part]) for part in parts] if "independent" in checks else []
    others = _compute_class_maps(run_config, sources) if "classes" in checks else []
    names = tuple(part.name for part in parts)
    rows = [
        RowSanity(
            method=request.method.name,
            null=_compare_different_images(original, row),
            cascade=_compare_steps(original, dict(zip(names, cascade, strict=False)), row),
            independent=_compare_steps(original, dict(zip(names, independent, strict=False)), row),
            classes=[_compare_maps(original, other, row) for other in others],
            is_class_blind=not request.method.class_specific,
        )
        for row, request in enumerate(run_config.requests)
    ]
    return SanityReport(
        checks=tuple(checks),
        image_count=len(original),
        seed=seed,
        rows=tuple(rows),
        part_names=names,
        example_maps={"original": [original], "cascade": cascade, "independent": independent},
    )


def _create_fixed_target(class_by_path: Mapping[str, int]) -> Target:
    def find_class(source: ImageSource) -> tuple[int, ...]:
        return (class_by_path[str(source.path)],)

    return Target((TargetRule("predicted", find_class),))


def _keep_result(result: Result) -> Result:
    return result


def _iter_results(
    config: RunConfig, sources: Sequence[ImageSource | Failure]
) -> Iterator[tuple[str, list[Result]]]:
    """Yield the results of each image that has all of them."""
    by_path: dict[str, list[Result]] = {}
    for outcome in run_pipeline(config, sources, _keep_result):
        if isinstance(outcome, Result):
            by_path.setdefault(str(outcome.sample.source.path), []).append(outcome)
    for path, results in by_path.items():
        if len(results) == len(config.requests):
            yield path, results


def _compute_original_maps(
    config: RunConfig, sources: Sequence[ImageSource | Failure]
) -> tuple[dict[str, int], Maps]:
    classes: dict[str, int] = {}
    maps: dict[str, list[tuple[str, Float32Array]]] = {}
    for path, results in _iter_results(config, sources):
        index = results[0].explanations[0].class_index
        assert index is not None  # networks without classes are refused before
        classes[path] = index
        maps[path] = [_get_map(result) for result in results]
    return classes, maps


def _compute_maps(config: RunConfig, sources: Sequence[ImageSource | Failure]) -> Maps:
    known = [s for s in sources if isinstance(s, ImageSource)]
    return {
        path: [_get_map(result) for result in results]
        for path, results in _iter_results(config, known)
    }


def _get_map(result: Result, target: int = 0) -> tuple[str, Float32Array]:
    fused = result.explanations[target].fused_map
    return fused.status, fused.values


def _compute_class_maps(config: RunConfig, sources: Sequence[ImageSource | Failure]) -> list[Maps]:
    """The maps of the classes that the network ranks second to fifth."""
    count = min(OTHER_CLASSES + 1, len(config.model.labels.names))
    rule = TargetRule(f"top:{count}", choose_classes=partial(choose_top, count))
    top = replace(config, target=Target((rule,)))
    found = list(_iter_results(top, sources))
    return [
        {path: [_get_map(result, rank) for result in results] for path, results in found}
        for rank in range(1, count)
    ]


def _compare_steps(original: Maps, steps: Mapping[str, Maps], row: int) -> dict[str, Similarity]:
    return {name: _compare_maps(original, maps, row) for name, maps in steps.items()}


def _compare_maps(original: Maps, changed: Maps, row: int) -> Similarity:
    return _summarize_pairs([(original[p][row], changed[p][row]) for p in original if p in changed])


def _compare_different_images(original: Maps, row: int) -> Similarity:
    """Each image's map against the next image's: what the center bias alone gives."""
    maps = [own[row] for own in original.values()]
    return _summarize_pairs(list(zip(maps, [*maps[1:], *maps[:1]], strict=True))[: len(maps)])


def _summarize_pairs(
    pairs: Sequence[tuple[tuple[str, Float32Array], tuple[str, Float32Array]]],
) -> Similarity:
    usable = [(a, b) for (status_a, a), (status_b, b) in pairs if status_a == status_b == "ok"]
    found = [compare_map_ranks(a, b) for a, b in usable]
    ranks = np.array([value for value in found if value is not None])
    blank_count = len(pairs) - len(ranks)
    if not len(ranks):
        return Similarity(None, None, None, None, 0, blank_count)
    drawn = np.random.default_rng(BOOTSTRAP_SEED).choice(ranks, (BOOTSTRAP_RESAMPLES, len(ranks)))
    low, high = np.percentile(drawn.mean(axis=1), [2.5, 97.5])
    ssim = float(np.mean([compute_ssim(a, b) for a, b in usable]))
    return Similarity(float(ranks.mean()), float(low), float(high), ssim, len(ranks), blank_count)
