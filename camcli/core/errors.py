"""The errors a user can meet. Knows nothing of the rest of camcli.

Each message is one line that says what is wrong and what to do::

    CamcliError
    ├── UsageError           an option or argument asks for what does not exist
    │   ├── LayerError       no such layer, stage or block; or the method cannot use it
    │   ├── MethodError      the method cannot work on this model
    │   ├── LabelsError      class names that do not fit the model
    │   └── ModelError       no such model, or its weights cannot be had
    │       └── CheckpointError  a weights file that cannot be read or does not fit
    ├── ImageError           one image cannot be read; the others go on
    ├── TrainingError        training cannot go on
    ├── TargetError          the class to explain cannot be told for an image
    └── OutputError          results cannot be written
        └── StorageError     nothing at all can be written any more: the run stops
"""

from collections.abc import Iterable
from difflib import get_close_matches


class CamcliError(Exception):
    """Anything that is reported to the user as one line."""


class UsageError(CamcliError):
    """An option or argument asks for what does not exist."""


class LayerError(UsageError):
    """No such layer, stage or block; or the method cannot use it."""


class MethodError(UsageError):
    """The method cannot work on this model."""


class LabelsError(UsageError):
    """Class names that do not fit the model."""


class ModelError(UsageError):
    """No such model, or its weights cannot be had."""


class CheckpointError(ModelError):
    """A weights file that cannot be read or does not fit the model."""


class ImageError(CamcliError):
    """One image cannot be read; the others go on."""


class TrainingError(CamcliError):
    """Training cannot go on."""


class TargetError(CamcliError):
    """The class to explain cannot be told for an image."""


class OutputError(CamcliError):
    """Results cannot be written."""


class StorageError(OutputError):
    """Nothing at all can be written any more: the run stops, and can be resumed."""


def to_one_line(text: object) -> str:
    r"""Any text as one line that cannot steer a terminal: "a\nb" -> "a\\nb"."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def format_suggestion(name: str, valid_names: Iterable[str]) -> str:
    """The near matches of a mistyped name as a sentence, or nothing: '; did you mean x?'."""
    lowered = {k.casefold(): k for k in valid_names}
    near = [lowered[k] for k in get_close_matches(name.casefold(), lowered, n=3, cutoff=0.6)]
    return f"; did you mean {' or '.join(near)}?" if near else ""
