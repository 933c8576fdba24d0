"""torchvision: its classifiers, as `torchvision:NAME`. torchvision is imported when first used."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from camcli.core.errors import ModelError, format_suggestion
from camcli.core.types import Transform
from camcli.models.zoo.input_channels import replace_stem
from camcli.models.zoo.library import Library, Size

PREFIX = "torchvision:"
NAMES_WITH_AUX = {"inception_v3", "googlenet"}  # they have auxiliary classifiers


class TorchvisionLibrary(Library):
    """torchvision's image classifiers with their default weights."""

    prefixes = (PREFIX,)

    def list_names(self) -> Sequence[str]:
        """The image classifiers."""
        from torchvision import models

        return [f"{PREFIX}{name}" for name in models.list_models(module=models)]

    def check_name(self, name: str) -> None:
        """Raise ModelError, with similar names, for anything but an image classifier."""
        from torchvision import models

        bare = self.remove_prefix(name)
        classifiers = models.list_models(module=models)
        if bare in classifiers:
            return
        if bare in models.list_models():
            raise ModelError(
                f"{name} is not an image classifier; it is for detection, segmentation, video or "
                f"optical flow"
            )
        near = format_suggestion(bare, classifiers)
        raise ModelError(f"no classifier {bare!r} in torchvision{near} (`camcli models {PREFIX}`)")

    def create(self, name: str, size: Size | None, **options: Any) -> nn.Module:
        """torchvision's network, without auxiliary classifiers; `in_chans` as timm has it."""
        from torchvision import models

        bare = self.remove_prefix(name)
        if bare in NAMES_WITH_AUX:
            options |= {"aux_logits": False, "init_weights": False}
        channel_count = options.pop("in_chans", 3)
        network: nn.Module = models.get_model(bare, **options)
        if channel_count != 3:
            replace_stem(network, channel_count)
        return network

    def create_pretrained(self, name: str, size: Size | None) -> nn.Module:
        """torchvision's network with its default weights."""
        from torchvision import models

        weights = self._find_weights(name)
        network: nn.Module = models.get_model(
            self.remove_prefix(name), weights=weights, progress=False
        )
        return network

    def find_transform(
        self, name: str, size: Size | None, network: nn.Module | None = None
    ) -> Transform:
        """The transform of the default weights; `crop_pct` is the crop as a share of the resize."""
        preset = self._find_weights(name).transforms()
        (crop,), (resize,) = preset.crop_size, preset.resize_size
        return Transform(
            size or (crop, crop),
            tuple(preset.mean),
            tuple(preset.std),
            preset.interpolation.value,
            crop / resize,
        )

    def is_cached(self, name: str) -> bool:
        """Whether torch's cache has the default weights."""
        with suppress(ValueError):
            file_name = self.find_weights_url(name).rpartition("/")[2]
            return (Path(torch.hub.get_dir()) / "checkpoints" / file_name).is_file()
        return False

    def find_weights_url(self, name: str) -> str:
        """The address of the default weights."""
        return str(self._find_weights(name).url)

    def find_class_names(self, name: str, network: nn.Module) -> tuple[str, ...] | None:
        """The categories of the default weights."""
        return tuple(self._find_weights(name).meta["categories"])

    def find_checkpoint_settings(self, name: str) -> dict[str, Any]:
        """Mean and std 0.5 for the weights of GoogLeNet and Inception.

        torchvision's published networks normalise their input a second time, to these values. A
        network that is created without weights does not.
        """
        if self.remove_prefix(name) not in NAMES_WITH_AUX:
            return {}
        return {"mean": (0.5,) * 3, "std": (0.5,) * 3}

    def _find_weights(self, name: str) -> Any:
        from torchvision import models

        return models.get_model_weights(self.remove_prefix(name)).DEFAULT


LIBRARY = TorchvisionLibrary()
