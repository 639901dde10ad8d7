"""docs/cloned.md: directions scored against a truth that is known, on models of a language and its clone.

`python experiments/cloned/cloned_page.py TEXT` reads a file of English, one sentence a line, trains small
models, fits each method on 240 sentences in both languages, chooses layer and strength on 60, and reports on
120 others. Each model's record goes into recorded/ and is not made again; the page is written from what is
there. `--plan gpu --device cuda --processes 5` does the larger models; `--share`, `--schedule`, `--frac-clone`,
`--layers`, `--width`, `--tokens` do some of one's own in place of a plan.
"""

import argparse
from pathlib import Path
from typing import Any

from clone_models import Run
from clone_report import page
from clone_runs import RECORDED, SAE_STEPS, SMALL, plan, run_all, seeds_of
from clones import Text

from steerlab.core.files import read_json

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cloned.md"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "text", type=Path, nargs="?", help="a file, or a folder with en.txt; none: the page alone"
    )
    parser.add_argument("--plan", help="cpu, gpu or tiny; by default cpu")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--sae-steps", type=int, default=SAE_STEPS)
    parser.add_argument("--recorded", type=Path, default=RECORDED, help="the folder of records")
    parser.add_argument("--page", type=Path, default=PAGE)
    own = parser.add_argument_group("runs of one's own")
    own.add_argument("--tokens", type=int)
    own.add_argument("--share", type=float, help="of the sequences, those in the clone")
    own.add_argument("--schedule", help="such shares one after another, as 0,0.5")
    own.add_argument("--frac-clone", type=float, help="of the tokens, those that have a clone")
    own.add_argument("--layers", type=int)
    own.add_argument("--width", type=int)
    own.add_argument("--rows", type=int, help="sequences of a step")
    own.add_argument("--seeds", type=int)
    given = parser.parse_args()
    runs = own_runs(given)
    if runs and given.plan:
        parser.error("give a plan or runs of your own, not both")
    if given.text is not None:
        file = given.text / "en.txt" if given.text.is_dir() else given.text
        run_all(
            Text.of(file),
            runs or plan(given.plan or "cpu"),
            device=given.device,
            processes=given.processes,
            sae_steps=given.sae_steps,
            folder=given.recorded,
        )
    given.page.write_text(page(read_records(given.recorded)), "utf-8")


def own_runs(given: argparse.Namespace) -> list[Run]:
    """The runs that were asked for one by one; none where nothing of a run was given."""
    if given.share is not None and given.schedule is not None:
        raise SystemExit("give --share, or --schedule with several, not both")
    shares: tuple[float, ...] | None = None if given.share is None else (given.share,)
    if given.schedule is not None:
        shares = tuple(map(float, given.schedule.split(",")))
    asked = {
        "tokens": given.tokens,
        "shares": shares,
        "frac": given.frac_clone,
        "layers": given.layers,
        "width": given.width,
        "rows": given.rows,
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    if not asked and given.seeds is None:
        return []
    for value in (*(shares or ()), asked.get("frac", 1.0)):
        if not 0 <= value <= 1:
            raise SystemExit(f"{value} is no share; give numbers from 0 to 1")
    return seeds_of(Run(**{"tokens": SMALL.tokens, **asked}), given.seeds or 3)


def read_records(folder: Path = RECORDED) -> list[dict[str, Any]]:
    """All records, the smallest models first."""
    found = [dict(read_json(file) or {}) for file in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda each: (each["weights"], each["run"]["tokens"]))


if __name__ == "__main__":
    main()
