"""Explain similarity: `--target like:REFERENCE` asks what makes an image like a reference."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from camcli.core.errors import CamcliError, UsageError
from camcli.core.types import Failure, FitMode
from camcli.engine.target_rules import Target
from camcli.engine.targets import list_references, parse_target
from camcli.io.bands import read_pixels
from camcli.io.discovery import find_image_sources
from camcli.io.images import ODD_IMAGE_ERRORS, describe_image_error
from camcli.io.labels import create_labels
from camcli.io.transforms import compute_view, preprocess_image
from camcli.models.introspection.embeddings import compute_similarities, remove_classifier
from camcli.models.introspection.gradient_mode import allow_gradients
from camcli.models.introspection.hooks import convert_output
from camcli.models.model import Model, wrap_network
from camcli.models.network_copy import copy_network


def bind_target(
    model: Model, specs: str | Sequence[str], fit: FitMode = "squash"
) -> tuple[Model, Target]:
    """The rules of `--target` for a model, and the model to explain.

    That is the model itself; with `like:REFERENCE` it is one whose outputs are the similarities to
    the references. Raises UsageError.
    """
    bind = parse_target(specs)
    references = list_references([specs] if isinstance(specs, str) else list(dict.fromkeys(specs)))
    if references:
        model = create_similarity_model(model, references, fit)
    return model, bind(model.labels, model.output_kind)


@allow_gradients()
def create_similarity_model(model: Model, references: Sequence[Path], fit: FitMode) -> Model:
    """A model whose outputs (B,R) are the cosines of an image's embedding to R references.

    A reference is an image, or a folder of images: then the mean of their embeddings of length 1.
    The embedding is what the network returns, or what its last linear layer reads. The model has
    a network of its own that shares the weights. Raises UsageError if there is no such layer, or a
    reference cannot be read.
    """
    network = copy_network(model.name, model.network, model.device)
    is_removed = model.output_kind == "embedding" or remove_classifier(network, model.input_size)
    if not is_removed:
        raise UsageError(
            f"--target like: {model.name} has no last linear layer that reads an embedding; "
            "if its outputs are an embedding, add --head embedding; else give a network without "
            "its classifier, such as package.module:function"
        )
    embedder = replace(model, network=network)
    means = [_compute_reference(embedder, path, fit) for path in references]

    def to_similarities(embeddings: Tensor) -> Tensor:
        return compute_similarities(means, embeddings.float())

    convert_output(network, to_similarities)
    found = wrap_network(
        model.name,
        network,
        model.transform,
        device=model.device,
        copy=False,
        head="similarity",
    )
    names = create_labels([f"like {path.stem}" for path in references])
    return replace(
        found,
        labels=names,
        thresholds=model.thresholds,
        architecture=model.architecture,
        note=model.note,
    )


def _compute_reference(model: Model, path: Path, fit: FitMode) -> Tensor:
    """The mean embedding (D,) of an image or of all images of a folder, each of length 1."""
    sources = find_image_sources([str(path)], (), skip_folder=Path(os.devnull))
    total: Tensor | None = None
    for source in sources:
        if isinstance(source, Failure):
            raise UsageError(f"--target like:{path}: {source.reason}")
        unit = torch.nn.functional.normalize(_embed_image(model, source.path, path, fit), dim=0)
        total = unit if total is None else total + unit
    assert total is not None  # no image at all is a UsageError
    return total / len(sources)


@torch.no_grad()
def _embed_image(model: Model, path: Path, reference: Path, fit: FitMode) -> Tensor:
    fit = "squash" if fit == "tencrop" else fit
    try:
        pixels = read_pixels(path, model.transform.channel_count)
        view = compute_view(*pixels.picture.size, model.transform, fit)
        inputs = torch.from_numpy(preprocess_image(pixels.planes, view, model.transform)[None])
    except (CamcliError, *ODD_IMAGE_ERRORS) as error:
        reason = describe_image_error(error)
        raise UsageError(f"--target like:{reference}: {path.name}: {reason}") from None
    embedding: Tensor = model.network(inputs.to(model.device))[0]
    return embedding.float()
