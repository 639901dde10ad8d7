"""Does it think in English? Language mass through the logit lens, by layer: text of each language
read as it is, and English text under an edit towards another language, beside the model as it is.

    python experiments/lens.py                     # polyglot
    python experiments/lens.py --model gemma-3-270m --layer 12
"""

import argparse
from pathlib import Path

import pandas as pd

import steerlab as sl
from steerlab.analysis.tables import markdown, spelled

LINES = 24  # test sentences of each language
ESTIMATE = 96  # sentences that the directions are found from
TARGET = "es"
STRENGTH = 1.0
PIVOT = "en"  # the language that is asked about
PLACES = (0.25, 0.5, 0.75, 1.0)  # shares of the depth that the table has


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="polyglot")
    parser.add_argument("--layer", type=int, help="of the edit; by default at 0.6 of the depth")
    parser.add_argument("--langs", default="en,de,es,fr,ru,ja", help="whose text is read")
    parser.add_argument("--lines", type=int, default=LINES)
    parser.add_argument("--out", type=Path, default=Path("runs/lens"))
    given = parser.parse_args()
    model = sl.load(given.model)
    corpus = sl.corpus(langs=given.langs)
    texts = corpus.split("test").take(given.lines)
    given.out.mkdir(parents=True, exist_ok=True)
    plain = sl.lens(model, texts)
    table = plain.by_layer()
    table.to_csv(given.out / "by_layer.csv", index=False)
    print(markdown(pivots(table, model.n_layers)))
    layer = round(0.6 * model.n_layers) if given.layer is None else given.layer
    moments = sl.collect(model, corpus.split("estimate").take(ESTIMATE), layers=[layer], also=[])
    edit = sl.add(sl.diffmean(moments).between(PIVOT, TARGET).at(layer), strength=STRENGTH)
    steered = sl.lens(model, texts.select([PIVOT]), edit=edit)
    under = steered.by_layer()
    under.to_csv(given.out / "steered.csv", index=False)
    print()
    print(markdown(gains(under, model.n_layers)))
    for lang in plain.spoken:
        figure = sl.figures.lens_layers(plain, spoken=lang)
        sl.figures.write(figure, given.out / f"layers-{lang}", force=True)
    sl.figures.write(sl.figures.lens_layers(steered), given.out / "steered", force=True)
    sl.figures.write(sl.figures.lens_strip(steered), given.out / "strip", force=True)


def places(depth: int) -> list[int]:
    """The layers of the table."""
    return sorted({max(0, round(share * depth) - 1) for share in PLACES})


def pivots(table: pd.DataFrame, depth: int) -> pd.DataFrame:
    """The mass of the text's own language and of the pivot at some layers, a line for each language
    of text."""
    rows = []
    for spoken, part in table.groupby("spoken", sort=False):
        row = {"text in": spoken, "n": int(part["n"].iloc[0])}
        for layer in places(depth):
            for lang in dict.fromkeys([str(spoken), PIVOT]):
                row[f"{lang if lang == PIVOT else 'own'}, layer {layer}"] = cell(
                    part, layer, lang, "mass"
                )
        rows.append(row)
    return pd.DataFrame(rows)


def gains(table: pd.DataFrame, depth: int) -> pd.DataFrame:
    """What the edit does to the masses of the target and of the pivot, beside the unsteered
    masses."""
    rows = []
    for lang in (TARGET, PIVOT):
        row = {"mass of": lang, "n": int(table["n"].iloc[0])}
        for layer in places(depth):
            row[f"steered, layer {layer}"] = cell(table, layer, lang, "mass")
            row[f"unsteered, layer {layer}"] = cell(table, layer, lang, "unsteered")
        rows.append(row)
    return pd.DataFrame(rows)


def cell(table: pd.DataFrame, layer: int, lang: str, name: str) -> str:
    """A mean with its interval."""
    [line] = table[(table["layer"] == layer) & (table["language"] == lang)].to_dict("records")
    return spelled([line[name], line[f"{name}_low"], line[f"{name}_high"]])


if __name__ == "__main__":
    main()
