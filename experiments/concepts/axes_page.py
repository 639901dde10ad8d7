"""docs/axes.md, from the tables that experiments/concepts/axes.py keeps; without the model."""

from pathlib import Path
from typing import Any

import pandas as pd
from axes_bench import LANGS, nouns
from axes_steering import MEASURE, NAMES, Kept, interval, less_than, rows_at, steered

from steerlab.analysis.tables import markdown, spelled


def page(folder: Path, model: str) -> str:
    kept = Kept(folder)
    told: list[str] = []
    held: list[str] = []
    option = "" if model == "polyglot" else f" --model {model}"
    parts = [
        "# Axes of words, steered",
        "",
        f"Written by `python experiments/concepts/axes.py{option}` of {model}. An axis (`sl.estimate.axis`) is the direction along which a "
        "score of words grows, by ridge regression on the mean vectors of word types. Brain-Grounded Axes (arXiv 2512.19399) take "
        "scores from MEG; in their place stand *log frequency*, of all words of the `estimate` split of the parallel corpus, and "
        f"*concreteness*, of {len(nouns('en'))} nouns in each of {', '.join(LANGS)} that we wrote and marked by category (chair, "
        "dog: 1; doubt, justice: 0; `experiments/concepts/concreteness.csv`), read in three short sentences each. Strength is in "
        "gaps between the words above and below the median; random axes and those of shuffled scores (three seeds) have the same "
        "gap, so that equal strength is an equal step. Brackets are 95 % intervals.",
        "",
        *_correlations(kept, told),
        *(line for kind in MEASURE for line in steered(kept, kind, held, told)),
        *_transfer(kept, told),
        "## What held",
        "",
        *(f"- {claim}" for claim in held),
        "",
        "## What did not hold",
        "",
        *(f"- {claim}" for claim in told),
        "",
    ]
    return "\n".join(parts)


# -------------------------------------------------------------------------------------------- fits


def _correlations(kept: Kept, told: list[str]) -> list[str]:
    table = kept("correlations")
    rows = []
    for row in table.to_dict("records"):
        rows.append(
            {
                "axis": NAMES[row["kind"]],
                "language": row["lang"],
                "layer": row["layer"],
                "words": row["words"],
                "r, held out": spelled([row["r"], row["low"], row["high"]]),
                "shuffled scores": f"{row['shuffled']:.2f} ({row['shuffled_low']:.2f} to "
                f"{row['shuffled_high']:.2f})",
                "r of score and length": f"{row['length']:.2f}",
                "r beyond length": f"{row['beyond_length']:.2f}",
                "whole categories held out": ""
                if row["categories"] != row["categories"]
                else f"{row['categories']:.2f}",
            }
        )
    for kind, part in table.groupby("kind", sort=False):
        weak = part[part["low"] <= part["shuffled_high"]]
        if len(weak):
            places = ", ".join(f"{r.lang} layer {r.layer}" for r in weak.itertuples())
            told.append(
                f"{NAMES[str(kind)]}: held out, r is not above every shuffle's in {places}."
            )
        loss = float((part["r"] - part["beyond_length"]).mean())
        if loss > 0.1:
            told.append(
                f"{NAMES[str(kind)]}: part of what the axis knows is how long words are: without it r falls by "
                f"{loss:.2f} on average."
            )
    return [
        "## Do the axes know words that they were not fitted on?",
        "",
        "Correlation of score and projection, each fifth of the word types held out in turn; intervals over word types. Shuffled: "
        "the mean of ten permutations of the scores (and the least and the most). *Beyond length*: of what a straight line in the number "
        "of letters leaves of both. *Whole categories*: one concrete and one abstract category held out at a time.",
        "",
        markdown(pd.DataFrame(rows)),
        "",
    ]


# ---------------------------------------------------------------------------------------- transfer


def _transfer(kept: Kept, told: list[str]) -> list[str]:
    read, rows = kept("across"), []
    for row in read.to_dict("records"):
        rows.append(
            {
                "axis": NAMES[row["kind"]],
                "fitted": row["fitted"],
                "read on": row["lang"],
                "layer": row["layer"],
                "words": row["words"],
                "r": spelled([row["r"], row["low"], row["high"]]),
                "random": f"{row['random']:.2f}",
                "shuffled": f"{row['shuffled']:.2f}",
            }
        )
    steered = []
    failed: dict[str, list[str]] = {kind: [] for kind in MEASURE}
    for kind in MEASURE:
        table, test = kept(f"{kind}-transfer"), kept(f"{kind}-test")
        for lang in LANGS:
            here = table[table["lang"] == lang]
            layer, strength = here[["layer", "strength"]].iloc[0]
            own = rows_at(test, lang, "axis", layer, strength)
            drawn = rows_at(test, lang, "random", layer, strength)
            line: dict[str, Any] = {"axis": NAMES[kind], "steered": lang}
            for fitted in LANGS:
                part = here[(here["fitted"] == fitted) & (here["method"] == "axis")]
                found = own if fitted == lang else part
                line[f"fitted in {fitted}"] = spelled(interval(found, "value"))
                if fitted != lang and less_than(part, drawn)[1] <= 0:
                    failed[kind].append(f"{fitted} → {lang}")
            noise = here[here["method"] == "shuffled"]
            line["random axis"] = spelled(interval(drawn, "value"))
            line["shuffled, of the others"] = spelled(interval(noise, "value"))
            steered.append(line)
    for kind, pairs in failed.items():
        if pairs:
            told.append(
                f"{NAMES[kind]}: the axis of another language does not steer plainly more than a random one in {', '.join(pairs)}."
            )
    return [
        "## Does an axis go from one language to another?",
        "",
        "Read: correlation of the score of words with the axis of another language, on words that this one does not have, and for "
        "concreteness on the half that neither was fitted on.",
        "",
        markdown(pd.DataFrame(rows)),
        "",
        "Steered: up less down on test, as above, at the layer, strength and gap of the steered language's own axis.",
        "",
        markdown(pd.DataFrame(steered)),
        "",
    ]
