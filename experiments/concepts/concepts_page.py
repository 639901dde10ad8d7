"""Register and gender as concepts across languages: what of them languages share, what steers them,
and whether it transfers.

`python experiments/concepts/concepts_page.py [--model polyglot|gemma-3-270m]` writes the page that cases.py
names for the model, its figures (docs/images/concepts-*) and build/concepts. Rows that were decoded
are kept there: the same command goes on after a stop.
"""

import argparse
import shutil
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import tables
from cases import DEV_LINES, SETUPS, TEST_LINES, Case, Setup, gender_case, register_case
from fits import CONTROLS, METHODS, TOP, fitted, from_language
from running import NEUTRAL, Point, costs, possible, run

import steerlab as sl
from steerlab.analysis.tables import markdown

HEAD = """# Concepts across languages

Register (a person is addressed familiarly or politely) and gender (of the pronoun after an occupation) as directions
of {model}, found in each language and across them, applied by `add`, and counted without a judge by short lists
of words (`sl.concepts`). Layer ({layers}) and strength ({strengths} gaps of the concept) are chosen on dev, for each
method and direction of steering over all languages at once; all numbers below are of test unless they say dev. Every
method and control has the true gaps, so that equal strength is an equal step. Brackets are 95 % intervals over
sentences. Written by `python experiments/concepts/concepts_page.py{options}`.

`reached`: the output is in its language, and of the counted words more are of the goal than of the other side; an output
that addresses nobody, or names nobody, counts as missed. *Bits per byte elsewhere*: what {neutral} sentences of the
parallel corpus in the language cost under the edit, over what they cost without it, teacher-forced. *Repetition*: the
share of repeated character 4-grams.

"""
REGISTER = """## Register

English sentences with `you`, which says nothing of register, are said in {langs}: {how} Informal to formal and back,
from {estimate} pairs of our own (`steerlab/data/register`) to estimate,
{dev} to choose and {test} to report.

"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=SETUPS, default="polyglot")
    given = parser.parse_args()
    setup, start = SETUPS[given.model], time.monotonic()
    model = sl.load(setup.model)
    cases = [register_case(setup, model), gender_case(setup, model)]
    parts = []
    for case, other in (cases, cases[::-1]):
        parts.append(section(setup, case, other))
        print(f"{case.name} after {time.monotonic() - start:.0f} s", flush=True)
    head = HEAD.format(
        model="the packaged model" if setup.by_vector else setup.model,
        layers=" and ".join(map(str, cases[0].layers)),
        strengths=", ".join(f"{strength:g}" for strength in setup.strengths),
        neutral=NEUTRAL,
        options="" if setup.by_vector else f" --model {setup.model}",
    )
    setup.page.write_text(head + "\n".join(parts), "utf-8")
    print(setup.page)
    return 0


def section(setup: Setup, case: Case, other: Case) -> str:
    """All that the page has of one case."""
    fits, shared = fitted(case, other)
    folder = setup.out / "rows"
    plain = [
        Point("unsteered", lang, goal, -1, 0.0) for lang in case.langs for goal in case.concepts
    ]
    hinted = [Point("prompt", p.lang, p.goal, -1, 0.0) for p in plain] if case.hints else []
    grid = [
        point
        for method, lang, goal, layer, strength in product(
            fits, case.langs, case.concepts, case.layers, setup.strengths
        )
        if possible(fits, point := Point(method, lang, goal, layer, strength))
    ]
    dev = run(case, fits, [*grid, *plain], "dev", DEV_LINES, folder)
    choice = tables.chosen(dev[dev["strength"] > 0])
    best = [
        Point(method, lang, goal, *setting)
        for (method, goal), setting in choice.items()
        for lang in case.langs
    ]
    limit = setup.limit or TEST_LINES
    test = run(case, fits, [*best, *plain, *hinted], "test", limit, folder)
    cost = costs(case, fits, best, "test", folder)
    dose_cost = costs(case, fits, grid, "dev", folder)
    for name, table in {"dev": dev, "test": test, "cost": cost}.items():
        table.to_csv(setup.out / f"{case.name}-{name}.csv", index=False)
    parts = [introduction(setup, case, test), tables.headline(case, test, cost, choice)]
    shown = ("own language", "other languages", "shuffled", "unsteered")
    parts += ["By language:\n", tables.by_language(case, test, shown)]
    parts.append(dose(setup, case, tables.dose_table(dev, dose_cost)))
    parts.append(transfer(setup, case, fits, test, choice, folder, limit))
    parts.append(shares(case))
    if shared is not None:
        parts.append(features(case, shared))
    parts.append(probe(case))
    failed = tables.failures(case, test, cost)
    said = "\n".join(f"- {line}" for line in failed) or "Everything passed the criteria below."
    parts.append(
        f"### What did not work: {case.name}\n\nNamed are methods whose `reached` is not beyond that of the strongest "
        "control (the interval of the difference holds 0), that lose the language by more than .10, and whose cost "
        f"is more than a tenth.\n\n{said}\n"
    )
    return "\n".join(parts)


def introduction(setup: Setup, case: Case, test: pd.DataFrame) -> str:
    sizes = {name: len(case.corpus.split(name)) for name in ("estimate", "dev", "test")}
    dev = len(case.corpus.split("dev").take(DEV_LINES))
    lines = test["sentence"].nunique()
    if case.name == "register":
        how = (
            f"the language is reached by its own direction (DiffMean of the parallel corpus, layer {case.layers[0]}, one "
            "gap), which is on in every row, also the unsteered ones."
            if setup.by_vector
            else f"by the prompt form `{setup.form}`."
        )
        return REGISTER.format(
            langs=", ".join(case.langs), how=how, estimate=sizes["estimate"], dev=dev, test=lines
        )
    return (
        "## Gender\n\nThe model goes on with sentences such as *The nurse said that*, in English and Swedish, for "
        f"{case.new_tokens} tokens. Twelve templates; the occupations of estimate ({sizes['estimate']} sentences of each "
        f"side), dev ({dev} lines) and test ({lines}) are different ones. Unsteered, the pronouns for a woman are "
        f"{women(test)} of those counted.\n"
    )


def women(test: pd.DataFrame) -> str:
    """The share of she unsteered, by language."""
    plain = test[(test["method"] == "unsteered") & (test["goal"] == "she")]
    said = []
    for lang, rows in plain.groupby("lang", sort=False):
        share, count = tables.goal_share(rows)
        said.append(f"{share:.2f} of {count} ({lang})" if count else f"none of 0 ({lang})")
    return ", ".join(said)


def dose(setup: Setup, case: Case, table: pd.DataFrame) -> str:
    """Effect and cost along the strength, on dev, with its figure and CSV."""
    parts = [f"### Effect and cost by dose: {case.name}\n"]
    for goal in case.concepts[::-1]:
        own = table[table["goal"] == goal]
        stem = f"concepts-{case.name}-{goal}"
        figure = sl.figures.dose_curves(
            own,
            x="strength",
            by="method",
            x_label="strength (gaps of the concept)",
            value_label=f"reached, towards {goal}",
            note=f"n = {own['n'].min()} outputs a point, on dev, each method at its better layer.",
        )
        name = picture(setup, figure, stem, own)
        parts.append(f"![Share that reached {goal}, by strength](images/{name})\n")
    wide = table.assign(
        cell=[
            f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]; {row.in_language:.2f}; {row.cost:.2f}"
            for row in table.itertuples()
        ]
    ).pivot(index=["goal", "method", "layer"], columns="strength", values="cell")
    order = [*METHODS, *CONTROLS]
    wide = wide.reset_index().sort_values(
        ["goal", "method"],
        key=lambda column: column.map({m: i for i, m in enumerate(order)}).fillna(0),
    )
    wide["method"] = wide["method"].map(tables.NAMES)
    wide.columns = [
        f"{name:g} gaps" if isinstance(name, float) else str(name) for name in wide.columns
    ]
    parts.append(
        f"On dev (n = {table['n'].min()} a cell): reached; in the language; bits per byte elsewhere.\n"
    )
    parts.append(markdown(wide) + "\n")
    return "\n".join(parts)


def transfer(
    setup: Setup,
    case: Case,
    fits: dict,
    test: pd.DataFrame,
    choice: tables.Choice,
    folder: Path,
    limit: int | None,
) -> str:
    """Fitted in one language, steering another, at the setting that dev chose for a language's own
    direction."""
    goal = case.concepts[1]
    layer, strength = choice["own language", goal]
    points, more = [], {}
    for source, lang in product(case.langs, case.langs):
        name = f"from {source}"
        more.setdefault(name, {})[lang] = [from_language(case, source, lang)]
        points.append(Point(name, lang, goal, layer, strength))
    rows = run(case, more, points, "test", limit, folder)
    rows["fitted"] = rows["method"].str.removeprefix("from ")
    table = tables.matrix(rows, test[test["method"] == "unsteered"])
    table.to_csv(setup.out / f"{case.name}-transfer.csv", index=False)
    drawn = sl.figures.heatmap(
        table.rename(columns={"rise": "rise of reached"}),
        x="steered",
        y="fitted",
        value="rise of reached",
    )
    name = picture(setup, drawn, f"concepts-{case.name}-transfer", table)
    own = table[table["fitted"] == table["steered"]]["rise"].mean()
    away = table[table["fitted"] != table["steered"]]["rise"].mean()
    return (
        f"### Transfer: {case.name}\n\nThe rise of `reached` over unsteered, towards {goal}, by the language that the direction "
        f"was fitted in (down) and the one that is steered (across), at layer {layer} and {strength:g} gaps; n = "
        f"{table['n'].min()} sentences a cell. The mean of the diagonal is {own:.2f}, that of the rest {away:.2f}.\n\n"
        f"![Transfer](images/{name})\n\n{tables.matrix_page(table)}"
    )


def shares(case: Case) -> str:
    """The shared share by layer, beside that of shuffled labels."""
    dealt = [one.shares() for one in case.dealt]
    return (
        f"### What languages share: {case.name}\n\nShares of the variance between the means of the "
        f"{len(case.concepts)} × {len(case.langs)} cells, from the split *estimate*. `shared` is concept / (concept + "
        "interaction); where there is nothing, it tends to one over the number of languages.\n\n"
        + tables.share_of_shuffled(case, dealt, case.everywhere.shares())
    )


def features(case: Case, shared: sl.concepts.SharedFeatures) -> str:
    frame = shared.table.assign(
        expected=shared.table["expected"].map("{:.2f}".format),
        p=shared.table["p"].map("{:.3f}".format),
        whole_sae=shared.table["whole_sae"].map("{:.3g}".format),
        pools=[" ".join(map(str, sizes)) for sizes in shared.table["pools"]],
        tops=[" ".join(map(str, sizes)) for sizes in shared.table["tops"]],
    )
    frame = frame.rename(columns={"whole_sae": "expected, from the whole SAE"})
    return (
        f"### Features that all languages share: {case.name}\n\nThe {TOP} features of *{shared.concept}* in each language by how "
        f"much oftener they are on than in *{shared.against}*, of those on in 5 % of its texts and in ten, intersected over "
        f"{len(case.langs)} languages. `expected` and `p`: if each language drew as many from its own pool.\n\n"
        + markdown(frame)
        + "\n"
    )


def probe(case: Case) -> str:
    """Held-out accuracy of a linear probe on means over a text's tokens."""
    part = case.corpus.split("estimate")
    means = sl.concepts.text_means(case.model, part, layers=case.layers)
    vectors = {
        concept: np.concatenate([means[f"{concept}@{lang}"].numpy() for lang in case.langs])
        for concept in case.concepts
    }
    count = len(part)
    groups = {"language": np.repeat(case.langs, count).tolist()}
    if case.name == "gender":
        groups |= {
            name: column * len(case.langs)
            for name, column in sl.concepts.occupation_groups(part.numbers).items()
        }
    else:
        groups["pair"] = [f"{number}" for number in range(count)] * len(case.langs)
    found = {}
    for name in (None, *groups):
        folds = min(5, len(set(groups[name]))) if name else 5
        found["single texts, at random" if name is None else name] = sl.concepts.held_out_probe(
            vectors, groups, by=name, layers=case.layers, folds=folds, shuffles=1
        )
    return (
        f"### What a probe knows: {case.name}\n\nThe accuracy of a logistic probe for {' or '.join(case.concepts)} on texts whose "
        "group it was not fitted on; chance is .50.\n\n" + tables.probes(found)
    )


def picture(setup: Setup, figure: object, stem: str, data: pd.DataFrame) -> str:
    """Draw a figure beside the page, with its numbers; the name of the picture."""
    suffix = "" if setup.by_vector else f"-{setup.model}"
    images = setup.page.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    [*_, table] = sl.figures.write(figure, setup.out / f"{stem}{suffix}", data=data, force=True)
    shutil.copyfile(table, images / f"{stem}{suffix}.csv")
    name = f"{stem}{suffix}.svg"
    sl.save(figure, images / name, width="page", force=True)
    return name


if __name__ == "__main__":
    sys.exit(main())
