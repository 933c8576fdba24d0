"""Layers as a short text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from camcli.core.layer_names import format_layer_list
from camcli.core.types import Layer

LISTS = [
    (["bn2"], "bn2"),
    (["blocks.8", "blocks.9", "blocks.10", "blocks.11"], "blocks.8..11"),
    (["blocks.0", "blocks.5", "blocks.11"], "blocks.0,blocks.5,blocks.11"),
    (["blocks.1.norm1", "blocks.2.norm1"], "blocks.1..2.norm1"),
    (["blocks.1.norm1", "blocks.2.norm2"], "blocks.1.norm1,blocks.2.norm2"),
    (["a.0.1", "a.0.2", "a.1.2"], "a.0.1..2,a.1.2"),
    (["layer2", "layer1"], "layer2,layer1"),
    ([], ""),
]


@pytest.mark.parametrize(("names", "text"), LISTS)
def test_names_that_count_on_are_a_range(names: Sequence[str], text: str) -> None:
    assert format_layer_list([Layer(name, "NCHW", 3, (2, 2)) for name in names]) == text


def test_several_stages_are_called_stages_and_one_by_its_name() -> None:
    stages = [Layer(f"blocks.{n}", "NCHW", 3, (2, 2), stage=n) for n in (1, 2, 3, 5)]
    assert format_layer_list(stages) == "stage1..3,stage5"
    assert format_layer_list(stages[:1]) == "blocks.1"
