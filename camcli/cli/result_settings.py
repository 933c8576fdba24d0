"""The options that decide the results of a run, as run.json keeps them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camcli.cli.options import parse_output_kinds
from camcli.cli.picture_arguments import FIRST_LOOK, LOOK_OPTIONS, is_drawn_kind
from camcli.engine.targets import DEFAULT_TARGET, list_references


def create_result_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide the results as run.json has them, with digests of target files."""
    from camcli.runs.manifest import compute_file_digest

    own = dict(given)
    for name in ("rgb", "logits"):  # a run of before the option existed can be resumed
        if own[name] is None:
            del own[name]
    if own["refine"] == "none":
        del own["refine"]
    if not any(map(is_drawn_kind, parse_output_kinds(own["save"]))):
        own = {name: value for name, value in own.items() if name not in LOOK_OPTIONS} | FIRST_LOOK
    targets = own["target"] or [DEFAULT_TARGET]
    tables = [Path(spec[1:]) for spec in targets if spec.startswith("@")]
    files = [file for path in (*tables, *list_references(targets)) for file in _list_files(path)]
    digests = [compute_file_digest(file) for file in files]
    return {
        **own,
        "layers": _unwrap_single(own["layers"] or []),
        "block": _unwrap_single([_to_number(block) for block in own["block"] or []]),
        "target": _unwrap_single(targets),
        "target_sha256": _unwrap_single(digests),
    }


def _list_files(path: Path) -> list[Path]:
    """The file itself, or the files in a folder."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _unwrap_single(values: Sequence[Any]) -> Any:
    """A repeatable option as run.json has it: one value alone, as before it was repeatable."""
    return values[0] if len(values) == 1 else list(values) or None


def _to_number(block: str) -> int | str:
    return int(block) if re.fullmatch(r"-?\d+", block) else block
