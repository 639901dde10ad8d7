"""The page on a language and its clone, from what was recorded."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from clone_runs import LARGE, SMALL, as_run
from clone_scores import FEATURES
from clones import HELD

import steerlab as sl
from steerlab.analysis.scaling import power_law, token_efficiency
from steerlab.analysis.tables import markdown, spelled

Record = Mapping[str, Any]


def page(records: Sequence[Record]) -> str:
    settings = grouped(records)
    both = {key: found for key, found in settings.items() if any(key[3])}
    lines = [
        "# A language and its clone: methods against a known truth",
        "",
        "Written by `python experiments/cloned/cloned_page.py TEXT`. Text in English, and the same text in "
        "letters of its own: every token of the clone is one of the first language, moved by the size of the "
        "vocabulary (Schäfer et al. 2024, arXiv 2404.07982). A model of both, steered from the first to the "
        "clone, should say what it would have said by itself, *each token moved*: the truth is known at every "
        "position, and nothing has to be judged.",
        "",
        f"{len(records)} models, on {_kinds(records, 'device')}; "
        f"{records[0]['words']} tokens a language, sequences of 64. The text has "
        f"{_kinds(records, 'text_tokens')} tokens, so that large runs "
        "read it several times. *right*: positions whose likeliest token is the true one; *mass*: "
        f"probability on the clone; *nats*: KL of the truth from what is said. Fitted on {HELD['estimate']} sentences, layer "
        f"and strength chosen on {HELD['dev']} by nats, reported on {HELD['test']} others with 95 % intervals over sentences, "
        "seed by seed.",
    ]
    for setting in (SMALL.setting, LARGE.setting):
        if setting in both:
            lines += ["", f"## Methods: {named(setting)}", "", *methods(both[setting])]
    if SMALL.setting not in both and LARGE.setting not in both:
        first = next(iter(both))
        lines += ["", f"## Methods: {named(first)}", "", *methods(both[first])]
    lines += ["", "## Size, tokens, and how much is in the clone", "", *_settings(settings)]
    lines += ["", "## Are a text and its clone alike inside?", "", *_aligned(both)]
    return "\n".join(lines) + "\n"


def _kinds(records: Sequence[Record], name: str) -> str:
    values = {record[name] for record in records}
    return " and ".join(sorted(f"{each:,}" if isinstance(each, int) else each for each in values))


def grouped(records: Sequence[Record]) -> dict[tuple[Any, ...], list[Record]]:
    """Records by their setting, seeds in order."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        found.setdefault(as_run(record["run"]).setting, []).append(record)
    return {key: sorted(each, key=lambda one: one["run"]["seed"]) for key, each in found.items()}


def named(setting: tuple[Any, ...]) -> str:
    """A setting in words."""
    layers, width, tokens, shares, frac = setting
    said = f"{layers} × {width}, {tokens / 1e6:g} M tokens"
    if not any(shares):
        return f"{said}, the first language alone"
    said += ", clone " + " then ".join(f"{share:g}" for share in shares)
    return said if frac == 1 else f"{said}, {frac:.0%} of tokens cloned"


def methods(records: Sequence[Record]) -> list[str]:
    """The table of methods of one setting, and what it says."""
    rows = []
    for index, score in enumerate(records[0]["scores"]):
        found = [record["scores"][index] for record in records]
        row = {"method": score["method"]}
        for record, one in zip(records, found, strict=True):
            row[f"seed {record['run']['seed']}: right"] = spelled(one["right"])
            row[f"seed {record['run']['seed']}: nats"] = spelled(one["nats"])
        row["mass"] = " ".join(f"{one['mass'][0]:.2f}" for one in found)
        row["layer"] = " ".join(str(one.get("layer", "–")) for one in found)
        row["strength"] = " ".join(
            f"{one['strength']:g}" if "strength" in one else "–" for one in found
        )
        rows.append(row)
    explained = [value for record in records for value in record["saes"]["explained"]]
    alive = [value for record in records for value in record["saes"]["alive"]]
    return [
        markdown(pd.DataFrame(rows)),
        "",
        "*map*: what is added is a linear function of the state, fitted on aligned positions of "
        "the text and its clone, which no method of steering has; it is the upper bound of an edit at one layer. "
        "The step to the clone has a rank: 0 would be the difference of means. *sae*: top-k autoencoders of eight times "
        f"the width, 16 latents on, which explain {min(explained):.2f} to {max(explained):.2f} of the variance, "
        f"{min(alive):.2f} to {max(alive):.2f} of their latents alive; *top latents* are the {FEATURES} of each language "
        "whose rate differs most from the other's.",
        "",
        *_reading(records),
    ]


def vectors_of(record: Record) -> list[Mapping[str, Any]]:
    """The scores of methods that have a strength, without the random direction."""
    return [
        score
        for score in record["scores"]
        if "strength" in score and not score["method"].startswith("random")
    ]


def score_of(record: Record, method: str) -> Mapping[str, Any]:
    """The scores of one method."""
    found: Mapping[str, Any] = next(
        score for score in record["scores"] if score["method"].startswith(method)
    )
    return found


def _reading(records: Sequence[Record]) -> list[str]:
    said = []
    for record in records:
        best = min(vectors_of(record), key=lambda score: score["dev"])
        random, whole, linear = (
            score_of(record, name) for name in ("random", "the prompt", "map, any")
        )
        said.append(
            f"- Seed {record['run']['seed']}: the method that was best on dev, {best['method']}, comes to {best['nats'][0]:.2f} "
            f"nats and {best['right'][0]:.0%} right; a random direction to {random['nats'][0]:.2f} and "
            f"{random['right'][0]:.0%}; a linear map to {linear['nats'][0]:.2f} and {linear['right'][0]:.0%}; the prompt in "
            f"the clone itself to {whole['nats'][0]:.2f} and {whole['right'][0]:.0%}."
        )
    own = [score for record in records for score in vectors_of(record)]
    adding = [score for score in own if score["method"].endswith(", add")]
    said.append(
        f"- A vector that is added gives {_span(adding, 'mass')} of the probability to the clone, and the true word at "
        f"{_span(adding, 'right', percent=True)} of positions."
    )
    said += _ranks(records, max(score["right"][0] for score in own))
    at_edge = sum(score["edge"] for score in adding)
    others = [score for score in own if score["edge"] and score not in adding]
    counted = Counter(f"{score['method']} {score['strength']:g}" for score in others)
    listed = ", ".join(f"{name} ({count})" for name, count in counted.items())
    said.append(
        f"- {at_edge} of {len(adding)} strengths of added vectors lie at an edge of their grid"
        f"{f'; of the other operators {len(others)} of {len(own) - len(adding)} do: {listed}' if others else ''}."
    )
    return said


def _ranks(records: Sequence[Record], most: float) -> list[str]:
    """How far linear maps come by their rank, and whether that is what vectors lack.

    Args:
        records: of one setting.
        most: the largest share of true words by a method with a strength.
    """
    maps = [one["method"] for one in records[0]["scores"] if one["method"].startswith("map")]
    reached = {
        name.removeprefix("map, "): [score_of(record, name)["right"][0] for record in records]
        for name in maps
    }
    said = (
        "- True words by the map between aligned positions: "
        + "; ".join(f"{name} {_each(values, '.0%')}" for name, values in reached.items())
        + "."
    )
    full = min(
        max(reached["any linear"][index], reached["a rotation"][index])
        for index in range(len(records))
    )
    layers = [score_of(record, "map, a rotation")["layer"] for record in records]
    said += f" The rotation is best at layer {_each(layers, 'd')}, counted from 0, of {len(records[0]['alignment'])}."
    if all(layer == len(records[0]["alignment"]) - 1 for layer in layers):
        said += (
            " That is the last, where a map need only turn to the clone's half of the unembedding."
        )
    deep = [score_of(record, "map, a rotation").get("by_layer") for record in records]
    if all(deep):
        means = np.mean([each for each in deep if each], 0)
        said += f" Its nats on dev by layer, mean of seeds: {_each(means)}."
    if full > 2 * most:
        said += " What a vector lacks is rank, not strength: each token has a step of its own, and a linear map knows them."
    return [said]


def _span(scores: Sequence[Mapping[str, Any]], name: str, *, percent: bool = False) -> str:
    values = [score[name][0] for score in scores]
    low, high = (
        f"{value:.0%}" if percent else f"{value:.2f}" for value in (min(values), max(values))
    )
    return f"{low} to {high}"


def _settings(settings: Mapping[tuple[Any, ...], Sequence[Record]]) -> list[str]:
    laws = _laws(settings)
    rows = []
    for setting, records in settings.items():
        if not any(setting[3]):
            continue
        best = [min(vectors_of(record), key=lambda score: score["dev"]) for record in records]
        row = {"setting": named(setting)}
        for index, name in enumerate(("perplexity", "clone's")):
            row[name] = _each([record["perplexity"][index] for record in records], ".1f")
        law = laws.get((*setting[:2],))
        for index, name in enumerate(("efficiency", "clone's efficiency")):
            row[name] = _efficiencies(law, records, index)
        row["best vector: right"] = _each([score["right"][0] for score in best])
        row["nats"] = _each([score["nats"][0] for score in best])
        row["random: nats"] = _each([score_of(each, "random")["nats"][0] for each in records])
        row["rank 4: right"] = _each(
            [score_of(each, "map, a step of rank 4")["right"][0] for each in records]
        )
        row["linear: right"] = _each([score_of(each, "map, any")["right"][0] for each in records])
        row["clone's prompt: right"] = _each(
            [score_of(each, "the prompt")["right"][0] for each in records]
        )
        rows.append(row)
    minutes = sum(each["seconds"] for found in settings.values() for each in found) / 60
    said = [
        "A number for each seed. *best vector*: the method of those with a strength that is best on dev. "
        "*efficiency*: the tokens of one language alone that would give the perplexity, per token seen in it (above 1: "
        "the other helped).",
        "",
        markdown(pd.DataFrame(rows)),
        "",
        f"All runs took {minutes:.0f} minutes, one after another.",
    ]
    for (layers, width), (law, points) in laws.items():
        sentence = law.sentence("Perplexity", "tokens")
        listed = "; ".join(f"{tokens:,}: {value:.1f}" for tokens, value in points)
        said += [
            "",
            f"Models {layers} × {width} of the first language alone, perplexity by the tokens seen (one seed, whole runs): "
            f"{listed}. {sentence[:1].upper()}{sentence[1:]}",
        ]
    return said


def _each(values: Sequence[float], how: str = ".2f") -> str:
    return " ".join(f"{value:{how}}" for value in values)


def _laws(settings: Mapping[tuple[Any, ...], Sequence[Record]]) -> dict[tuple[int, int], Any]:
    """By shape: the law of perplexity in one language alone, and its points."""
    points: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for (layers, width, tokens, shares, _), records in settings.items():
        if not any(shares):
            points.setdefault((layers, width), []).append((tokens, records[0]["perplexity"][0]))
    return {
        shape: (power_law(*map(list, zip(*found, strict=True))), found)
        for shape, found in points.items()
        if len(found) >= 3
    }


def _efficiencies(law: Any, records: Sequence[Record], language: int) -> str:
    if law is None:
        return "–"
    values = []
    for record in records:
        share = float(np.mean(record["run"]["shares"]))
        seen = record["run"]["tokens"] * (share if language else 1 - share)
        try:
            value = token_efficiency(law[0], record["perplexity"][language], seen)
            values.append(f"{value:.2f}")
        except sl.SteerlabError:  # outside of what the law was fitted on
            values.append("–")
    return " ".join(values)


def _aligned(settings: Mapping[tuple[Any, ...], Sequence[Record]]) -> list[str]:
    rows = []
    cosines: dict[tuple[Any, ...], list[float]] = {}
    for setting, records in settings.items():
        depths = range(len(records[0]["alignment"]))
        cosines[setting] = [_middle(record, "token") for record in records]
        best = max(depths, key=lambda layer: _over(records, layer, "token"))
        row: dict[str, Any] = {"setting": named(setting), "layer": best}
        for name in ("token", "other token", "cosine", "shuffled", "nearest"):
            row[name] = _each([record["alignment"][best][name] for record in records])
        row["token, mean of layers"] = _each(cosines[setting])
        rows.append(row)
    said = [
        "Vectors less the mean of their language. *token*: cosine of a token's vector with that of its clone at the same "
        "position; *other token*: with another's. *cosine*, *shuffled*: the same of means of sentences; *nearest*: how "
        f"often the clone is the nearest of all {HELD['test']} sentences. At the layer where tokens are most alike, a number for each "
        "seed.",
        "",
        markdown(pd.DataFrame(rows)),
    ]
    said += _imbalance(cosines)
    return said


def _middle(record: Record, name: str) -> float:
    return float(np.mean([row[name] for row in record["alignment"]]))


def _over(records: Sequence[Record], layer: int, name: str) -> float:
    return float(np.mean([record["alignment"][layer][name] for record in records]))


def _imbalance(cosines: Mapping[tuple[Any, ...], Sequence[float]]) -> list[str]:
    """What becomes of the finding that a rarer clone lies nearer to the first language."""
    said = []
    for setting, even in cosines.items():
        layers, width, tokens, shares, frac = setting
        if shares != (0.5,):
            continue
        for other, found in cosines.items():
            same = other[:3] == (layers, width, tokens) and other[4] == frac
            if not same or other[3] == shares:
                continue
            name = " then ".join(f"{share:g}" for share in other[3])
            if min(found) > max(even):
                verdict = "more alike in every seed than in any at 0.5"
            elif max(found) < min(even):
                verdict = "less alike in every seed than in any at 0.5"
            else:
                verdict = "no clear difference: the seeds overlap"
            said.append(
                f"- {layers} × {width}, {tokens / 1e6:g} M tokens, clone {name}: mean cosine of tokens over layers "
                f"{_each(found)}, against {_each(even)} at 0.5: {verdict}."
            )
    if said:
        said = [
            "",
            "Schäfer et al. find that imbalance brings the two languages' representations nearer to each other. Here:",
            "",
            *said,
        ]
    return said
