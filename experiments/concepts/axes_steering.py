"""What the axes steer, at equal strength and at equal cost: the sections of docs/axes.md."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from axes_bench import BEGINS, LANGS, METHODS, NEW

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
Rows = list[dict[str, Any]]


class Kept:
    """The tables of a model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / f"{name}.csv", keep_default_na=True)


def interval(rows: pd.DataFrame, column: str, *, share: bool = False) -> list[float]:
    values = rows[column].to_numpy(float)
    good = np.isfinite(values)
    if not good.any():
        return [np.nan] * 3
    return list(by_sentence(values[good], rows["sentence"].to_numpy()[good], share=share))


def rows_at(
    rows: pd.DataFrame, lang: str, method: str, layer: int, strength: float
) -> pd.DataFrame:
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


def less_than(axis: pd.DataFrame, control: pd.DataFrame) -> list[float]:
    """The axis' effect less a control's, on the sentences or nouns that both have."""
    key = ["lang", "sentence"]
    both = axis[key].merge(control[key])
    a, b = (side.merge(both, on=key).sort_values(key) for side in (axis, control))
    return list(
        paired_difference(
            a["value"].to_numpy(float),
            a["sentence"].to_numpy(),
            b["value"].to_numpy(float),
            b["sentence"].to_numpy(),
            share=False,
        )
    )


def steered(kept: Kept, kind: str, held: list[str], told: list[str]) -> list[str]:
    choices, test, said = (kept(f"{kind}-{name}") for name in ("choices", "test", "test-said"))
    rows: list[dict[str, Any]] = []
    wins, matched_wins, backwards = [], [], []
    for lang in LANGS:
        own = choices[choices["lang"] == lang]
        layer, strength = own[own["method"] == "axis"][["layer", "strength"]].iloc[0]
        effect = rows_at(test, lang, "axis", layer, strength)
        if interval(effect, "value")[2] < 0:
            backwards.append(lang)
        beaten = True
        for row in own.to_dict("records"):
            part = rows_at(test, lang, row["method"], row["layer"], row["strength"])
            outputs = rows_at(said, lang, row["method"], row["layer"], row["strength"])
            less = None if row["method"] == "axis" else less_than(effect, part)
            beaten = beaten and (less is None or less[1] > 0)
            line, pairs = _line(kind, part, outputs, less)
            if row["method"] == "axis":
                matched_wins.append(pairs is not None and pairs["low"] > 0)
            place = {"layer": str(row["layer"]), "gaps": f"{row['strength']:g}"}
            name = {"language": lang, "along": NAMES[row["method"]]}
            line = {**name, **place, "set by": row["at"], **line}
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
    if backwards:
        told.append(
            f"{NAMES[kind]}: in {', '.join(backwards)} the push up the axis does the opposite, plainly. A word's vector is read where the word stands; that "
            "the stream there says what was said, and not what comes next, would explain it, and was not tested."
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
    together, facts, doubts = _together(kind, choices, test, said)
    held += facts
    told += doubts
    return [
        f"## {NAMES[kind]}, steered",
        "",
        _how(kind),
        "",
        markdown(pd.DataFrame([*rows, *together])),
        "",
        *_doses(kept, kind),
    ]


def _line(
    kind: str, part: pd.DataFrame, outputs: pd.DataFrame, less: list[float] | None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The columns of one way of steering, and its pairs of equal cost."""
    up, down = (outputs[outputs["strength"] * sign > 0] for sign in (1, -1))
    pairs = _matched(outputs, MEASURE[kind])
    equal = "no pair"
    if pairs is not None:
        numbers = spelled([pairs[name] for name in ("difference", "low", "high")])
        equal = f"{numbers}; {pairs['pairs']}"
    line = {
        "up less down": spelled(interval(part, "value")),
        "the axis less this": "" if less is None else spelled(less),
        **_words(kind, up, down),
        "at equal bits per byte": equal,
        "in language, down / up": f"{down['in_language'].mean():.2f} / {up['in_language'].mean():.2f}",
        "bits per byte, down / up": f"{down['bits'].median():.2f} / {up['bits'].median():.2f}",
        "n": len(part),
    }
    return line, pairs


def _together(
    kind: str, choices: pd.DataFrame, test: pd.DataFrame, said: pd.DataFrame
) -> tuple[Rows, list[str], list[str]]:
    """All languages, each at its axis' own setting, for the axis and what it is held against; what
    of it held, and what did not."""
    own = choices[choices["method"] == "axis"]
    places = list(own[["lang", "layer", "strength"]].itertuples(index=False, name=None))
    rows: Rows = []
    facts, beaten, doubts = [], [], []
    effect = pd.DataFrame()
    for method in METHODS:
        parts, outputs = (
            pd.concat([rows_at(table, lang, method, *place) for lang, *place in places])
            for table in (test, said)
        )
        less = None if method == "axis" else less_than(effect, parts)
        line, pairs = _line(kind, parts, outputs, less)
        name = {"language": "all", "along": NAMES[method], "set by": "the axis' settings"}
        rows.append({**name, **line})
        if method == "axis":
            effect = parts
            if pairs is not None and pairs["low"] > 0:
                facts.append(
                    f"{NAMES[kind]}: over all languages outputs up and down differ at equal bits per byte too "
                    f"({line['at equal bits per byte']} pairs)."
                )
        elif less is not None:
            beaten.append(less[1] > 0)
            if pairs is not None and pairs["low"] > 0:
                doubts.append(
                    f"{NAMES[kind]}: over all languages outputs along the {NAMES[method]} differ at equal bits per byte too "
                    f"({line['at equal bits per byte']} pairs): that comparison alone does not single out the axis."
                )
    if all(beaten):
        facts.insert(
            0,
            f"{NAMES[kind]}: over all languages the axis moves its measure by {rows[0]['up less down']}, more than the random and the shuffled axis "
            f"at its settings ({', '.join(row['up less down'] for row in rows[1:])}).",
        )
    return rows, facts, doubts


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
            line[f"{strength:g} gap{'' if strength == 1 else 's'}"] = (
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
