"""The maps of a batch in main memory, one explanation per image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from conftest import small

from camcli.engine.plan import plan_requests
from camcli.engine.postprocess import BatchExplanation, MapBatch, TargetScores
from camcli.methods.registry import find_method
from camcli.runs.transfer import split_by_image, to_host


def map_batch(name: str, size: int, codes: tuple[int, int], dtype: torch.dtype) -> MapBatch:
    values = torch.arange(1, 2.0 * size * size + 1).reshape(2, size, size).to(dtype)
    constant = torch.tensor([code == 1 for code in codes])
    values[constant] = 1
    return MapBatch(name, values, torch.tensor([code == 2 for code in codes]))


def batch_explanation(is_single: bool, dtype: torch.dtype = torch.float32) -> BatchExplanation:
    model: Any = small("test_resnet")
    (request,) = plan_requests(model, [find_method("gradcam")])
    scores = TargetScores(
        class_indices=torch.tensor([2, 0]),
        scores=torch.tensor([0.75, 0.5]),
        ranks=torch.tensor([0, 3]),
        logit_weights=torch.tensor([[-1.0, 0.0, 1.0], [1.0, -0.5, -0.5]]),
        is_valid=torch.tensor([True, True]),
    )
    fused = map_batch("fused", 3, (0, 1), dtype)
    layers = (fused,) if is_single else (map_batch("deep", 2, (0, 2), dtype),)
    return BatchExplanation(request, scores, fused, layers, (map_batch("part", 1, (0, 0), dtype),))


def test_every_image_gets_its_own_maps_and_scores() -> None:
    batch = batch_explanation(is_single=False)
    first, second = split_by_image(to_host(batch), ["cat", "dog", "cow"])
    assert (first.class_index, first.class_name, first.score, first.rank) == (2, "cow", 0.75, 0)
    assert (second.class_index, second.class_name, second.score, second.rank) == (0, "cat", 0.5, 3)
    assert first.rival_classes == ((0, "cat"),)
    assert second.rival_classes == ((1, "dog"), (2, "cow"))
    assert [m.name for m in (*second.layer_maps, *second.part_maps)] == ["deep", "part"]
    assert (first.fused_map.status, second.fused_map.status) == ("ok", "constant")
    assert second.layer_maps[0].status == "zero_gradient"
    for b, found in enumerate((first, second)):
        assert np.array_equal(found.fused_map.values, batch.fused.values[b].numpy())
        assert np.array_equal(found.layer_maps[0].normalized, batch.layers[0].shown[b].numpy())
        assert np.array_equal(found.part_maps[0].values, batch.parts[0].values[b].numpy())


def test_the_only_layer_stays_the_fused_map() -> None:
    host = to_host(batch_explanation(is_single=True))
    assert host.layers[0] is host.fused
    for found in split_by_image(host, ["cat", "dog", "cow"]):
        assert found.layer_maps[0] is found.fused_map


def test_maps_in_half_precision_become_float32() -> None:
    (found, _) = split_by_image(
        to_host(batch_explanation(is_single=False, dtype=torch.bfloat16)), ["cat", "dog", "cow"]
    )
    assert found.fused_map.values.dtype == found.part_maps[0].normalized.dtype == np.float32
