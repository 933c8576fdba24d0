"""Say what a file with pickled objects is, and how its owner gets a file of weights from it.

Nothing in the file runs: only the names in its pickle are read.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from camcli.core.errors import CheckpointError, to_one_line

MAX_PICKLE_BYTES = 2**23
OLD_PICKLE_COUNT = 4  # before the weights, torch once wrote three short pickles
# What a hostile or damaged archive or pickle raises.
READ_ERRORS = (
    OSError,
    ValueError,
    zipfile.BadZipFile,
    RuntimeError,
    NotImplementedError,
    LookupError,
)


class _Remedy(NamedTuple):
    """What a file is, and the lines of Python that make it readable; {path} stands for the file."""

    kind: str
    code: str


SAVE = (
    'torch.save({state}, "weights.pth")\n'
    "# then: --model weights.pth, or --model NAME --checkpoint weights.pth"
)
LOAD = 'torch.load({path!r}, map_location="cpu", weights_only=False)'
ULTRALYTICS = _Remedy(
    "a network of ultralytics",
    "# yolo_network.py, then: --model yolo_network:network\n"
    "from ultralytics import YOLO\n"
    "def network():\n"
    "    return YOLO({path!r}).model",
)
FASTAI = _Remedy(
    "a learner of fastai",
    "# fastai_network.py, then: --model fastai_network:network\n"
    "from fastai.learner import load_learner\n"
    "def network():\n"
    "    return load_learner({path!r}).model",
)
TABLE = _Remedy(
    "a training checkpoint with other objects, such as a loss",
    f'import torch\nsaved = {LOAD}["{{key}}"]\n'
    + SAVE.format(state='saved.state_dict() if hasattr(saved, "state_dict") else saved'),
)
NETWORK = _Remedy(
    "a whole network",
    f"import torch\nnetwork = {LOAD}\n" + SAVE.format(state="network.state_dict()"),
)
KINDS_BY_PACKAGE = {"ultralytics": ULTRALYTICS, "fastai": FASTAI}
TABLE_KEYS = ("state_dict", "model_state_dict", "model", "net")
Operation = tuple[str, Any]  # the name of a pickle's opcode, and its argument


def create_pickle_error(path: Path) -> CheckpointError:
    """The error for a file that only running its code can read; a note has the lines to run."""
    operations = _list_operations(path)
    if not any(code.endswith("GLOBAL") for code, _ in operations):
        return CheckpointError(f"{path} is not a checkpoint that torch can read")
    remedy = _choose_remedy(operations)
    error = CheckpointError(
        f"{path} contains pickled objects besides weights, which could run code: it looks like "
        f"{remedy.kind}. If you trust it, use the lines below"
    )
    lines = remedy.code.format(path=str(path), key=_find_key(operations)).splitlines()
    error.add_note("\n".join(map(to_one_line, lines)))
    return error


def _choose_remedy(operations: Sequence[Operation]) -> _Remedy:
    packages = {
        argument.split(" ")[0].partition(".")[0]
        for code, argument in operations
        if isinstance(argument, str) and (code == "GLOBAL" or "UNICODE" in code)
    }
    known = next((r for name, r in KINDS_BY_PACKAGE.items() if name in packages), None)
    return known or (TABLE if _find_key(operations) else NETWORK)


def _find_key(operations: Sequence[Operation]) -> str | None:
    """The key of the weights in a table; None if the file is no table or has no usual key."""
    first = next((code for code, _ in operations if code not in ("PROTO", "FRAME")), "")
    texts = [argument for _, argument in operations if isinstance(argument, str)]
    keys = (key for key in TABLE_KEYS if key in texts)
    return next(keys, None) if first == "EMPTY_DICT" else None


def _list_operations(path: Path) -> list[Operation]:
    """What the pickle in a file says, up to a limit or to damage; the last of several pickles."""
    last: list[Operation] = []
    with suppress(*READ_ERRORS), _open_pickle(path) as opened:
        stream = io.BytesIO(opened.read(MAX_PICKLE_BYTES))
        for _ in range(OLD_PICKLE_COUNT):
            last = _list_one_pickle(stream) or last
    return last


def _list_one_pickle(stream: IO[bytes]) -> list[Operation]:
    found: list[Operation] = []
    with suppress(*READ_ERRORS):
        for code, argument, _position in pickletools.genops(stream):
            found.append((code.name, argument))
    return found


@contextmanager
def _open_pickle(path: Path) -> Iterator[IO[bytes]]:
    """The pickle of a file: inside the archive that torch writes, or the file itself."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as opened:
            yield opened
        return
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl")
        with archive.open(name) as inside:
            yield inside
