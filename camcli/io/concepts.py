"""Draw concepts: several maps in one picture, each in its own colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from camcli.core.geometry import Float32Array

# Okabe and Ito's colours: people of any colour vision tell them apart, also on a grey picture.
CONCEPT_COLORS = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (204, 121, 167),
    (86, 180, 233),
    (240, 228, 66),
)
STRONGEST_OPACITY = 0.75


def choose_concept_colors(count: int) -> list[tuple[int, int, int]]:
    """A colour for each concept; after seven they repeat."""
    return [CONCEPT_COLORS[n % len(CONCEPT_COLORS)] for n in range(count)]


def draw_concepts(image: Image.Image, heatmaps: Sequence[Float32Array]) -> Image.Image:
    """Colour each pixel by its strongest concept, over the image in light grey."""
    stack = np.nan_to_num(np.stack(heatmaps))
    first, strength = stack.argmax(axis=0), stack.max(axis=0).clip(0, 1)[..., None]
    colours = np.asarray(choose_concept_colors(len(heatmaps)), np.float32)
    grey = np.asarray(image.convert("L").convert("RGB"), np.float32) * 0.75 + 64
    opacity = STRONGEST_OPACITY * np.sqrt(strength)
    mixed = grey * (1 - opacity) + colours[first] * opacity
    return Image.fromarray(np.rint(mixed).astype(np.uint8))
