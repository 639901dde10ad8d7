"""docs/axes.md, from the tables that experiments/concepts/axes.py keeps; without the model."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from axes_bench import BEGINS, LANGS, METHODS, NEW, nouns

import steerlab as sl
from steerlab.analysis.intervals import by_sentence, paired_difference
from steerlab.analysis.tables import markdown, spelled
from steerlab.core.errors import SteerlabError

SLACK = 0.1  # how much less often than unsteered an output may be in its language
WITHIN = 0.1  # bits per byte in which two outputs of a matched pair may differ
MEASURE = {"frequency": "frequency", "concreteness": "net"}  # of outputs
NAMES = {
    "frequency": "Log frequency",
    "concreteness": "Concreteness",
    "random": "random axis of equal norm",
    "shuffled": "axis of shuffled scores",
    "axis": "**axis**",
}
KEY = ["lang", "method", "layer", "strength"]


class Kept:
    """The tables of a model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / f"{name}.csv", keep_default_na=True)


def page(folder: Path, model: str) -> str:
    kept = Kept(folder)
    told: list[str] = []
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
        *(line for kind in MEASURE for line in _steered(kept, kind, told)),
        *_transfer(kept, told),
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


# ---------------------------------------------------------------------------------------- steering


def _interval(rows: pd.DataFrame, column: str, *, share: bool = False) -> list[float]:
    values = rows[column].to_numpy(float)
    good = np.isfinite(values)
    if not good.any():
        return [np.nan] * 3
    return list(by_sentence(values[good], rows["sentence"].to_numpy()[good], share=share))


def _at(rows: pd.DataFrame, lang: str, method: str, layer: int, strength: float) -> pd.DataFrame:
    same = (rows["lang"] == lang) & (rows["method"] == method) & (rows["layer"] == layer)
    return rows[same & (rows["strength"].abs() == strength)]


def _matched(rows: pd.DataFrame, measure: str) -> dict[str, Any] | None:
    """Up less down among outputs of equal bits per byte; None where no two are."""
    group = rows.assign(side=np.where(rows["strength"] > 0, "2 up", "1 down"))
    try:
        return dict(
            sl.stats.matched_by(group, by="bits", group="side", value=measure, within=WITHIN)
        )
    except SteerlabError:
        return None


def _less(axis: pd.DataFrame, control: pd.DataFrame) -> list[float]:
    """The axis' effect less a control's, on the sentences or nouns that both have."""
    both = sorted(set(axis["sentence"]) & set(control["sentence"]))
    a, b = (side[side["sentence"].isin(both)].sort_values("sentence") for side in (axis, control))
    return list(
        paired_difference(
            a["value"].to_numpy(float),
            a["sentence"].to_numpy(),
            b["value"].to_numpy(float),
            b["sentence"].to_numpy(),
            share=False,
        )
    )


def _steered(kept: Kept, kind: str, told: list[str]) -> list[str]:
    choices, test, said = (kept(f"{kind}-{name}") for name in ("choices", "test", "test-said"))
    measure = MEASURE[kind]
    rows: list[dict[str, Any]] = []
    wins, matched_wins = [], []
    for lang in LANGS:
        own = choices[choices["lang"] == lang]
        layer, strength = own[own["method"] == "axis"][["layer", "strength"]].iloc[0]
        effect = _at(test, lang, "axis", layer, strength)
        beaten = True
        for row in own.to_dict("records"):
            part = _at(test, lang, row["method"], row["layer"], row["strength"])
            outputs = _at(said, lang, row["method"], row["layer"], row["strength"])
            up, down = (outputs[outputs["strength"] * sign > 0] for sign in (1, -1))
            pairs = _matched(outputs, measure)
            less = None if row["method"] == "axis" else _less(effect, part)
            beaten = beaten and (less is None or less[1] > 0)
            if row["method"] == "axis":
                matched_wins.append(pairs is not None and pairs["low"] > 0)
            line = {
                "language": lang,
                "along": NAMES[row["method"]],
                "layer": str(row["layer"]),
                "gaps": f"{row['strength']:g}",
                "set by": row["at"],
                "up less down": spelled(_interval(part, "value")),
                "the axis less this": "" if less is None else spelled(less),
                **_words(kind, up, down),
                "at equal bits per byte": "no pair"
                if pairs is None
                else f"{spelled([pairs[k] for k in ('difference', 'low', 'high')])}; {pairs['pairs']}",
                "in language, down / up": f"{down['in_language'].mean():.2f} / {up['in_language'].mean():.2f}",
                "bits per byte, down / up": f"{down['bits'].median():.2f} / {up['bits'].median():.2f}",
                "n": len(part),
            }
            rows.append(line)
        wins.append(beaten)
        plain = said[(said["lang"] == lang) & (said["method"] == "unsteered")]
        rows.append(
            {
                "language": lang,
                "along": "*unsteered*",
                **_unsteered(kind, plain),
                "in language, down / up": f"{plain['in_language'].mean():.2f}",
                "bits per byte, down / up": f"{plain['bits'].median():.2f}",
                "n": len(plain),
            }
        )
    lost = [lang for lang, won in zip(LANGS, wins, strict=True) if not won]
    if lost:
        told.append(
            f"{NAMES[kind]}: in {', '.join(lost)} the axis does not beat every control, at its own setting and at theirs."
        )
    lost = [lang for lang, won in zip(LANGS, matched_wins, strict=True) if not won]
    if lost:
        told.append(
            f"{NAMES[kind]}: in {', '.join(lost)} outputs of equal bits per byte, up and down, do not differ plainly in "
            + (
                "the mean log frequency of their words."
                if kind == "frequency"
                else "held-out nouns."
            )
        )
    return [
        f"## {NAMES[kind]}, steered",
        "",
        _how(kind),
        "",
        markdown(pd.DataFrame(rows)),
        "",
        *_doses(kept, kind),
    ]


def _words(kind: str, up: pd.DataFrame, down: pd.DataFrame) -> dict[str, str]:
    if kind == "frequency":
        return {
            "log frequency, down / up": f"{down['frequency'].mean():.2f} / {up['frequency'].mean():.2f}"
        }
    return {"concrete of held-out nouns, down / up": f"{_share(down)} / {_share(up)}"}


def _unsteered(kind: str, plain: pd.DataFrame) -> dict[str, str]:
    if kind == "frequency":
        return {"log frequency, down / up": f"{plain['frequency'].mean():.2f}"}
    return {"concrete of held-out nouns, down / up": _share(plain)}


def _share(rows: pd.DataFrame) -> str:
    concrete, abstract = int(rows["concrete"].sum()), int(rows["abstract"].sum())
    if not concrete + abstract:
        return "none of 0"
    return f"{concrete / (concrete + abstract):.2f} of {concrete + abstract}"


def _how(kind: str) -> str:
    begin = f"The model goes on after the first {BEGINS} words of a test line, for {NEW} tokens, greedily, pushed up and down the axis. "
    end = (
        f"Layer and strength are those of the largest effect on dev, in each language and for controls too, among settings whose outputs are in their "
        f"language at most {SLACK:g} less often than unsteered ones. *At equal bits per byte*: `sl.stats.matched_by`, outputs up and down "
        f"paired within {WITHIN:g} bits per byte (under the unsteered model); the number of pairs behind it. Its interval takes pairs as "
        "independent. Bits per byte are medians: a short output may cost ten times as much."
    )
    if kind == "frequency":
        return (
            begin
            + "*Up less down*: the difference of the mean log(1 + count) of an output's words, by the counts that the axis was fitted on, "
            "paired by prompt. " + end
        )
    return (
        begin
        + "The axis is fitted on half of the list. *Up less down*: by how many nats more the push up than that down favours a concrete noun "
        "of the other half over an abstract one, after beginnings such as *Here comes the* (dev has another beginning than test); "
        "intervals over nouns. Outputs are counted for the nouns of that half and their plurals; *at equal bits per byte* is of concrete "
        "less abstract ones an output. " + end
    )


def _doses(kept: Kept, kind: str) -> list[str]:
    """The effect by strength on dev, over all languages."""
    dev, said = kept(f"{kind}-dev"), kept(f"{kind}-dev-said")
    said = said[said["method"] != "unsteered"].assign(size=said["strength"].abs())
    rows = []
    for (method, layer), part in dev.groupby(["method", "layer"], sort=False):
        line: dict[str, Any] = {"along": NAMES[str(method)], "layer": layer}
        for strength, each in part.groupby("strength"):
            cost = said[
                (said["method"] == method) & (said["layer"] == layer) & (said["size"] == strength)
            ]
            line[f"{strength:g} gaps"] = (
                f"{each['value'].mean():.2f}; {cost['in_language'].mean():.2f}; {cost['bits'].median():.2f}"
            )
        rows.append((list(METHODS).index(str(method)), layer, line))
    lines = [line for *_, line in sorted(rows, key=lambda row: row[:2])]
    return [
        "On dev, over the languages: up less down; in the language; bits per byte (the median of outputs up and down).",
        "",
        markdown(pd.DataFrame(lines)),
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
            own = _at(test, lang, "axis", layer, strength)
            drawn = _at(test, lang, "random", layer, strength)
            line: dict[str, Any] = {"axis": NAMES[kind], "steered": lang}
            for fitted in LANGS:
                part = here[(here["fitted"] == fitted) & (here["method"] == "axis")]
                found = own if fitted == lang else part
                line[f"fitted in {fitted}"] = spelled(_interval(found, "value"))
                if fitted != lang and _less(part, drawn)[1] <= 0:
                    failed[kind].append(f"{fitted} → {lang}")
            noise = here[here["method"] == "shuffled"]
            line["random axis"] = spelled(_interval(drawn, "value"))
            line["shuffled, of the others"] = spelled(_interval(noise, "value"))
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
