"""Does it think in English? Language mass through the logit lens at a few layers: text of six
languages as it is, and English text under an edit towards Spanish, beside the same text unsteered."""

import textwrap
from collections.abc import Mapping
from typing import Any

import pandas as pd
from gemma_bed import Bed

import steerlab as sl
from steerlab.analysis.tables import markdown, spelled
from steerlab.core.languages import language

LANGS = ("en", "de", "es", "fr", "ru", "ja")
LINES = 8  # test sentences of each language
ESTIMATE = 96  # sentences that the direction is found from
PIVOT, TARGET, LAYER = "en", "es", 12
PLACES = (0.25, 0.5, 0.75, 1.0)  # shares of the depth


def run(bed: Bed) -> dict[str, Any]:
    depth = bed.model.n_layers
    layers = sorted({round(share * depth) - 1 for share in PLACES})
    corpus = bed.corpus.select(LANGS)
    texts = corpus.split("test").take(LINES)
    plain = sl.lens(bed.model, texts, layers=layers).by_layer()
    few = corpus.select([PIVOT, TARGET]).split("estimate").take(ESTIMATE)
    moments = sl.collect(bed.model, few, layers=[LAYER], also=[])
    edit = sl.add(sl.diffmean(moments).between(PIVOT, TARGET).at(LAYER), strength=1.0)
    steered = sl.lens(bed.model, texts.select([PIVOT]), edit=edit, layers=layers).by_layer()
    own = plain["language"].isin([PIVOT]) | (plain["language"] == plain["spoken"])
    return {
        "layers": layers,
        "lines": LINES,
        "layer": LAYER,
        "target": TARGET,
        "plain": plain[own].to_dict("records"),
        "steered": steered[steered["language"].isin([PIVOT, TARGET])].to_dict("records"),
    }


def section(record: Mapping[str, Any]) -> str:
    """The section of the page: the answer, and both tables."""
    layers = record["layers"]
    plain, steered = pd.DataFrame(record["plain"]), pd.DataFrame(record["steered"])
    others = [lang for lang in plain["spoken"].unique() if lang != PIVOT]
    counts = {layer: _english(plain, layer, others) for layer in layers}
    told = "; ".join(
        f"layer {layer}: English more in {more} of {len(others)} languages, less in {less}"
        for layer, (more, less) in counts.items()
    )
    middle = [counts[layer][0] for layer in layers[1:-1]]
    says = (
        "By this reading it does: in the middle of the network the words that the stream is nearest "
        "to are English for text in most other languages."
        if min(middle) > len(others) / 2
        else "By this reading it does not: for text in most other languages, the words that the "
        "stream in the middle of the network is nearest to are not plainly English."
    )
    answer = textwrap.fill(
        f"{says} Mass is the probability of the next token that lies on a language's own tokens, if "
        f"the layer were the last ([logit lens](methods.md#scores)); {record['lines']} test "
        f"sentences of each language. With intervals that do not meet, {told}. The lens says what a "
        "layer's words are nearest to, not what it computes.",
        120,
        break_long_words=False,
        break_on_hyphens=False,
    )
    name = language(record["target"]).name
    return f"""## Does it think in English?

{answer}

{_table(plain, layers, [(lang, [lang, PIVOT]) for lang in plain["spoken"].unique()], "mass")}

The same for English text with the vector to {name} added at layer {record["layer"]} (one natural gap), beside the same text
without it: below that layer nothing can differ.

{_steered(steered, layers, record["target"])}
"""


def _english(plain: pd.DataFrame, layer: int, others: list[str]) -> tuple[int, int]:
    """In how many languages of text English has more mass than the text's own, and less, with
    intervals that do not meet."""
    ends: dict[tuple[str, str], Any] = {
        (row["spoken"], row["language"]): (row["mass_low"], row["mass_high"])
        for row in plain[plain["layer"] == layer].to_dict("records")
    }
    more = sum(ends[lang, PIVOT][0] > ends[lang, lang][1] for lang in others)
    less = sum(ends[lang, PIVOT][1] < ends[lang, lang][0] for lang in others)
    return int(more), int(less)


def _cell(table: pd.DataFrame, layer: int, lang: str, name: str) -> str:
    [line] = table[(table["layer"] == layer) & (table["language"] == lang)].to_dict("records")
    return spelled([line[name], line[f"{name}_low"], line[f"{name}_high"]])


def _table(
    plain: pd.DataFrame, layers: list[int], rows: list[tuple[str, list[str]]], name: str
) -> str:
    made = []
    for spoken, langs in rows:
        part = plain[plain["spoken"] == spoken]
        for lang in dict.fromkeys(langs):
            row = {"text in": language(spoken).name, "mass of": language(lang).name}
            made.append(row | {f"layer {k}": _cell(part, k, lang, name) for k in layers})
    return markdown(pd.DataFrame(made))


def _steered(table: pd.DataFrame, layers: list[int], target: str) -> str:
    made = []
    for lang in (target, PIVOT):
        for name, words in (("mass", "with the vector"), ("unsteered", "*unsteered*")):
            row = {"mass of": language(lang).name, "": words}
            made.append(row | {f"layer {k}": _cell(table, k, lang, name) for k in layers})
    return markdown(pd.DataFrame(made))
