"""The Hugging Face hub: a repository in timm's format, as `hf-hub:OWNER/NAME`.

timm and huggingface_hub are imported when first used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from camcli.core.errors import ModelError
from camcli.models.zoo.downloads import WEIGHTS_FILE_NAMES, is_in_hub_cache, is_reachable
from camcli.models.zoo.libraries.timm import TimmLibrary
from camcli.models.zoo.library import Size

CONFIG_ERRORS = (OSError, RuntimeError, ValueError, KeyError)


class HubLibrary(TimmLibrary):
    """Repositories of the hub. A repository's config.json names an architecture of timm."""

    prefixes = ("hf-hub:", "hf_hub:")
    creates_offline = False

    def list_names(self) -> Sequence[str]:
        """An empty list: the hub has too many repositories."""
        return ()

    def check_name(self, name: str) -> None:
        """Raise ModelError for a name without a repository."""
        if not self._find_repository(name):
            raise ModelError(f"--model {name!r}: write {self.prefixes[0]}OWNER/NAME")

    def create(self, name: str, size: Size | None, **options: Any) -> nn.Module:
        """The network that config.json describes. Raises ModelError if that cannot be read."""
        import timm
        from huggingface_hub import constants
        from timm.models import load_model_config_from_hf

        repository = self._find_repository(name)
        if not is_in_hub_cache(repository, ("config.json",)) and not is_reachable(
            constants.ENDPOINT
        ):
            raise ModelError(
                f"cannot look up {name}: its config.json is not on this machine, and the model hub "
                f"cannot be reached; for a weights file, omit --model and use --checkpoint FILE"
            )
        try:
            load_model_config_from_hf(repository)
        except CONFIG_ERRORS as error:
            reason = str(error).partition("\n")[0]
            raise ModelError(f"cannot look up {name}: {reason}") from None
        network: nn.Module = timm.create_model(name, **options)
        return network

    def create_pretrained(self, name: str, size: Size | None) -> nn.Module:
        """The network with the repository's weights."""
        import timm

        network: nn.Module = timm.create_model(name, pretrained=True)
        return network

    def is_cached(self, name: str) -> bool:
        """Whether the hub's cache has the repository's weights."""
        return is_in_hub_cache(self._find_repository(name), WEIGHTS_FILE_NAMES)

    def find_weights_url(self, name: str) -> str:
        """The address of the hub."""
        from huggingface_hub import constants

        return constants.ENDPOINT

    def find_architecture(self, name: str, network: nn.Module) -> str | None:
        """timm's name for the network."""
        config: dict[str, Any] = getattr(network, "pretrained_cfg", None) or {}
        return config.get("architecture")

    def remove_tag(self, name: str) -> str:
        """The name itself: a repository has no tags."""
        return name

    def list_tagged_names(self, name: str) -> Sequence[str]:
        """An empty list: a repository has no tags."""
        return ()

    def _find_repository(self, name: str) -> str:
        """OWNER/NAME, without the prefix and without a revision (`@main`)."""
        return self.remove_prefix(name).partition("@")[0]


LIBRARY = HubLibrary()
