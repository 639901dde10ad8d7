"""The page, made of the tables that the steps kept; without the model."""

from pathlib import Path
from typing import Any

import concept_tables as tables
import pandas as pd
from cases import Setup
from fits import CONTROLS, METHODS, TOP
from running import NEUTRAL

import steerlab as sl
from steerlab.analysis.tables import markdown

CONCEPTS = {"register": ("informal", "formal"), "gender": ("she", "he")}
LANGS = {"register": ("de", "es", "fr", "it", "nl", "ru"), "gender": ("en", "sv")}
HEAD = """# Concepts across languages

Register (a person is addressed familiarly or politely) and gender (of the pronoun after an occupation) as directions
of {model}, found in each language and across them, applied by `add`, and counted without a judge by short lists
of words (`sl.concepts`). Layer and strength ({strengths} gaps of the concept) are chosen on dev, for each
method and direction of steering over all languages at once; all numbers below are of test unless they say dev. Every
method and control has the true gaps, so that equal strength is an equal step. Brackets are 95 % intervals over
sentences. Written by `python experiments/concepts/concepts_page.py{options}`.

`reached`: the output is in its language, and of the counted words more are of the goal than of the other side; an output
that addresses nobody, or names nobody, counts as missed. *Bits per byte elsewhere*: what {neutral} sentences of the
parallel corpus in the language cost under the edit, over what they cost without it, teacher-forced. *Repetition*: the
share of repeated character 4-grams.

"""
INTRODUCTIONS = {
    "register": """## Register

English sentences with `you`, which says nothing of register, are said in {langs}: {how} From our own pairs
(`steerlab/data/register`): 108 to estimate, {dev} lines to choose, {test} to report.
""",
    "gender": """## Gender

The model goes on with sentences such as *The nurse said that*, in English and Swedish, for six tokens
(`steerlab/data/gender`: twelve templates; the occupations of estimate, dev and test are different ones). {dev} lines to
choose, {test} to report. Unsteered, the pronouns for a woman are {women} of those counted.
""",
}


def write(setup: Setup) -> None:
    """The page of all that is there."""
    parts = [
        HEAD.format(
            model="the packaged model" if setup.by_vector else setup.model,
            strengths=", ".join(f"{strength:g}" for strength in setup.strengths),
            neutral=NEUTRAL,
            options="" if setup.by_vector else f" --model {setup.model}",
        )
    ]
    for name in CONCEPTS:
        section = Section(setup, name)
        parts += [make(section) for make in SECTIONS if section.has(make.__name__)]
        if not section.has("steering"):
            parts.append(
                f"## {name.capitalize()}\n\nNot measured yet: the command above goes on.\n"
            )
    setup.page.write_text("\n".join(parts), "utf-8")


# What `make figures` draws the documentation's pictures from.
RECORDED = Path(__file__).resolve().parents[1] / "figures" / "recorded"


class Section:
    """What one case kept."""

    def __init__(self, setup: Setup, name: str) -> None:
        self.setup, self.name = setup, name
        self.concepts, self.langs = CONCEPTS[name], LANGS[name]

    def has(self, section: str) -> bool:
        needed = {
            "steering": ("dev", "test", "cost"),
            "doses": ("dose",),
            "failed": ("test", "cost"),
        }
        files = needed.get(section, (section,))
        return all((self.setup.out / f"{self.name}-{file}.csv").exists() for file in files)

    def kept(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.setup.out / f"{self.name}-{name}.csv")

    def picture(self, figure: object, what: str, data: pd.DataFrame) -> str:
        """Draw a figure beside the page, with its numbers; the name of the picture."""
        suffix = "" if self.setup.by_vector else f"-{self.setup.model}"
        stem = f"concepts-{self.name}-{what}{suffix}"
        images = self.setup.page.parent / "images"
        images.mkdir(parents=True, exist_ok=True)
        sl.figures.write(figure, self.setup.out / stem, data=data, force=True)
        data.to_csv(RECORDED / f"{stem}.csv", index=False, float_format="%.6g")
        sl.save(figure, images / f"{stem}.svg", width="page", force=True)
        return f"{stem}.svg"


def steering(of: Section) -> str:
    """The headline, at the settings that dev chose, and the languages apart."""
    dev, test, cost = (of.kept(name) for name in ("dev", "test", "cost"))
    choice = tables.chosen(dev[dev["strength"] > 0])
    layer = min(layer for layer, _ in choice.values())
    how = (
        f"the language is reached by its own direction (DiffMean of the parallel corpus, layer {layer}, "
        "one gap), which is on in every row, also the unsteered ones."
        if of.setup.by_vector
        else f"by the prompt form `{of.setup.form}`."
    )
    begin = INTRODUCTIONS[of.name].format(
        langs=", ".join(of.langs),
        how=how,
        dev=of.setup.dev,
        test=test["sentence"].nunique(),
        women=women(test) if of.name == "gender" else "",
    )
    shown = ("own language", "other languages", "shuffled", "unsteered")
    return "\n".join(
        [
            begin,
            tables.headline(of, test, cost, choice),
            "By language:\n",
            tables.by_language(of, test, shown),
        ]
    )


def women(test: pd.DataFrame) -> str:
    """The share of she unsteered, by language."""
    plain = test[(test["method"] == "unsteered") & (test["goal"] == "she")]
    said = []
    for lang, rows in plain.groupby("lang", sort=False):
        share, count = tables.goal_share(rows)
        said.append(f"{share:.2f} of {count} ({lang})" if count else f"none of 0 ({lang})")
    return ", ".join(said)


def doses(of: Section) -> str:
    """Effect and cost along the strength, on dev."""
    table = of.kept("dose")
    parts = [f"### Effect and cost by dose: {of.name}\n"]
    for goal in of.concepts[::-1]:
        own = table[table["goal"] == goal]
        figure = sl.figures.dose_curves(
            own,
            x="strength",
            by="method",
            x_label="strength (gaps of the concept)",
            value_label=f"reached, towards {goal}",
            note=f"n = {own['n'].min()} outputs a point, on dev, each method at its better layer.",
        )
        name = of.picture(figure, goal, own)
        parts.append(f"![Share that reached {goal}, by strength](images/{name})\n")
    rows = []
    for (aim, method, layer), part in table.groupby(["goal", "method", "layer"], sort=False):
        line: dict[str, Any] = {
            "towards": aim,
            "method": tables.NAMES[str(method)],
            "layer": layer,
        }
        for point in part.to_dict("records"):
            line[f"{point['strength']:g} gaps"] = (
                f"{point['value']:.2f} [{point['low']:.2f}, {point['high']:.2f}]; "
                f"{point['in_language']:.2f}"
                + (f"; {point['cost']:.2f}" if point["cost"] == point["cost"] else "")
            )
        rows.append(([*METHODS, *CONTROLS].index(str(method)), goal, line))
    lines = [line for _, _, line in sorted(rows, key=lambda row: (row[1], row[0]))]
    parts.append(
        f"On dev (n = {table['n'].min()} a cell): reached; in the language"
        + ("; bits per byte elsewhere.\n" if table["cost"].notna().any() else ".\n")
    )
    parts.append(markdown(pd.DataFrame(lines)) + "\n")
    return "\n".join(parts)


def transfer(of: Section) -> str:
    """From the language that was fitted to the one that is steered."""
    table = of.kept("transfer")
    goal = of.concepts[1]
    figure = sl.figures.heatmap(
        table.rename(columns={"rise": "rise of reached"}),
        x="steered",
        y="fitted",
        value="rise of reached",
    )
    name = of.picture(figure, "transfer", table)
    own = table[table["fitted"] == table["steered"]]["rise"].mean()
    away = table[table["fitted"] != table["steered"]]["rise"].mean()
    return (
        f"### Transfer: {of.name}\n\nThe rise of `reached` over unsteered, towards {goal}, by the language that the direction was "
        "fitted in (down) and the one that is steered (across), at the layer and strength that dev chose for a language's own; "
        f"n = {table['n'].min()} sentences a cell. The mean of the diagonal is {own:.2f}, that of the rest {away:.2f}.\n\n"
        f"![Transfer](images/{name})\n\n{tables.matrix_page(table)}"
    )


def shares(of: Section) -> str:
    """What languages share, by layer."""
    table = of.kept("shares")
    frame = table[["layer"]].assign(
        **{
            name: table[name].map("{:.4f}".format)
            for name in ("concept", "language", "interaction")
        },
        shared=table["shared"].map("{:.2f}".format),
    )
    frame["shared, shuffled labels"] = table["shuffled"].map("{:.2f}".format)
    return (
        f"### What languages share: {of.name}\n\nShares of the variance between the means of the {len(of.concepts)} × "
        f"{len(of.langs)} cells, of the split *estimate*. `shared` is concept / (concept + interaction); where there is nothing "
        f"in common, it tends to one over the number of languages, {1 / len(of.langs):.2f}.\n\n{markdown(frame)}\n"
    )


def features(of: Section) -> str:
    """Features that all languages share, beside chance."""
    table = of.kept("features")
    frame = table.assign(
        expected=table["expected"].map("{:.2f}".format),
        p=table["p"].map("{:.3f}".format),
        whole_sae=table["whole_sae"].map("{:.3g}".format),
    ).rename(columns={"whole_sae": "expected, from the whole SAE"})
    a, b = of.concepts
    return (
        f"### Features that all languages share: {of.name}\n\nThe {TOP} features of *{b}* in each language by how much oftener they "
        f"are on than in *{a}*, of those on in 5 % of its texts and in ten, intersected over {len(of.langs)} languages. "
        f"`expected` and `p`: if each language drew as many from its own pool.\n\n{markdown(frame)}\n"
    )


def probe(of: Section) -> str:
    """What a probe knows."""
    table = of.kept("probe")
    by_held = {str(name): part for name, part in table.groupby("held", sort=False)}
    return (
        f"### What a probe knows: {of.name}\n\nThe accuracy of a logistic probe for {' or '.join(of.concepts)}, on means over the "
        "tokens of texts whose group it was not fitted on; chance is .50.\n\n"
        + tables.probes(by_held)
    )


def failed(of: Section) -> str:
    """What did not work."""
    said = tables.failures(of, of.kept("test"), of.kept("cost"))
    listed = "\n".join(f"- {line}" for line in said) or "Nothing is named by these criteria."
    return (
        f"### What did not work: {of.name}\n\nNamed are methods whose `reached` is not beyond that of the strongest control (the "
        "interval of the difference holds 0), that lose the language by more than .10, and whose cost is more than a tenth.\n\n"
        f"{listed}\n"
    )


SECTIONS = (steering, doses, transfer, shares, features, probe, failed)
