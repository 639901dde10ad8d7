"""Tables of the page of a sweep or of CLaS-Bench: scores, side effects, agreement, asymmetry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pandas as pd

from steerlab.analysis.choices import SETTING, at, choose
from steerlab.analysis.effects.asymmetry import asymmetry
from steerlab.analysis.intervals import by_sentence
from steerlab.core.columns import is_share, score_records, summary_key
from steerlab.core.errors import SteerlabError
from steerlab.core.labels import labelled
from steerlab.figures.style import readable
from steerlab.scores.judges.agreement import measures
from steerlab.studies.html.formats import Interval, interval, probability

MOST = 60  # settings in a table: more are read on the map
_JUDGED = ("relevant", "faithful", "rating")  # what may say that an output says its sentence
_CLAS = {"lfs": "LFS", "or": "OR", "s": "S", "joint": "Joint"}
_OPTIONS = {"resamples": 500, "seed": 0, "level": 0.95}

Value = Interval | str | None


@dataclass(frozen=True)
class Table:
    """A table of a page: headings, rows of a name and its values, and what is to be said of it."""

    title: str
    heads: list[str]
    rows: list[tuple[str, list[Value]]] = field(default_factory=list)
    note: str = ""


def reported(rows: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], str]:
    """The rows that tables are of, by what they are called, and how they were chosen.

    A choice is made on dev and reported on the other lines. Where there are no others, it is
    reported on dev, which flatters it; where there is no dev, every setting is reported.
    """
    dev, others = rows[rows["split"] == "dev"], rows[rows["split"] != "dev"]
    chosen = choose(dev) if len(dev) else {}
    if not len(others):
        parts = {method: at(dev, method, setting) for method, setting in chosen.items()}
        return parts, (
            "each method at its best layer and strength, which was chosen on these same dev lines: "
            "the best of many looks better than it is"
        )
    parts = {}
    every = False
    for method, own in others.groupby("method", sort=False):
        settings = own[SETTING].drop_duplicates()
        if len(settings) == 1:
            parts[str(method)] = own
        elif method in chosen:
            parts[str(method)] = at(own, str(method), chosen[str(method)])
        else:
            every = True
            for layer, strength in settings.to_numpy()[:MOST]:
                name = f"{method}, layer {layer:g}, {strength:g}"
                parts[name] = at(own, str(method), (int(layer), float(strength)))
    how = "every setting that was run" if every else "each method at one layer and strength"
    return dict(list(parts.items())[:MOST]), how


def scores(parts: Mapping[str, pd.DataFrame], *, kind: str) -> Table:
    """The scores of each part with intervals: those that stand in the table `kind` of records."""
    names = [name for name, record in score_records().items() if record.table == kind]
    names = [name for name in names if score_records()[name].on_page]
    found = {label: _intervals(part, names) for label, part in parts.items()}
    there = [name for name in names if any(each.get(name) for each in found.values())]
    costs = [] if kind == "scores" else ["dose", "displacement"]
    heads = [score_records()[name].heading for name in there] + costs
    table = Table("", [*heads, "layer", "strength", "n"])
    for label, part in parts.items():
        values: list[Value] = [found[label].get(name) for name in there]
        values += [_mean(part, name) for name in costs]
        first = part.iloc[0]
        layer = "–" if first["layer"] < 0 else f"{first['layer']:g}"
        values += [layer, f"{first['strength']:g}", f"{len(part):,}"]
        table.rows.append((_label(label), values))
    return table


def _intervals(part: pd.DataFrame, names: Sequence[str]) -> dict[str, Interval | None]:
    from steerlab.analysis.results import result

    try:
        summary = result(part)
    except SteerlabError:  # rows of another judge have other columns: what they have is shown
        return {name: _mean(part, name) for name in names}
    return {name: interval(summary.get(summary_key(name))) for name in names}


def _mean(part: pd.DataFrame, name: str) -> Interval | None:
    """The mean of a column with its interval over sentences; None where it has no values."""
    if name not in part.columns:
        return None
    kept = part[part[name].notna()]
    if kept.empty:
        return None
    values = kept[name].to_numpy(float)
    ends = by_sentence(values, kept["sentence"].to_numpy(), share=is_share(name))
    return interval(list(map(float, ends)))


def clas_scores(summary: Mapping[str, Any]) -> Table:
    """CLaS-Bench's own table: over all pairs, and over those of two different languages."""
    table = Table("", [*_CLAS.values(), "pairs", "answers", "unread"])
    groups = {"pooled": "all", "across": "of two languages"}
    for row in summary["scores"]:
        if row["group"] not in groups:
            continue
        values: list[Value] = [
            interval([row[name], row[f"{name}_low"], row[f"{name}_high"]]) for name in _CLAS
        ]
        values += [groups[row["group"]], f"{row['n']:,}", f"{row['unread']:,}"]
        table.rows.append((_label(row["method"]), values))
    return table


def agreement(parts: Mapping[str, pd.DataFrame]) -> Table:
    """How far what judges an output agrees with what else judges it, over all parts together."""
    rows = pd.concat(list(parts.values()), ignore_index=True)
    judges = [name for name in _JUDGED if name in rows.columns and rows[name].notna().any()]
    table = Table("", ["equal", "Cohen's kappa", "Spearman", "n"])
    for a, b in combinations(judges, 2):
        kept = rows[rows[a].notna() & rows[b].notna()]
        pair = (kept[a].to_numpy(float), kept[b].to_numpy(float))
        found = measures(*pair, kept["sentence"].to_numpy(), dict(_OPTIONS))
        values: list[Value] = [interval(list(map(float, each))) for each in found.values()]
        table.rows.append((f"{readable(a)} and {readable(b)}", [*values, f"{len(kept):,}"]))
    return table


def both_ways(parts: Mapping[str, pd.DataFrame]) -> Table:
    """Steering from a to b against steering back, of each pair of languages that was run both
    ways."""
    rows = pd.concat(
        [part.assign(method=label) for label, part in parts.items()], ignore_index=True
    )
    table = Table("", ["joint there", "joint back", "difference", "sentences", "p, by Holm"])
    try:
        found = asymmetry(rows[rows["source"] != rows["target"]])
    except SteerlabError:  # no pair was run both ways
        return table
    for line in found.to_dict("records"):
        a, b = labelled(line["a"]).name, labelled(line["b"]).name
        ends = [
            interval([line[name], line[f"{name}_low"], line[f"{name}_high"]])
            for name in ("forward", "backward", "difference")
        ]
        p = line["p_holm"]
        said = "–" if p != p else probability(float(p)).removeprefix("=").strip()
        name = f"{_label(str(line['method']))}: {a} to {b}"
        table.rows.append((name, [*ends, f"{line['n']}", said]))
    return table


def _label(name: str) -> str:
    """A method's name as pages write it, with its setting where it has one."""
    method, comma, rest = name.partition(",")
    return f"{readable(method)}{comma}{rest}"
