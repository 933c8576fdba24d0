"""The errors that camcli reports to the user.

Each message is one line: what is wrong, then what to do::

    CamcliError
    ├── UsageError           an option or argument asks for what does not exist
    │   ├── LayerError       no such layer, stage or block; or the method cannot use it
    │   ├── MethodError      the method cannot work on this model
    │   ├── LabelsError      the class names do not fit the model
    │   └── ModelError       no such model, or its weights are not available
    │       └── CheckpointError  a weights file is unreadable or does not fit
    ├── ImageError           camcli cannot read one image; it continues with the others
    ├── TrainingError        training cannot continue
    ├── TargetError          camcli cannot find the class to explain for an image
    └── OutputError          camcli cannot write a result
        └── StorageError     camcli cannot write any file any more; the run stops
"""

from collections.abc import Iterable
from difflib import get_close_matches
from errno import EDQUOT, ENOSPC

FULL_ERRNOS = (ENOSPC, EDQUOT)  # the disk, or the user's share of it, is full


class CamcliError(Exception):
    """Any error that camcli reports to the user as one line."""


class UsageError(CamcliError):
    """An option or argument asks for what does not exist."""


class LayerError(UsageError):
    """No such layer, stage or block; or the method cannot use it."""


class MethodError(UsageError):
    """The method cannot work on this model."""


class LabelsError(UsageError):
    """The class names do not fit the model."""


class ModelError(UsageError):
    """No such model, or its weights are not available."""


class CheckpointError(ModelError):
    """A weights file is unreadable or does not fit the model."""


class ImageError(CamcliError):
    """camcli cannot read one image; it continues with the others."""


class TrainingError(CamcliError):
    """Training cannot continue."""


class TargetError(CamcliError):
    """camcli cannot find the class to explain for an image."""


class OutputError(CamcliError):
    """camcli cannot write a result."""


class StorageError(OutputError):
    """camcli cannot write any file any more; the run stops and can be resumed."""


def to_one_line(text: object) -> str:
    r"""Any text as one line without control characters: "a\nb" -> "a\\nb"."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def format_suggestion(name: str, valid_names: Iterable[str]) -> str:
    """The near matches of a mistyped name, such as "; did you mean x?"; or "" without any."""
    lowered = {k.casefold(): k for k in valid_names}
    near = [lowered[k] for k in get_close_matches(name.casefold(), lowered, n=3, cutoff=0.6)]
    return f"; did you mean {' or '.join(near)}?" if near else ""
