"""`steerlab clas`: CLaS-Bench, with its own settings as defaults."""

import argparse
import sys
from pathlib import Path
from typing import Any

from steerlab.cli.options import add_options, add_ray, given, workers


def add_verbs(verbs: Any) -> None:
    clas = verbs.add_parser(
        "clas",
        help="CLaS-Bench: open questions, every pair of languages, a judge of relevance",
        fill=_options,
    )
    clas.set_defaults(verb=_clas)


def _options(clas: argparse.ArgumentParser) -> None:
    from steerlab.studies.clas.settings import Settings

    add_options(clas, Settings)
    clas.add_argument("--out", type=Path, help="the run folder (default: runs/clas-<model>)")
    add_ray(clas)


def _clas(options: argparse.Namespace) -> int:
    from steerlab.studies.clas.settings import Settings

    settings = Settings.of(given(options, Settings))
    from steerlab.studies.clas import run

    out = options.out or Path("runs") / f"clas-{Path(settings.model).name}"
    folder = run(settings, out=out, command=["steerlab", *sys.argv[1:]], **workers(options))
    print(folder / "table.md")
    return 0
