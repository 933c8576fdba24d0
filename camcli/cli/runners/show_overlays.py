"""Draw the overlays of a run in the terminal: `camcli explain --show`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL.Image import Image

from camcli.cli.console import print_info
from camcli.cli.terminal_pictures import TerminalScreen, open_screen
from camcli.core.types import ClassExplanation, Result
from camcli.io.pictures import draw_explanation, mark_region
from camcli.io.writers import DrawingStyle
from camcli.runs.counts import ResultLine

MAX_CLASSES = 10  # of one result; the files have the others
ResultIdentity = tuple[str, str, tuple[str, ...]]  # path, method and layers


class ShownOverlay(NamedTuple):
    """A small overlay, and the line below it."""

    picture: Image
    caption: str


def create_overlay_show(style: DrawingStyle) -> OverlayShow | None:
    """Prepare to draw overlays in this style. None, after a message, without a fit terminal."""
    screen = open_screen()
    return OverlayShow(screen, style) if screen else None


@dataclass(frozen=True, slots=True)
class OverlayShow:
    """The overlays of the results that are finished, until their lines are printed.

    Threads draw them small while they write files; only the main thread prints.
    """

    screen: TerminalScreen
    style: DrawingStyle
    waiting: dict[ResultIdentity, list[ShownOverlay]] = field(default_factory=dict)

    def collect_from(self, write_files: Callable[[Result], Result]) -> Callable[[Result], Result]:
        """Make a function that writes files of a result also keep its overlays."""

        def write(result: Result) -> Result:
            overlays = [
                ShownOverlay(self._draw_small(result, shown), _format_caption(result, shown))
                for shown in result.explanations[:MAX_CLASSES]
                if shown.fused_map.status == "ok"
            ]
            written = write_files(result)
            path = str(result.sample.source.path)
            self.waiting[path, result.method_name, result.layer_names] = overlays
            return written

        return write

    def _draw_small(self, result: Result, shown: ClassExplanation) -> Image:
        image = result.sample.image
        small = image.resize(self.screen.fit_size(image.size), reducing_gap=3.0)
        view = result.sample.view.to_image_size(*small.size)
        picture = draw_explanation(result, shown, small, view, self.style)
        mark_region(picture, result, shown, self.style)
        return picture

    def draw(self, line: ResultLine) -> None:
        """Draw the overlays of the result with this line of results.jsonl."""
        identity = (line["path"], line.get("method", ""), tuple(line.get("layers", ())))
        for overlay in self.waiting.pop(identity, ()):
            self.screen.draw(*overlay)
        hidden_count = len(line.get("explanations", ())) - MAX_CLASSES
        if hidden_count > 0:
            print_info(f"{hidden_count} more classes of this image are not shown")


def _format_caption(result: Result, shown: ClassExplanation) -> str:
    parts = (result.sample.source.name, shown.title, result.method_name)
    return " · ".join(filter(None, parts))
