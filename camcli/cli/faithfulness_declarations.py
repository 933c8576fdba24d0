"""Options of `camcli evaluate faithfulness`: what is measured, and against what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from camcli.cli.declarations import INPUT, METHOD, OUTPUT
from camcli.cli.evaluate_declarations import ResumeEvaluation


@dataclass(frozen=True, slots=True)
class FaithfulnessArguments:
    """Which metrics, baselines and checks to compute, as typed."""

    metrics: Annotated[
        str,
        Option(
            metavar="LIST",
            help="Compute these metrics: standard, all, or names separated by commas.",
            rich_help_panel=METHOD,
        ),
    ] = "standard"
    steps: Annotated[
        int,
        Option(
            metavar="N",
            min=2,
            max=1000,
            help="Remove pixels in N steps for deletion and insertion.",
            rich_help_panel=METHOD,
        ),
    ] = 20
    blur: Annotated[
        str,
        Option(
            metavar="rise|SIDE:SIGMA",
            help="Blur the image this way for insertion; 51:41 leaves less to see than rise.",
            rich_help_panel=METHOD,
        ),
    ] = "rise"
    cells: Annotated[
        int,
        Option(
            metavar="N",
            min=2,
            max=64,
            help="Remove the cells of an N x N grid one at a time, for sds.",
            rich_help_panel=METHOD,
        ),
    ] = 7
    baselines: Annotated[
        str,
        Option(
            metavar="LIST",
            help="Compare with these maps: center, random, sobel, randomcam, or none.",
            rich_help_panel=METHOD,
        ),
    ] = "center,random,sobel,randomcam"
    sanity: Annotated[
        str,
        Option(
            metavar="LIST",
            help="Check whether maps change with random weights (cascade, independent) and with the"
            " class (classes), on 20 images.",
            rich_help_panel=METHOD,
        ),
    ] = "none"
    limit: Annotated[
        int | None,
        Option(
            metavar="N",
            min=1,
            help="Use only the first N images of a fixed shuffle.",
            show_default="all",
            rich_help_panel=INPUT,
        ),
    ] = None
    resume: ResumeEvaluation = False
    fail_under: Annotated[
        list[str] | None,
        Option(
            metavar="METRIC=X",
            help="Exit with status 1 if the metric of a method is below X, such as road=0.1.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    fail_over: Annotated[
        list[str] | None,
        Option(
            metavar="METRIC=X",
            help="Exit with status 1 if the metric of a method is above X, such as deletion=0.3.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
