"""Encode charts as files: PNG for the screen, SVG and PDF for documents."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure

ChartFormat = Literal["png", "svg", "pdf"]
# Without a date and with fixed names, the same chart is the same file. Text stays text.
METADATA: Mapping[str, Mapping[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
SETTINGS: Any = {"svg.hashsalt": "camcli", "svg.fonttype": "none", "pdf.fonttype": 42}


def encode_chart(figure: Figure, chart_format: ChartFormat = "png") -> bytes:
    """The bytes of a file that shows the chart."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(buffer, format=chart_format, metadata=METADATA.get(chart_format))
    return buffer.getvalue()
