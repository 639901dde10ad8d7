"""docs/growth.md: how steerability grows with tokens, width and parallel languages.

`python experiments/growth/growth_page.py` writes the page of what grow.py left in
experiments/growth/recorded.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from steerlab.analysis.intervals import by_sentence
from steerlab.analysis.scaling import PowerLaw, gap_at_one, power_law, transferability
from steerlab.analysis.tables import markdown, spelled
from steerlab.core.errors import SteerlabError
from steerlab.core.files import read_json

RECORDED = Path(__file__).resolve().parent / "recorded"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "growth.md"
FULL = 15  # languages beside English
WIDTH, AT = 256, 5_000_000  # of the runs that are compared
EVERY = ("joint", "in_language", "chrf")


def scores() -> pd.DataFrame:
    """A row for each run, point, direction, target and sentence."""
    parts = []
    for file in sorted(RECORDED.glob("*.json")):
        held = read_json(file)
        recipe = held["recipe"]
        for point in held["points"]:
            sentences = point["test"]["sentences"]
            bits = np.array(list(point["bits_per_byte"].values()))
            common = {
                "run": file.stem,
                "seed": recipe["seed"],
                "width": recipe["width"],
                "parallel": recipe["parallel"],
                "weights": held["weights"],
                "tokens": point["tokens"],
                "loss": point["loss"],
                "bits": bits.mean(),
                "layer": point["layer"],
                "strength": point["strength"],
            }
            for direction in ("vector", "random"):
                for target, short in point["test"][direction].items():
                    part = pd.DataFrame(
                        {
                            "sentence": sentences,
                            "joint": [int(mark) for mark in short["joint"]],
                            "in_language": [int(mark) for mark in short["in_language"]],
                            "chrf": short["chrf"],
                        }
                    )
                    taught = target in held["taught"]
                    parts.append(
                        part.assign(**common, direction=direction, target=target, taught=taught)
                    )
    if not parts:
        raise SystemExit(f"no records in {RECORDED}; run experiments/growth/grow.py first")
    return pd.concat(parts, ignore_index=True)


def _share(rows: pd.DataFrame, column: str) -> str:
    """A mean with its interval over sentences, each in all seeds and languages."""
    if rows.empty:
        return "–"
    value, low, high = by_sentence(
        rows[column].to_numpy(float), rows["sentence"].to_numpy(), share=column != "chrf"
    )
    digits = 1 if column == "chrf" else 2
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _by_seed(rows: pd.DataFrame, column: str) -> str:
    return " ".join(f"{each:.2f}" for each in rows.groupby("seed")[column].mean())


def table_of(rows: pd.DataFrame, by: str, name: str) -> str:
    """The scores of DiffMean beside a random direction's, a line for each size."""
    made = []
    for size, part in rows.groupby(by):
        vector, random = (part[part["direction"] == each] for each in ("vector", "random"))
        per_run = part.drop_duplicates(["run"])
        made.append(
            {
                name: f"{size:,}",
                "bits per byte": f"{per_run['bits'].mean():.2f}",
                "joint": _share(vector, "joint"),
                "by seed": _by_seed(vector, "joint"),
                "in language": _share(vector, "in_language"),
                "chrF": _share(vector, "chrf"),
                "joint, random direction": _share(random, "joint"),
                "layer": " ".join(map(str, per_run["layer"])),
                "strength": " ".join(f"{each:g}" for each in per_run["strength"]),
            }
        )
    return markdown(pd.DataFrame(made))


def points_of(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """A point for each run and size: its means."""
    vector = rows[rows["direction"] == "vector"]
    means = vector.groupby([by, "seed"]).agg(
        joint=("joint", "mean"), chrf=("chrf", "mean"), bits=("bits", "first")
    )
    return means.reset_index().assign(missing=lambda made: 1 - made["joint"])


def laws(points: pd.DataFrame, by: str, x: str) -> list[str]:
    """A sentence for each score: its power law, or why it has none."""
    floors = points[by].nunique() >= 5
    said = []
    kinds: list[tuple[str, str, bool]] = [
        ("bits", "Bits per byte of `dev`", False),
        ("joint", "Joint", False),
        ("missing", "What is missing of joint (1 - joint)", False),
        ("chrf", "chrF", False),
    ]
    if floors:
        kinds.insert(1, ("bits", "Bits per byte, with a floor", True))
    for column, name, floor in kinds:
        kept = points[points[column] > 0]
        left = len(points) - len(kept)
        try:
            law: PowerLaw = power_law(
                kept[by].tolist(), kept[column].tolist(), seeds=kept["seed"].tolist(), floor=floor
            )
        except SteerlabError as error:
            said.append(f"- {name}: no law, {error}.")
            continue
        said.append(
            f"- {law.sentence(name, x)}"
            + (f" Its floor is {law.floor:.2f}." if floor else "")
            + (f" {left} points of 0 are left out: a power law has none." if left else "")
        )
    return said


def local_powers(points: pd.DataFrame, by: str) -> str:
    """The power from each size to the next: one law has one power."""
    means = points.groupby(by)["joint"].mean()
    steps = []
    for (low, a), (high, b) in zip(means.items(), list(means.items())[1:], strict=False):
        if a > 0 and b > 0:
            steps.append(f"{math.log(b / a) / math.log(float(high) / float(low)):.2f}")  # type: ignore[arg-type]
    return ", ".join(steps)


def taught_table(rows: pd.DataFrame) -> str:
    """By the number of parallel languages: those that are taught, and those that are not."""
    made = []
    for count, part in rows.groupby("parallel"):
        vector = part[part["direction"] == "vector"]
        random = part[part["direction"] == "random"]
        own, other = vector[vector["taught"]], vector[~vector["taught"]]
        made.append(
            {
                "parallel languages": str(count),
                "joint, taught": _share(own, "joint"),
                "joint, not taught": _share(other, "joint"),
                "in language, taught": _share(own, "in_language"),
                "in language, not taught": _share(other, "in_language"),
                "chrF, taught": _share(own, "chrf"),
                "chrF, not taught": _share(other, "chrf"),
                "joint, random direction": _share(random, "joint"),
            }
        )
    return markdown(pd.DataFrame(made))


def indices(rows: pd.DataFrame) -> list[str]:
    """The transferability index from no parallel language to one, in chrF, by seed."""
    said = []
    vector = rows[rows["direction"] == "vector"]
    for seed, part in vector.groupby("seed"):
        means = part.groupby(["parallel", "target"])["chrf"].mean()
        if not {0, 1} <= set(part["parallel"]):
            continue
        langs = sorted(part["target"].unique())
        trained = str(part[(part["parallel"] == 1) & part["taught"]]["target"].iloc[0])
        before, after = (means[count].loc[langs].to_numpy() for count in (0, 1))
        try:
            index = transferability(before, after, langs.index(trained))
        except SteerlabError as error:
            said.append(f"seed {seed}, {trained}: none, {error}")
            continue
        own = after[langs.index(trained)] / before[langs.index(trained)] - 1
        said.append(f"seed {seed}, {trained}: {index:.2f} (chrF of {trained} {own:+.0%})")
    return said


def page(rows: pd.DataFrame) -> str:
    at_ten = rows[rows["tokens"] == AT]
    by_tokens = rows[(rows["width"] == WIDTH) & (rows["parallel"] == FULL)]
    by_width = at_ten[at_ten["parallel"] == FULL]
    by_parallel = at_ten[at_ten["width"] == WIDTH]
    held = [read_json(file) for file in sorted(RECORDED.glob("*.json"))]
    seeds, runs = rows["seed"].nunique(), rows["run"].nunique()
    seconds = sum(each["points"][-1]["seconds"] for each in held)
    device = " and ".join(sorted({each["device"] for each in held}))
    sentences = rows["sentence"].nunique()
    lines = [
        "# How steerability grows",
        "",
        "Written by `python experiments/growth/growth_page.py` of what `experiments/growth/grow.py` recorded: "
        f"{runs} models trained from nothing ({seeds} seeds at most of each kind; {seconds:,.0f} seconds of training in all, "
        f"several at once, on {device}), 8 layers, polyglot's vocabulary and texts, documents packed into rows of 128 "
        "tokens, Muon and AdamW, the rate constant after its warm-up so that the points of a run are comparable. "
        "The texts hold 9.7 million tokens, so that the longest runs read some of them twice.",
        "",
        f"At each point DiffMean is fitted on `estimate`; layer (1, 3 or 5) and strength (0.5, 1 or 1.5 gaps) are chosen on "
        f"8 `dev` lines in all languages together, and reported on {sentences} `test` lines in {rows['target'].nunique()} "
        "languages; the prompt is an English line, and *joint* is an answer in the language asked for that is nearest to "
        "its own reference among 32. Intervals are 95 %, over sentences in tables and over seeds in laws, where three "
        "seeds have ten different resamples: rough.",
    ]
    sections: list[tuple[str, pd.DataFrame, str, str, str]] = [
        ("Tokens seen", by_tokens, "tokens", "tokens", "tokens seen"),
        ("Width", by_width, "weights", "weights", "the number of weights"),
    ]
    for title, part, by, name, x in sections:
        points = points_of(part, by)
        lines += ["", f"## {title}", "", table_of(part, by, name), "", *laws(points, by, x)]
        lines.append(
            f"- From one size to the next, joint has the powers {local_powers(points, by)}."
        )
    lines += ["", "## Parallel languages", "", _parallel(by_parallel)]
    return "\n".join(lines) + "\n"


def _parallel(rows: pd.DataFrame) -> str:
    told = (
        f"Width {WIDTH}, {AT:,} tokens. All sixteen languages are read alone; translations between English and so "
        "many of the others, the first of an order that the seed draws (*taught*). Four of ten documents are lines "
        "of one language, the others translations; without a parallel language all are of one."
    )
    points = points_of(rows[rows["parallel"] > 0], "parallel")
    other = rows[(rows["parallel"] > 0) & ~rows["taught"]]
    lines = [
        told,
        "",
        taught_table(rows),
        "",
        *_read_of(rows),
        "",
        "All fifteen targets together:",
        "",
    ]
    lines += laws(points, "parallel", "the number of parallel languages")
    for column in ("joint", "chrf"):
        try:
            gap = gap_at_one(
                points["parallel"].tolist(), points[column].tolist(), seeds=points["seed"].tolist()
            )
            lines.append(f"- Gap at one language, {column}: {spelled(list(gap), 3)}.")
        except SteerlabError as error:
            lines.append(f"- Gap at one language, {column}: none, {error}.")
    if len(other):
        rest = points_of(other, "parallel")
        lines += ["", "The languages that are *not* taught:", ""]
        lines += laws(rest, "parallel", "the number of parallel languages")
    found = indices(rows)
    if found:
        lines += [
            "",
            "Transferability index from none to one parallel language, in chrF: "
            + "; ".join(found)
            + ".",
        ]
    return "\n".join(lines)


def _read_of(rows: pd.DataFrame) -> list[str]:
    """What the table comes to: the language without translations, and the sentence with them."""
    vector = rows[rows["direction"] == "vector"]
    none, one = (vector[vector["parallel"] == count] for count in (0, 1))
    other = vector[(vector["parallel"] > 0) & ~vector["taught"]]
    if none.empty or one.empty:
        return []
    return [
        f"- Without any translation the language comes ({_share(none, 'in_language')} in language), and not the "
        f"sentence (joint {_share(none, 'joint')}).",
        f"- With translations of one language, that one has joint {_share(one[one['taught']], 'joint')}; languages "
        f"that none were read in have {_share(other, 'joint')}, over one to eight taught languages.",
        "- The share of translations is the same in all, so that more languages have less of it each: this grows "
        "breadth at the cost of depth, and is no law of languages at a fixed amount of text in each.",
    ]


def main() -> None:
    PAGE.write_text(page(scores()), "utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
