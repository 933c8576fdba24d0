"""Processes of camcli that share a run, one for each device."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from camcli.core.errors import OutputError
from camcli.io.results import RESULTS_FILE
from camcli.runs.resume import parse_log_line

PROGRAM_FOLDER = Path(__file__).parent.parent.parent
MAX_MESSAGE_BYTES = 4000  # of the end of what a process said
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"


def create_shard_command(
    options: Sequence[str], inputs: Sequence[str], device: str, workers: int
) -> list[str]:
    """The command of one process. With -P, no module of the working directory replaces camcli."""
    own = [f"--device={'cpu' if device == 'cpu' else 'cuda'}", f"--workers={workers}"]
    return [sys.executable, "-P", "-m", "camcli", "explain", *options, *own, "--", *inputs]


def create_shard_variables(
    variables: Mapping[str, str], device: str, threads: int
) -> dict[str, str]:
    """The environment of one process: its GPU, and its share of the cores unless the user chose."""
    path = os.pathsep.join(filter(None, [str(PROGRAM_FOLDER), variables.get("PYTHONPATH")]))
    own = {"OMP_NUM_THREADS": str(threads), **variables, "PYTHONPATH": path}
    if device != "cpu":
        visible = [name for name in variables.get(VISIBLE_DEVICES, "").split(",") if name]
        number = int(device)
        own[VISIBLE_DEVICES] = visible[number] if number < len(visible) else device
    return own


@dataclass(slots=True)
class LogFollower:
    """Counts the images in a results.jsonl that another process writes."""

    path: Path
    image_count: int = 0
    _offset: int = 0
    _file_number: int = 0
    _last_path: str | None = None

    def count_images(self) -> int:
        """The number of images with a complete line by now."""
        try:
            with self.path.open("rb") as file:
                self._restart_if_replaced(os.fstat(file.fileno()))
                file.seek(self._offset)
                for raw_line in file:
                    if raw_line.endswith(b"\n"):
                        self._count_line(raw_line)
        except OSError:
            return self.image_count
        return self.image_count

    def _count_line(self, raw_line: bytes) -> None:
        self._offset += len(raw_line)
        content = parse_log_line(raw_line)
        if content and content["path"] != self._last_path:
            self.image_count += 1
            self._last_path = content["path"]

    def _restart_if_replaced(self, found: os.stat_result) -> None:
        """A resumed run shortens its list, and sorts it in the end, into a new file."""
        if found.st_ino != self._file_number or found.st_size < self._offset:
            self.image_count, self._offset, self._last_path = 0, 0, None
            self._file_number = found.st_ino


@dataclass(slots=True)
class ShardProcess:
    """One running process, what it said, and how far it is."""

    process: subprocess.Popen[bytes]
    said: IO[bytes]
    folder: Path
    log: LogFollower

    def read_last_line(self) -> str:
        """The last line of its messages that tells an error."""
        end = self.said.seek(0, os.SEEK_END)
        self.said.seek(max(0, end - MAX_MESSAGE_BYTES))
        lines = self.said.read().decode(errors="replace").split("\n")
        told = [line.removeprefix("camcli: ") for line in lines if line.startswith("camcli: ")]
        told = [line for line in told if "; to continue: " not in line] or told
        others = [line for line in lines if line.strip()]
        return (told or others or ["it said nothing"])[-1]


@dataclass(slots=True)
class ShardProcesses:
    """All processes of a run; use it with `with`: none outlives it."""

    running: list[ShardProcess] = field(default_factory=list)

    def start(
        self, command: Sequence[str], variables: Mapping[str, str], listed: bytes, folder: Path
    ) -> None:
        """Start a process that writes into a shard's folder. Raises OutputError.

        It has a session of its own: Ctrl-C reaches this process only, which hands it on once.
        """
        said, given = TemporaryFile(), TemporaryFile()  # noqa: SIM115 - closed at the end
        given.write(listed)
        given.seek(0)
        options: dict[str, Any] = {"stdin": given, "stdout": subprocess.DEVNULL, "stderr": said}
        try:
            process = subprocess.Popen(command, env=variables, start_new_session=True, **options)
        except OSError as error:
            raise OutputError(f"cannot start another process: {error.strerror}") from None
        finally:
            given.close()
        log = LogFollower(folder / RESULTS_FILE)
        self.running.append(ShardProcess(process, said, folder, log))

    @property
    def is_finished(self) -> bool:
        """Whether every process has ended."""
        return all(each.process.poll() is not None for each in self.running)

    def count_images(self) -> int:
        """The number of images that are done in all shards."""
        return sum(each.log.count_images() for each in self.running)

    def interrupt(self) -> None:
        """Ask every process to end after its batch.

        With SIGTERM, because a process may have inherited that it ignores SIGINT.
        """
        for each in self.running:
            if each.process.poll() is None:
                with suppress(OSError):
                    each.process.terminate()

    def kill(self) -> None:
        """End every process; all files that it has written are complete."""
        for each in self.running:
            if each.process.poll() is None:
                each.process.kill()

    def wait(self) -> None:
        """Wait until every process has ended."""
        while not self.is_finished:
            time.sleep(0.05)

    def __enter__(self) -> ShardProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for each in self.running:
            each.process.wait()
            each.said.close()
