"""Draw outputs to be rated by reading them, and keep the ratings with the package.

    python experiments/ratings.py draw build/ratings --half gemma:echo:runs/gemma \\
        --half polyglot:line:runs/polyglot-parallel

writes `rate.csv`, to be filled in: no score, no method and no setting stands in it; and
`drawn.jsonl`, which says where each output is from and is not to be read before rating. A rating is
0 (says nothing of the sentence in the target language), 1 (a part of it) or 2 (the same). A column
`meaning`, where a rater fills it in, is the same in whatever language the output is in, so that a
copy of the sentence has 0 and 2.

    python experiments/ratings.py keep build/ratings --rater "NAME OR ROLE"

puts both together in steerlab/data/ratings.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from steerlab.core.errors import SteerlabError

KEPT = Path(__file__).parents[1] / "steerlab" / "data" / "ratings"
SHOWN = ["id", "sentence", "reference", "target", "output", "rating"]
# What a judge is given, and what says where an output is from.
DRAWN = ["method", "operator", "layer", "strength", "source", "target", "sentence"]
DRAWN += ["prompt", "question", "reference", "output", "truncated"]
RATINGS = ("0", "1", "2")


def outputs(folder: Path) -> pd.DataFrame:
    """The outputs of a run on its test lines, each text once for a sentence and a target.

    What asks for no other language (the table of removal) is left out, and so is the empty
    output, which needs no rater.
    """
    rows = pd.read_parquet(folder / "rows.parquet")
    rows = rows[(rows["split"] == "test") & (rows["source"] != rows["target"])]
    rows = rows[rows["output"].str.strip() != ""]
    return rows.drop_duplicates(["target", "sentence", "output"])


def stratified(rows: pd.DataFrame, count: int, rng: np.random.Generator) -> pd.DataFrame:
    """As many rows of each stratum as can be: a method, a target, and whether the output is in it.

    The strata come in random order, one output of each in turn, until there are enough. No score
    of meaning has a part in it. Too few outputs raise `SteerlabError`.
    """
    if len(rows) < count:
        raise SteerlabError(f"there are {len(rows)} different outputs; draw at most so many")
    shuffled = rows.iloc[rng.permutation(len(rows))]
    strata = shuffled.groupby(["method", "target", "in_language"])
    # Of equals in turn, the strata are in the order of their random numbers.
    order = strata.ngroup().map(dict(enumerate(rng.permutation(strata.ngroups))))
    turn = strata.cumcount()
    return shuffled.iloc[np.lexsort([order, turn])].head(count)


def draw(folder: Path, halves: list[str], *, count: int, seed: int) -> None:
    """Write what is to be rated, and what it was drawn from.

    Args:
        folder: where both files go; it must hold no ratings yet.
        halves: NAME:FORM:RUN, the model's name, its prompt form and the folder of its run.
        count: outputs of all together.
        seed: decides which these are.
    """
    form = folder / "rate.csv"
    if form.exists():
        raise SteerlabError(f"{form} is there already, and may hold ratings; give another folder")
    rng = np.random.default_rng(seed)
    parts = []
    for number, half in enumerate(halves):
        name, form_name, run = half.split(":", 2)
        # So that a count that cannot be divided is met all the same.
        share = count * (number + 1) // len(halves) - count * number // len(halves)
        drawn = stratified(outputs(Path(run)), share, rng)
        drawn = drawn[[name for name in DRAWN if name in drawn]]  # older rows lack the last
        parts.append(drawn.assign(model=name, form=form_name))
    mixed = pd.concat(parts, ignore_index=True)
    mixed = mixed.iloc[rng.permutation(len(mixed))].reset_index(drop=True)
    folder.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = json.loads(mixed.to_json(orient="records"))
    lines = [{"id": number, **record} for number, record in enumerate(records, 1)]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "drawn.jsonl").write_text(text, "utf-8")
    with form.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(SHOWN)
        for line in lines:
            values = [line["question"], line["reference"], line["target"], line["output"]]
            table.writerow([line["id"], *values, ""])


def keep(folder: Path, *, rater: str) -> Path:
    """Put the ratings beside what they are of, in a file of the package; gives its path.

    An output without a rating of 0, 1 or 2 raises `SteerlabError`.
    """
    lines = [json.loads(line) for line in (folder / "drawn.jsonl").read_text("utf-8").splitlines()]
    with (folder / "rate.csv").open(encoding="utf-8-sig", newline="") as file:
        ratings = {row["id"].strip(): row["rating"].strip() for row in csv.DictReader(file)}
    wrong = [line["id"] for line in lines if ratings.get(str(line["id"])) not in RATINGS]
    if wrong:
        raise SteerlabError(
            f"{len(wrong)} of {len(lines)} outputs have no rating of {', '.join(RATINGS)}, the "
            f"first has the id {wrong[0]}; fill them in, and keep them then"
        )
    rated = [line | {"rating": int(ratings[str(line["id"])]), "rater": rater} for line in lines]
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / "outputs.jsonl"
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in rated)
    path.write_text(text, "utf-8")
    return path


def main() -> None:
    """What the words on the command line ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("draw", help="draw outputs, and write the form to fill in")
    one.add_argument("folder", type=Path)
    one.add_argument("--half", action="append", required=True, metavar="NAME:FORM:RUN")
    one.add_argument("--count", type=int, default=200)
    one.add_argument("--seed", type=int, default=0)
    two = verbs.add_parser("keep", help="put the ratings into steerlab/data/ratings")
    two.add_argument("folder", type=Path)
    two.add_argument("--rater", required=True, help="whose ratings they are")
    words = parser.parse_args()
    if words.verb == "draw":
        draw(words.folder, words.half, count=words.count, seed=words.seed)
        print(f"fill in {words.folder / 'rate.csv'}: 0 nothing, 1 a part, 2 the same")
    else:
        print(keep(words.folder, rater=words.rater))


if __name__ == "__main__":
    main()
