"""`steerlab report`: the page of a finished run, sweep or CLaS-Bench, made anew."""

import argparse
from pathlib import Path
from typing import Any

from steerlab.cli.options import has_display


def add_verbs(verbs: Any) -> None:
    report = verbs.add_parser(
        "report", help="write the page of a finished run, sweep or CLaS-Bench"
    )
    report.add_argument("folder", type=Path, help="what run, sweep or clas wrote")
    report.add_argument("--no-open", action="store_true", help="do not open it in a browser")
    report.set_defaults(verb=_report)


def _report(options: argparse.Namespace) -> int:
    from steerlab.studies.report import write

    page = write(options.folder).resolve()
    print(page)
    if not options.no_open and has_display():
        import webbrowser

        webbrowser.open(page.as_uri())
    return 0
