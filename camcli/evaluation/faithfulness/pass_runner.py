"""Run passes of several images and rows in full batches, and collect what the network answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from camcli.evaluation.faithfulness.masked_passes import (
    SHARED,
    PassKey,
    PassPlan,
    PassResult,
    create_group_masks,
    find_rank_owners,
    has_half_on_curve,
    iter_passes,
    list_cells,
)
from camcli.evaluation.faithfulness.scored_image import (
    ImageEvidence,
    PreparedImage,
    RowEvidence,
)
from camcli.models.model import Model
from camcli.runs.batch import is_out_of_memory


@dataclass(slots=True)
class _PendingImage:
    image: PreparedImage
    results: dict[PassKey, PassResult] = field(default_factory=dict)
    waiting: int = 0
    is_listed: bool = False


@dataclass(slots=True)
class PassRunner:
    """Runs passes in batches of `batch_size`, and collects the results of each image."""

    model: Model
    plan: PassPlan
    batch_size: int
    pass_count: int = 0
    _queue: list[tuple[_PendingImage, PassKey, Tensor]] = field(default_factory=list)

    def iter_evidence(self, images: Iterable[PreparedImage]) -> Iterator[ImageEvidence]:
        """Yield the evidence of every image, in order."""
        pending: list[_PendingImage] = []
        for image in images:
            pending.append(_PendingImage(image))
            for keys, inputs in iter_passes(self.plan, image):
                self._add_passes(pending[-1], keys, inputs)
            pending[-1].is_listed = True
            while pending and pending[0].is_listed and not pending[0].waiting:
                yield create_image_evidence(self.plan, pending[0].image, pending.pop(0).results)
        self._run_batch()
        for last in pending:
            yield create_image_evidence(self.plan, last.image, last.results)

    def _add_passes(self, owner: _PendingImage, keys: list[PassKey], inputs: Tensor) -> None:
        for key, changed in zip(keys, inputs, strict=True):
            owner.waiting += 1
            self._queue.append((owner, key, changed))
            if len(self._queue) >= self.batch_size:
                self._run_batch()

    def _run_batch(self) -> None:
        """Run what waits; when memory runs out, in halves."""
        queue, self._queue = self._queue, []
        while queue:
            part = queue[: self.batch_size]
            try:
                results = self._compute_results(part)
            except RuntimeError as error:
                if not is_out_of_memory(error) or len(part) == 1:
                    raise
                self.batch_size = max(1, len(part) // 2)
                continue
            for (owner, key, _), result in zip(part, results, strict=True):
                owner.results[key] = result
                owner.waiting -= 1
            queue = queue[len(part) :]

    def _compute_results(
        self, part: Sequence[tuple[_PendingImage, PassKey, Tensor]]
    ) -> list[PassResult]:
        inputs = torch.stack([changed for _, _, changed in part])
        classes = torch.tensor([owner.image.class_index for owner, _, _ in part])
        with torch.inference_mode():
            logits = self.model.network(inputs.to(self.model.device)).float()
            found = torch.stack([self.model.to_probabilities(logits), logits]).cpu()
        self.pass_count += len(part)
        own = found.gather(2, classes[None, :, None].expand(2, -1, 1))[..., 0]
        predicted = found[1].argmax(dim=1)
        return [
            PassResult(_round_digits(confidence), _round_digits(logit), best)
            for confidence, logit, best in zip(*own.tolist(), predicted.tolist(), strict=True)
        ]


def _round_digits(value: float) -> float:
    """Seven digits, as float32 has them: images.jsonl holds exactly what the metrics see."""
    return float(f"{value:.7g}")


def create_image_evidence(
    plan: PassPlan, image: PreparedImage, results: Mapping[PassKey, PassResult]
) -> ImageEvidence:
    """Sort the results of all passes into one record."""
    whole = results[PassKey(SHARED, "image", 0)]
    cells = list_cells(plan, image) if plan.needs("cells") else []
    fills = dict.fromkeys(curve.fill for curve in plan.curves)
    collector = _RowCollector(
        plan=plan,
        image=image,
        results=results,
        confidence=whole.confidence,
        left={fill: results[PassKey(SHARED, f"left_{fill}", 0)].confidence for fill in fills},
        cells=cells,
    )
    cell_logits = [results[PassKey(SHARED, "cell", step)].logit for step in range(len(cells))]
    return ImageEvidence(
        source=image.source,
        class_index=image.class_index,
        predicted_class=whole.predicted_class,
        true_class=image.true_class,
        confidence=whole.confidence,
        cell_drops=[_round_digits(whole.logit - logit) for logit in cell_logits],
        left=collector.left,
        rows=[
            collector.create_row(number, owner)
            for number, owner in enumerate(find_rank_owners(image.pixel_maps))
        ],
    )


@dataclass(frozen=True, slots=True)
class _RowCollector:
    """Collects the evidence of each row of one image."""

    plan: PassPlan
    image: PreparedImage
    results: Mapping[PassKey, PassResult]
    confidence: float
    left: Mapping[str, float]
    cells: Sequence[tuple[slice, slice]]

    def create_row(self, number: int, owner: int) -> RowEvidence:
        """The evidence of a row, whose ranks are those of the row `owner`."""
        pixel_map, curves = self.image.pixel_maps[number], self._collect_curves(owner)
        left, top, right, bottom = self.image.window
        masks = create_group_masks(pixel_map.ranks) if self.plan.needs("groups") else ()
        groups = [self._find(owner, "group", step) for step in range(len(masks))]
        return RowEvidence(
            row=pixel_map.row,
            status=pixel_map.status,
            pixel_count=pixel_map.ranks.pixel_count,
            tied_share=pixel_map.ranks.tied_share,
            coverage=_round_digits(pixel_map.mask[top:bottom, left:right].mean().item()),
            curves=curves,
            masked=self._find(number, "masked") if self.plan.needs("masked") else None,
            at_half=self._find_half(owner, curves) if self.plan.needs("half") else None,
            cell_sums=[_round_digits(pixel_map.values[cell].sum().item()) for cell in self.cells],
            group_means=[_round_digits(pixel_map.mask[mask].mean().item()) for mask in masks],
            group_drops=[_round_digits(self.confidence - group) for group in groups],
        )

    def _find(self, row: int, kind: str, step: int = 0) -> float:
        return self.results[PassKey(row, kind, step)].confidence

    def _collect_curves(self, owner: int) -> dict[str, list[float]]:
        """Each curve from the whole image to nothing."""
        return {
            curve.name: [
                self.confidence,
                *(self._find(owner, curve.name, step) for step in range(1, curve.steps)),
                self.left[curve.fill],
            ]
            for curve in self.plan.curves
        }

    def _find_half(self, owner: int, curves: Mapping[str, Sequence[float]]) -> float:
        if has_half_on_curve(self.plan):
            return curves["zero_lerf"][self.plan.steps // 2]
        return self._find(owner, "half")
