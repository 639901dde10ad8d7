"""How languages are routed through the small mixture of experts: writes docs/experts.md.

    python experiments/experts/routing_report.py

Everything is read on the `test` sentences, experts are chosen on `estimate`. Beside the trained
model stands the one that it began as, whose routers are random numbers.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
from upcycle import EXPERTS, PER_TOKEN, WORK

import steerlab as sl
from steerlab.analysis.tables import markdown
from steerlab.core.errors import SteerlabError
from steerlab.edits import steer

PAGE = Path(__file__).parents[2] / "docs" / "experts.md"
SOURCE = "en"
THRESHOLD = 0.15  # of four experts, of which a token meets two, each is met by half of the tokens
STRENGTH = 0.5
LINES = 24  # test sentences of each language whose cross-entropy is taken

HEAD = """# Experts

<!-- experiments/experts/routing_report.py writes this page -->

Polyglot as a mixture of {experts} experts, of which a token meets {per_token}: its MLPs copied with a little noise, routers
from random numbers, trained on for {steps:,} steps of {rows} sentences in {seconds} seconds ({device}) with a load-balancing loss ({dev}). All figures are of the packaged
sentences' `test` split, {texts} parallel texts in {langs} languages; formulas in [Methods](methods.md#experts). A model so
small, trained on so little, says that the machinery works, and nothing of large mixtures.
"""


def by_layer(found: Any) -> pd.DataFrame:
    """The divergences, a line for each layer: means over languages."""
    table = found.table
    made = table.groupby("layer")[["divergence", "shuffled", "of_means", "null"]].mean()
    made["languages with p_holm < .05"] = table[table["p_holm"] < 0.05].groupby("layer").size()
    made = made.fillna(0).reset_index()
    return made.map(lambda each: f"{each:.4f}" if isinstance(each, float) else each)


def statements(routing: Any, found: Any) -> pd.DataFrame:
    """What the two sentences come to."""
    said = (sl.units.u_shape(found), sl.units.spread_out(routing))
    return pd.DataFrame(
        {
            "sentence": [each.says for each in said],
            "statistic": [f"{each.statistic:+.4f}" for each in said],
            "p": [f"{each.p:.4f}" for each in said],
            "verdict": [each.verdict for each in said],
        }
    )


def pushed(model: Any) -> tuple[pd.DataFrame, list[str]]:
    """Each language's cross-entropy with its own experts pushed, and with its controls'; and which
    controls there are none of, and why."""
    corpus = sl.corpus()
    read = sl.units.collect_routing(model, corpus.split("estimate"))
    chosen = sl.units.experts(read, source=SOURCE, threshold=THRESHOLD)
    kinds, missing = {"own": chosen}, []
    for name, make in (
        ("random", lambda: sl.units.random_units(chosen, read.firing)),
        ("multilingual", lambda: sl.units.multilingual(chosen)),
    ):
        try:
            kinds[name] = make()
        except SteerlabError as error:  # too few experts are left over, or shared
            missing.append(f"No control of {name} experts: {error}.")
    test, rows = corpus.split("test").take(LINES), []
    for lang in (lang for lang in chosen.langs if chosen.where(lang)):
        lines = list(test[lang])
        plain = float(sl.cross_entropy(model, lines).mean())
        count = int(chosen.chosen[chosen.langs.index(lang)].sum())
        row: dict[str, Any] = {"language": lang, "experts": count, "unsteered": plain}
        for name, each in kinds.items():
            directions = sl.units.masked(each, read.firing)
            try:
                edit = steer("route", directions, STRENGTH, source=SOURCE, target=lang)
            except SteerlabError:
                continue
            row[name] = float(sl.cross_entropy(model, lines, edit).mean()) - plain
        rows.append(row)
    return pd.DataFrame(rows).round(4), missing


def section(folder: Path, title: str) -> tuple[str, Any, pd.DataFrame, pd.DataFrame]:
    """The tables of one model, its routing, and what is said of it: divergences and families."""
    model = sl.load(folder)
    routing = sl.units.collect_routing(model, sl.corpus().split("test"))
    found = sl.units.routing_divergence(routing, source=SOURCE)
    families = sl.units.routing_by_family(routing).round(4)
    table, missing = pushed(model)
    parts = [
        f"## {title}\n",
        f"Divergence from {SOURCE}, the mean over languages:\n",
        markdown(by_layer(found)),
        "\nFamilies (`p` by exchanging the languages' families):\n",
        markdown(families),
        "\nTwo sentences:\n",
        markdown(statements(routing, found)),
        f"\nNats a token that pushing experts by {STRENGTH:g} standard deviations adds:\n",
        markdown(table),
        *(f"\n{each}" for each in missing),
        "",
    ]
    return "\n".join(parts), routing, found.table, families


def read_of(before: pd.DataFrame, after: pd.DataFrame, families: pd.DataFrame) -> str:
    """What training changed, in words."""
    mean = lambda table, column: f"{table[column].mean():.4f}"  # noqa: E731
    closer = families[(families["p"] < 0.05) & (families["difference"] > 0)]["layer"].tolist()
    return (
        f"Over all layers and languages the divergence from {SOURCE} is {mean(before, 'divergence')} before training and "
        f"{mean(after, 'divergence')} after it; with other texts' translations it is {mean(after, 'shuffled')}, so that it "
        "tells languages and not texts apart. Languages of one family are routed more alike than others, with p < .05 of one "
        f"layer alone, in {len(closer)} of {len(families)} layers ({', '.join(map(str, closer)) or 'none'}).\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    curve = [json.loads(line) for line in (given.work / "curve.jsonl").read_text().splitlines()]
    trained, routing, after, families = section(given.work / "model", "After training")
    start, _, before, _ = section(given.work / "start", "Before: routers of random numbers")
    head = HEAD.format(
        experts=EXPERTS,
        per_token=PER_TOKEN,
        **{name: curve[-1][name] for name in ("rows", "seconds", "device")},
        steps=curve[-1]["step"],
        dev=f"{curve[0]['dev']:.3f} nats a token on `dev` at the first checkpoint, "
        f"{curve[-1]['dev']:.3f} at the last",
        texts=len(routing.weights[SOURCE]),
        langs=len(routing.langs),
    )
    given.page.write_text(
        "\n".join([head, read_of(before, after, families), trained, start]), "utf-8"
    )


if __name__ == "__main__":
    main()
