"""The interface of a model library: named networks, their transforms and their weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlparse

from torch import nn

from camcli.core.errors import ModelError, format_suggestion
from camcli.core.types import OutputKind, Transform
from camcli.models.zoo.downloads import is_reachable
from camcli.models.zoo.memory import check_memory

Size = tuple[int, int]  # height and width in pixels
DEFAULT_INPUT_SIZE: Size = (224, 224)
# What constructors raise for an input size or an option that they cannot use.
BUILD_ERRORS = (AssertionError, TypeError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A network with its weights and transform, and the classes and thresholds that its file names.

    `architecture` is the name from which `create_untrained` builds the same network again. `note`
    tells the user what camcli chose, for example an architecture that it recognised.
    `normalization_note` tells the mean and std, where they are camcli's choice. `output_kind` is
    set where the file alone tells what the outputs are.
    """

    name: str
    network: nn.Module
    transform: Transform
    class_names: tuple[str, ...] | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    architecture: str | None = None
    note: str = ""
    normalization_note: str = ""
    output_kind: OutputKind | None = None


def join_notes(*notes: str) -> str:
    """The notes that are not empty, as one line."""
    return "; ".join(filter(None, notes))


class Library(ABC):
    """A source of named networks, such as timm. A subclass needs the five abstract methods.

    All names start with one of `prefixes`; without prefixes the library has the plain names. The
    other methods have defaults. Import a large package inside the methods, not at the top.
    """

    prefixes: tuple[str, ...] = ()
    ships_weights = False  # camcli's own packages contain the weights
    creates_offline = True  # `create` needs no download

    @abstractmethod
    def list_names(self) -> Sequence[str]:
        """The names that `camcli models` prints, with their prefix."""

    @abstractmethod
    def create(self, name: str, size: Size | None, **options: Any) -> nn.Module:
        """A network without pretrained weights, for this input size where the network has one size.

        `num_classes` is the number of classes and `in_chans` that of input channels, if it is not
        3; other options are the library's own. May raise any of BUILD_ERRORS.
        """

    @abstractmethod
    def create_pretrained(self, name: str, size: Size | None) -> nn.Module:
        """A network with its published weights. May raise OSError or any of BUILD_ERRORS."""

    @abstractmethod
    def find_transform(
        self, name: str, size: Size | None, network: nn.Module | None = None
    ) -> Transform:
        """The transform of the images, from the name alone or from a network that was created."""

    @abstractmethod
    def is_cached(self, name: str) -> bool:
        """Whether the published weights are on this machine."""

    def find_weights_url(self, name: str) -> str:
        """The address of the published weights. Raises ModelError where none are published."""
        raise ModelError(f"no weights are published for {name}; use --checkpoint FILE")

    def owns(self, name: str) -> bool:
        """Whether a name belongs to this library, even if no such network exists."""
        return name.startswith(self.prefixes) if self.prefixes else ":" not in name

    def remove_prefix(self, name: str) -> str:
        """The name that the library itself uses."""
        prefix = next((prefix for prefix in self.prefixes if name.startswith(prefix)), "")
        return name.removeprefix(prefix)

    def check_name(self, name: str) -> None:
        """Raise ModelError, with similar names, for a network that does not exist."""
        names = self.list_names()
        if name not in names:
            raise ModelError(f"no model {name!r}{format_suggestion(name, names)}")

    def has_name(self, name: str) -> bool:
        """Whether such a network exists."""
        with suppress(ModelError):
            self.check_name(name)
            return True
        return False

    def remove_tag(self, name: str) -> str:
        """The name of the architecture alone, without the tag that selects its weights."""
        return name

    def list_tagged_names(self, name: str) -> Sequence[str]:
        """An architecture's name with each tag of its published weights."""
        return ()

    def find_class_names(self, name: str, network: nn.Module) -> tuple[str, ...] | None:
        """The class names of the published weights, where the library knows them."""
        return None

    def find_architecture(self, name: str, network: nn.Module) -> str | None:
        """The name that builds the same network without a download; None if it is `name`."""
        return None

    def find_checkpoint_settings(self, name: str) -> dict[str, Any]:
        """Values of the transform that differ when the weights come from a user's file."""
        return {}

    def load_pretrained(self, name: str, size: Size | None) -> LoadedNetwork:
        """A network with its published weights.

        Raises ModelError, which names --checkpoint, for weights that cannot be loaded.
        """
        self.check_name(name)
        host = self.find_weights_url(name)
        if not self.is_cached(name) and not is_reachable(host):
            raise ModelError(
                f"the weights of {name} are not on this machine, and {urlparse(host).hostname} "
                f"cannot be reached; use --checkpoint FILE"
            )
        try:
            if self.creates_offline:
                check_memory(name, partial(self.create, name, size))
            network = self.create_pretrained(name, size)
        except (OSError, *BUILD_ERRORS) as error:
            reason = str(error).partition("\n")[0]
            raise ModelError(
                f"the weights of {name} cannot be loaded ({reason}); use --checkpoint FILE"
            ) from None
        return LoadedNetwork(
            name,
            network,
            self.find_transform(name, size, network),
            self.find_class_names(name, network),
            architecture=self.find_architecture(name, network),
        )


def check_trained_size(size: Size | None, trained_at: Size, subject: object) -> None:
    """Raise ModelError for another size: the position embeddings fit one grid of patches only."""
    if size not in (None, trained_at):
        raise ModelError(f"{subject} was trained at {trained_at[0]}; omit --size")
