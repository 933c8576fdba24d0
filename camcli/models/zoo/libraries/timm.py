"""timm: the plain names, with a tag for the weights (`resnet50.a1_in1k`) or without.

timm is imported when first used.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import nn

from camcli.core.errors import ModelError, format_suggestion
from camcli.core.types import Transform
from camcli.models.zoo.downloads import WEIGHTS_FILE_NAMES, is_in_hub_cache
from camcli.models.zoo.library import Library, Size


class TimmLibrary(Library):
    """timm's networks. Their weights are on the Hugging Face hub."""

    def list_names(self) -> Sequence[str]:
        """timm's names, without tags."""
        import timm

        return timm.list_models()

    def check_name(self, name: str) -> None:
        """Raise ModelError, with similar names or the known tags."""
        import timm

        architecture, dot, tag = name.partition(".")
        if not timm.is_model(architecture):
            near = format_suggestion(architecture, timm.list_models())
            raise ModelError(f"no model {name!r} in timm{near} (`camcli models` lists them)")
        names = self.list_tagged_names(architecture)
        if dot and name not in names:
            raise ModelError(
                f"{architecture} has no weights with the tag {tag!r}; it has {', '.join(names)}"
            )

    def create(self, name: str, size: Size | None, **options: Any) -> nn.Module:
        """timm's network; `img_size` is set where the network has one fixed input size."""
        import timm

        config = timm.get_pretrained_cfg(name)
        if size is not None and config is not None and config.fixed_input_size:
            options["img_size"] = size
        network: nn.Module = timm.create_model(name, **options)
        return network

    def create_pretrained(self, name: str, size: Size | None) -> nn.Module:
        """timm's network with its weights."""
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        return self.create(name, size, pretrained=True)

    def find_transform(
        self, name: str, size: Size | None, network: nn.Module | None = None
    ) -> Transform:
        """The transform of timm's evaluation, from the network's own configuration if given."""
        from timm.data.config import resolve_data_config

        config = resolve_data_config(model=network, pretrained_cfg=_read_config(name, network))
        return Transform(
            size or tuple(config["input_size"][1:]),
            tuple(config["mean"]),
            tuple(config["std"]),
            config["interpolation"],
            config["crop_pct"],
        )

    def is_cached(self, name: str) -> bool:
        """Whether the hub's cache has the weights."""
        import timm

        config = timm.get_pretrained_cfg(name)
        return config is not None and is_in_hub_cache(config.hf_hub_id, WEIGHTS_FILE_NAMES)

    def find_weights_url(self, name: str) -> str:
        """The address of the hub. Raises ModelError where timm has no weights."""
        import timm
        from huggingface_hub import constants

        config = timm.get_pretrained_cfg(name)
        if config is None or not config.has_weights:
            raise ModelError(f"timm has no weights for {name}; use --checkpoint FILE")
        return constants.ENDPOINT

    def has_name(self, name: str) -> bool:
        """Whether timm has the architecture, whatever the tag."""
        import timm

        return timm.is_model(self.remove_tag(name))

    def remove_tag(self, name: str) -> str:
        """The part before the dot: a tag may change the number of classes."""
        return name.partition(".")[0]

    def list_tagged_names(self, name: str) -> Sequence[str]:
        """All weights that timm has for an architecture."""
        import timm

        return timm.list_pretrained(f"{name}.*")

    def find_class_names(self, name: str, network: nn.Module) -> tuple[str, ...] | None:
        """The `label_names` of the network's configuration."""
        names = (getattr(network, "pretrained_cfg", None) or {}).get("label_names")
        return tuple(map(str, names)) if isinstance(names, list | tuple) and names else None


def _read_config(name: str, network: nn.Module | None) -> dict[str, Any] | None:
    """A name's configuration; None for a network, which has its own."""
    import timm

    if network is not None:
        return None
    config = timm.get_pretrained_cfg(name)
    return config.to_dict() if config else {}


LIBRARY = TimmLibrary()
