"""From rows to the tables, figures and sentences of the page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from fits import CONTROLS, METHODS

from steerlab.analysis.intervals import by_sentence, paired_difference
from steerlab.analysis.tables import markdown, spelled

Choice = dict[tuple[str, str], tuple[int, float]]  # (method, goal): layer and strength
NAMES = {
    "own language": "DiffMean, own language",
    "all languages": "DiffMean, crossed over all languages",
    "other languages": "DiffMean, crossed over the *other* languages (zero-shot)",
    "lda": "LDA, own language",
    "probe": "Probe, own language",
    "shared features": "SAE features that all languages share",
    "random isotropic": "*random direction, isotropic*",
    "shuffled": "*shuffled labels*",
    "wrong": "*the other case's concept*",
    "prompt": "*a word before the prompt*",
    "unsteered": "*unsteered*",
}


def chosen(dev: pd.DataFrame) -> Choice:
    """The setting with the most `reached` on dev, for each method and goal over all languages; of
    equals the least strength."""
    choice: Choice = {}
    for (method, goal), part in dev.groupby(["method", "goal"], sort=False):
        means = part.groupby(["layer", "strength"])["reached"].mean().round(12)
        best = means[means == means.max()].index
        choice[str(method), str(goal)] = min(best, key=lambda setting: (setting[1], setting[0]))
    return choice


def interval(rows: pd.DataFrame, column: str) -> tuple[float, float, float]:
    """The mean of a share with its interval over sentences, within languages that share none."""
    values = rows[column].to_numpy(float)
    kept = np.isfinite(values)
    if not kept.any():
        return float("nan"), float("nan"), float("nan")
    return by_sentence(
        values[kept],
        rows["sentence"].to_numpy()[kept],
        share=column != "cost",
        strata=rows["lang"].to_numpy()[kept],
    )


def goal_share(rows: pd.DataFrame) -> tuple[float, float]:
    """(the share of the goal's words among those of both sorts, how many there are)."""
    goal, other = rows["goal_words"].sum(), rows["other_words"].sum()
    return (float(goal / (goal + other)) if goal + other else float("nan")), int(goal + other)


def strongest_control(test: pd.DataFrame, goal: str) -> str:
    """Of the controls that are no yardstick, the one with the most `reached` on test."""
    means = {
        name: test[(test["method"] == name) & (test["goal"] == goal)]["reached"].mean()
        for name in CONTROLS
    }
    return max(means, key=lambda name: means[name])


def beyond(test: pd.DataFrame, method: str, control: str, goal: str) -> tuple[float, float, float]:
    """`reached` of a method minus a control's on the same sentences; a sentence stands in every
    language, and is one cluster."""
    a = test[(test["method"] == method) & (test["goal"] == goal)]
    b = test[(test["method"] == control) & (test["goal"] == goal)]
    return paired_difference(
        a["reached"].to_numpy(float),
        a["sentence"].to_numpy(),
        b["reached"].to_numpy(float),
        b["sentence"].to_numpy(),
        share=True,
    )


def headline(case: Any, test: pd.DataFrame, cost: pd.DataFrame, choice: Choice) -> str:
    """A row for each method and goal at the setting chosen on dev."""
    lines = []
    for goal in case.concepts[::-1]:
        control = strongest_control(test, goal)
        for method in [*METHODS, *CONTROLS, "prompt", "unsteered"]:
            rows = test[(test["method"] == method) & (test["goal"] == goal)]
            if rows.empty:
                continue
            layer, strength = choice.get((method, goal), (-1, 0.0))
            own_cost = cost[(cost["method"] == method) & (cost["goal"] == goal)]
            share, count = goal_share(rows)
            lines.append(
                {
                    "towards": goal,
                    "method": NAMES[method],
                    "layer": layer if strength else "–",
                    "gaps": f"{strength:g}" if strength else "–",
                    "reached": spelled(interval(rows, "reached")),
                    f"beyond {NAMES[control].strip('*')}": spelled(
                        beyond(test, method, control, goal)
                    )
                    if method in METHODS
                    else "",
                    "words of the goal": f"{share:.2f} of {count}" if count else "none",
                    "in the language": spelled(interval(rows, "in_language")),
                    "bits per byte elsewhere": spelled(interval(own_cost, "cost"))
                    if len(own_cost)
                    else "",
                    "repetition": f"{rows['repetition'].mean():.2f}",
                    "n": len(rows),
                }
            )
    frame = pd.DataFrame(lines)
    # The name of the strongest control depends on the goal: one column for both.
    named = [column for column in frame.columns if column.startswith("beyond")]
    merged = frame[named].replace("", np.nan).bfill(axis=1).iloc[:, 0]
    frame.insert(5, "beyond the strongest control", merged.fillna(""))
    controls = "; ".join(
        f"towards {goal}: {NAMES[strongest_control(test, goal)].strip('*')}"
        for goal in case.concepts[::-1]
    )
    return markdown(frame.drop(columns=named)) + f"\n\nThe strongest control {controls}.\n"


def by_language(case: Any, test: pd.DataFrame, methods: Sequence[str]) -> str:
    """`reached` in each language, for some methods."""
    lines = []
    for goal in case.concepts[::-1]:
        for method in methods:
            rows = test[(test["method"] == method) & (test["goal"] == goal)]
            if rows.empty:
                continue
            line: dict[str, Any] = {"towards": goal, "method": NAMES[method]}
            for lang in case.langs:
                part = rows[rows["lang"] == lang]
                line[lang] = spelled(interval(part, "reached"))
            lines.append(line | {"n of each": len(rows) // len(case.langs)})
    return markdown(pd.DataFrame(lines)) + "\n"


def dose_table(dev: pd.DataFrame, cost: pd.DataFrame) -> pd.DataFrame:
    """`reached` and the cost along the strength, of each method at its better layer on dev."""
    points = []
    for (method, goal), part in dev[dev["strength"] > 0].groupby(["method", "goal"], sort=False):
        layer = part.groupby("layer")["reached"].mean().idxmax()
        for strength, rows in part[part["layer"] == layer].groupby("strength"):
            there = cost[
                (cost["method"] == method)
                & (cost["goal"] == goal)
                & (cost["layer"] == layer)
                & (cost["strength"] == strength)
            ]
            value, low, high = interval(rows, "reached")
            points.append(
                {
                    "method": method,
                    "goal": goal,
                    "layer": layer,
                    "strength": strength,
                    "value": value,
                    "low": low,
                    "high": high,
                    "n": len(rows),
                    "in_language": rows["in_language"].mean(),
                    "cost": there["cost"].mean() if len(there) else np.nan,
                    "dose": rows["dose"].mean(),
                }
            )
    return pd.DataFrame(points)


def matrix(rows: pd.DataFrame, plain: pd.DataFrame) -> pd.DataFrame:
    """The rise of `reached` over the unsteered rows, by the language that was fitted (down) and the
    one that is steered (across), with its interval."""
    lines = []
    for (source, lang), part in rows.groupby(["fitted", "lang"], sort=False):
        there = plain[(plain["lang"] == lang) & (plain["goal"] == part["goal"].iloc[0])]
        there = there[there["sentence"].isin(part["sentence"])]
        rise, low, high = paired_difference(
            part["reached"].to_numpy(float),
            part["sentence"].to_numpy(),
            there["reached"].to_numpy(float),
            there["sentence"].to_numpy(),
            share=True,
        )
        share, count = goal_share(part)
        lines.append(
            {
                "fitted": source,
                "steered": lang,
                "rise": rise,
                "low": low,
                "high": high,
                "n": len(part),
                "share": share,
                "words": count,
            }
        )
    return pd.DataFrame(lines)


def matrix_page(table: pd.DataFrame) -> str:
    """The matrix as Markdown."""
    cells = table.assign(
        cell=[spelled(values.tolist()) for values in table[["rise", "low", "high"]].to_numpy()]
    )
    order = list(dict.fromkeys(table["steered"]))
    wide = cells.pivot(index="fitted", columns="steered", values="cell").loc[order, order]
    return markdown(wide.reset_index().rename(columns={"fitted": "fitted \\ steered"})) + "\n"


def failures(case: Any, test: pd.DataFrame, cost: pd.DataFrame) -> list[str]:
    """What did not work, by criteria that were written before the run."""
    said = []
    for goal in case.concepts[::-1]:
        control = strongest_control(test, goal)
        plain = test[(test["method"] == "unsteered") & (test["goal"] == goal)]["in_language"].mean()
        for method in METHODS:
            rows = test[(test["method"] == method) & (test["goal"] == goal)]
            name = f"{NAMES[method].replace('*', '')}, towards {goal}"
            if rows.empty:
                said.append(f"{name}: no direction at all; no feature passed the filter.")
                continue
            value, low, _ = beyond(test, method, control, goal)
            if low <= 0:
                said.append(
                    f"{name}: not beyond {NAMES[control].strip('*')} ({value:+.2f}, the interval "
                    "holds 0)."
                )
            kept = rows["in_language"].mean()
            if kept < plain - 0.1:
                said.append(
                    f"{name}: the language is lost, {kept:.2f} in it and {plain:.2f} without."
                )
            paid = cost[(cost["method"] == method) & (cost["goal"] == goal)]["cost"].mean()
            if paid > 1.1:
                said.append(f"{name}: other text takes {paid:.2f} times the bits per byte.")
    return said


def probes(tables: Mapping[str, pd.DataFrame]) -> str:
    """Accuracies of probes by what was held out, at each layer."""
    lines = []
    for name, table in tables.items():
        line: dict[str, Any] = {"held out": name}
        for row in table.to_dict("records"):
            line[f"layer {row['layer']}"] = spelled(
                [row["accuracy"], row["accuracy_low"], row["accuracy_high"]]
            )
            line["shuffled labels"] = f"{row['shuffled']:.2f}"
            line["texts"] = row["n"]
            line["groups"] = row["groups"]
        lines.append(line)
    return markdown(pd.DataFrame(lines)) + "\n"
