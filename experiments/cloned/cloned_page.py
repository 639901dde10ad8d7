"""docs/cloned.md: directions scored against a truth that is known, on models of a language and its clone.

`python experiments/cloned/cloned_page.py TEXT [--seeds 3] [--tokens 2000000]` reads TEXT/en.txt, one
sentence a line, trains a small model for each seed (weights stay in build/cloned), and one on one language
for token efficiency; then fits each method on 240 sentences in both languages, chooses layer and strength on 60,
and reports on 120 others.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from clones import (
    LENGTH,
    SHAPE,
    Recipe,
    cloned,
    lines_of,
    perplexity,
    stream_of,
    tokenizer,
    train,
)

import steerlab as sl
from steerlab.analysis.intervals import by_sentence
from steerlab.analysis.scaling import power_law, token_efficiency
from steerlab.analysis.tables import markdown, spelled
from steerlab.core.directions import Directions
from steerlab.core.files import read_json, write_json
from steerlab.edits import Edit
from steerlab.estimate.registry import VARIANTS
from steerlab.models.model import Model

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).resolve().parent / "recorded"
PAGE = ROOT / "docs" / "cloned.md"
OUT = Path("build/cloned")
HELD = {"estimate": 240, "dev": 60, "test": 120, "perplexity": 2000}
METHODS = ("diffmean", "lda", "pca", "probe", "eigengap")
STRENGTHS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
FIRST, SECOND = "first", "clone"


class Bed:
    """One seed's model, and sentences that it has not seen."""

    def __init__(self, hf: Any, made: Any, words: int, lines: Mapping[str, list[str]]) -> None:
        self.model: Model = sl.load(hf, tokenizer=made)
        self.words = words
        self.lines = lines
        corpus = sl.contrast(
            {FIRST: lines["estimate"], SECOND: list(map(cloned, lines["estimate"]))}, aligned=True
        )
        needs = sorted({need for name in METHODS for need in VARIANTS[name].needs})
        self.moments = sl.collect(self.model, corpus, also=needs, source=FIRST)

    def ids(self, split: str) -> list[list[int]]:
        """The tokens of each sentence in the first language, BOS before them."""
        rows = self.model.tokenizer(self.lines[split], add_special_tokens=False).input_ids
        return [[2 * self.words, *row[: LENGTH - 1]] for row in rows]

    @torch.inference_mode()
    def predictions(self, ids: Sequence[Sequence[int]], edit: Edit | None = None) -> list[Any]:
        """The distribution of the next token at every position of each sentence [position word]."""
        found: list[Any] = []
        with edit.on(self.model) if edit is not None else nullcontext():
            for row in ids:
                tokens = torch.tensor([row])
                logits = self.model.forward(tokens, torch.ones_like(tokens, dtype=torch.bool))[0]
                found.append(logits[0, 1:].float().log_softmax(-1))
        return found


def against_truth(words: int, plain: Sequence[Any], steered: Sequence[Any]) -> pd.DataFrame:
    """A row for each sentence: how far what the edited model says is from the truth.

    The truth at a position is what the model says there by itself, every token moved to the other
    language. Columns: right, the share of positions whose likeliest token is the true one; mass, the
    probability on the other language; nats, KL(truth || said), with what the plain model leaves of a
    language moved along.
    """
    rows = []
    for sentence, (before, after) in enumerate(zip(plain, steered, strict=True)):
        truth = torch.full_like(before, -np.inf)
        truth[:, words : 2 * words] = before[:, :words]
        truth[:, :words] = before[:, words : 2 * words]
        truth[:, -1] = before[:, -1]
        p = truth.exp()
        nats = (p * (truth - after)).nan_to_num(0.0).sum(-1)
        rows.append(
            {
                "sentence": sentence,
                "right": float((truth.argmax(-1) == after.argmax(-1)).float().mean()),
                "mass": float(after[:, words : 2 * words].exp().sum(-1).mean()),
                "nats": float(nats.mean()),
            }
        )
    return pd.DataFrame(rows)


def edits_of(directions: Directions, how: str, layer: int, strength: float) -> Edit:
    direction = directions.between(FIRST, SECOND).at(layer)
    if how == "rotate":
        return sl.rotate(direction, share=strength)
    return sl.add(direction, strength=strength)


def scored(bed: Bed) -> list[dict[str, Any]]:
    """Each method at the layer and strength that are best on dev, on test."""
    made = {name: VARIANTS[name].make(bed.moments) for name in METHODS}
    made["random"] = sl.controls.random(made["diffmean"], seed=0, source=FIRST)
    ways = [(name, "add") for name in made] + [("diffmean", "rotate")]
    dev, test = bed.ids("dev"), bed.ids("test")
    plain_dev, plain_test = bed.predictions(dev), bed.predictions(test)
    found = []
    for name, how in ways:
        best = None
        for layer in made[name].layers:
            for strength in STRENGTHS:
                edit = edits_of(made[name], how, layer, strength)
                rows = against_truth(bed.words, plain_dev, bed.predictions(dev, edit))
                key = (rows["nats"].mean(), layer, strength)
                best = key if best is None else min(best, key)
        assert best is not None
        _, layer, strength = best
        edit = edits_of(made[name], how, layer, strength)
        rows = against_truth(bed.words, plain_test, bed.predictions(test, edit))
        found.append(
            {"method": f"{name}, {how}", "layer": layer, "strength": strength} | _means(rows)
        )
    none = against_truth(bed.words, plain_test, plain_test)
    found.append({"method": "unsteered"} | _means(none))
    moved = [[2 * bed.words, *(token + bed.words for token in row[1:])] for row in test]
    whole = against_truth(bed.words, plain_test, bed.predictions(moved))
    found.append({"method": "the prompt in the clone itself"} | _means(whole))
    return found


def _means(rows: pd.DataFrame) -> dict[str, Any]:
    sentences = rows["sentence"].to_numpy()
    return {
        name: list(by_sentence(rows[name].to_numpy(float), sentences, share=name != "nats"))
        for name in ("right", "mass", "nats")
    } | {"n": len(rows)}


def alignment(bed: Bed) -> list[dict[str, Any]]:
    """By layer: how alike a sentence and its clone are, centred by language, and how often the clone
    is the nearest of all sentences."""
    lines = bed.lines["test"]
    corpus = sl.contrast({FIRST: lines, SECOND: list(map(cloned, lines))}, aligned=True)
    vectors = sl.concepts.text_means(bed.model, corpus)
    found = []
    for index, layer in enumerate(bed.moments.layers):
        a, b = (torch.as_tensor(vectors[name][:, index]).float() for name in (FIRST, SECOND))
        a, b = (
            torch.nn.functional.normalize(each - each.mean(0, keepdim=True), dim=-1)
            for each in (a, b)
        )
        cosines = a @ b.T
        hits = (cosines.argmax(1) == torch.arange(len(a))).float()
        found.append(
            {
                "layer": int(layer),
                "cosine": float(cosines.diagonal().mean()),
                "shuffled": float(cosines.roll(1, 0).diagonal().mean()),
                "nearest": float(hits.mean()),
            }
        )
    return found


def efficiency(text: Path, tokens: int) -> dict[str, Any]:
    """Perplexity of a model of one language against the tokens it has seen: whole runs, since a
    checkpoint's learning rate has not fallen yet."""
    _, words, stream, held = prepared(text)
    found = []
    for share in (8, 4, 2, 1):
        recipe = Recipe(tokens=tokens // share, share=0.0)
        model = train(stream, words, recipe)
        found.append(
            {"tokens": recipe.tokens, "perplexity": perplexity(model, held, words, clone=False)}
        )
        print(found[-1], file=sys.stderr, flush=True)
    return {"rows": found}


def prepared(text: Path) -> tuple[Any, int, list[int], list[int]]:
    """(tokenizer, words of a language, the tokens to train on, those held out)."""
    lines = lines_of(text / "en.txt", 10**9)
    training = lines[sum(HELD.values()) :]
    made = tokenizer(training)
    words = (len(made) - 1) // 2
    return made, words, stream_of(made, training), stream_of(made, lines[: HELD["perplexity"]])


def of_seed(text: Path, tokens: int, seed: int) -> dict[str, Any]:
    """Train one model and score the methods on it."""
    begun = time.process_time()
    made, words, stream, held = prepared(text)
    model = train(stream, words, Recipe(tokens=tokens, seed=seed))
    seconds = time.process_time() - begun
    lines = lines_of(text / "en.txt", sum(HELD.values()))
    cut, start = {}, HELD["perplexity"]
    for split in ("estimate", "dev", "test"):
        cut[split] = lines[start : start + HELD[split]]
        start += HELD[split]
    bed = Bed(model, made, words, cut)
    record = {
        "seed": seed,
        "tokens": tokens,
        "words": words,
        "weights": sum(weight.numel() for weight in model.parameters()),
        "perplexity": [perplexity(model, held, words, clone=clone) for clone in (False, True)],
        "alignment": alignment(bed),
        "scores": scored(bed),
        "training_seconds": seconds,
    }
    record["seconds"] = time.process_time() - begun
    return record


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "text", type=Path, nargs="?", help="a folder with en.txt; none: the page alone"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=2_000_000)
    given = parser.parse_args()
    if given.text is not None:
        RECORDED.mkdir(exist_ok=True)
        for seed in range(given.seeds):
            file = RECORDED / f"seed-{seed}.json"
            if not (file.exists() and read_json(file)["tokens"] == given.tokens):
                write_json(file, of_seed(given.text, given.tokens, seed))
                print(f"seed {seed} is done", file=sys.stderr, flush=True)
        if not (RECORDED / "efficiency.json").exists():
            write_json(RECORDED / "efficiency.json", efficiency(given.text, given.tokens))
    PAGE.write_text(page(), "utf-8")


# ------------------------------------------------------------------------------------- the page


def page() -> str:
    records = [read_json(file) for file in sorted(RECORDED.glob("seed-*.json"))]
    first = records[0]
    lines = [
        "# A language and its clone: methods against a known truth",
        "",
        "Written by `python experiments/cloned/cloned_page.py TEXT`. Text in English, and the same text in "
        "letters of its own: every token of the clone is one of the first language, moved by the size of the "
        "vocabulary (Schäfer et al. 2024, arXiv 2404.07982). A model of both, steered from the first to the "
        "clone, should say what it would have said by itself, *each token moved*: the truth is known at every "
        "position, and nothing has to be judged.",
        "",
        f"{len(records)} seeds of a model of {first['weights']:,} weights ({SHAPE['num_hidden_layers']} layers × "
        f"{SHAPE['hidden_size']}), trained on {first['tokens']:,} tokens, half of the sequences in the clone; "
        f"{first['words']} tokens a language. Perplexity on held-out text: "
        + "; ".join(
            f"seed {record['seed']} {record['perplexity'][0]:.1f}, clone {record['perplexity'][1]:.1f}"
            for record in records
        )
        + f". {sum(record['seconds'] for record in records) / 60:.0f} minutes of processor time.",
        "",
        "## Methods",
        "",
        f"*right*: positions whose likeliest token is the true one; *mass*: probability on the clone; *nats*: KL of the "
        f"truth from what is said. Fitted on {HELD['estimate']} sentences, layer and strength chosen on {HELD['dev']} by nats, "
        f"reported on {HELD['test']} others with 95 % intervals over sentences, seed by seed.",
        "",
        markdown(_table(records)),
        "",
        *_reading(records),
        "",
        "## Are a sentence and its clone alike inside?",
        "",
        "Means of a sentence's tokens, less the mean of its language: cosine with its clone and with another "
        "sentence's, and how often the clone is the nearest of all.",
        "",
        markdown(_aligned(records)),
    ]
    law = _law(records)
    return "\n".join(lines + law) + "\n"


def _table(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    rows = []
    for index, score in enumerate(records[0]["scores"]):
        row: dict[str, Any] = {"method": score["method"]}
        for record in records:
            found = record["scores"][index]
            row[f"seed {record['seed']}: right"] = spelled(found["right"])
            row[f"seed {record['seed']}: nats"] = spelled(found["nats"])
        row["mass"] = " ".join(f"{record['scores'][index]['mass'][0]:.2f}" for record in records)
        row["layer"] = " ".join(
            str(record["scores"][index].get("layer", "–")) for record in records
        )
        row["strength"] = " ".join(
            f"{record['scores'][index]['strength']:g}"
            if "strength" in record["scores"][index]
            else "–"
            for record in records
        )
        rows.append(row)
    return pd.DataFrame(rows)


def _reading(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The best method of each seed, and what the clone itself reaches."""
    said = []
    for record in records:
        methods = [score for score in record["scores"] if "layer" in score]
        best = min(methods, key=lambda score: score["nats"][0])
        random = next(score for score in methods if score["method"].startswith("random"))
        ceiling = record["scores"][-1]
        said.append(
            f"- Seed {record['seed']}: {best['method']} comes nearest to the truth ({best['nats'][0]:.2f} nats, "
            f"{best['right'][0]:.0%} right); a random direction {random['nats'][0]:.2f} nats; the prompt in the clone "
            f"itself {ceiling['nats'][0]:.2f} nats, {ceiling['right'][0]:.0%} right."
        )
    methods = [score for record in records for score in record["scores"] if "layer" in score]
    own = [score for score in methods if not score["method"].startswith("random")]
    edge = sum(score["strength"] == max(STRENGTHS) for score in own)
    nearest = max(row["nearest"] for record in records for row in record["alignment"])
    said.append(
        f"- A vector gives the language, {min(score['mass'][0] for score in own):.2f} to "
        f"{max(score['mass'][0] for score in own):.2f} of the probability, and not the word, "
        f"{min(score['right'][0] for score in own):.0%} to {max(score['right'][0] for score in own):.0%}: one shift for all "
        "tokens can do no more where a token and its clone do not lie alike but for that shift. Here they do not: the clone is "
        f"the nearest of {HELD['test']} sentences in at most {nearest:.0%}."
    )
    said.append(
        f"- In {edge} of {len(own)} choices the strength is the largest of the grid, {max(STRENGTHS):g}: more may go further."
    )
    return said


def _aligned(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    rows = []
    for index, first in enumerate(records[0]["alignment"]):
        found = [record["alignment"][index] for record in records]
        rows.append(
            {"layer": first["layer"]}
            | {
                name: " ".join(f"{each[name]:.2f}" for each in found)
                for name in ("cosine", "shuffled", "nearest")
            }
        )
    return pd.DataFrame(rows)


def _law(records: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = (read_json(RECORDED / "efficiency.json") or {}).get("rows", [])
    if len(rows) < 3:
        return []
    law = power_law([row["tokens"] for row in rows], [row["perplexity"] for row in rows])
    values = []
    for record in records:
        for name, found in zip(("first", "clone"), record["perplexity"], strict=True):
            try:
                value = f"{token_efficiency(law, found, record['tokens'] / 2):.2f}"
            except sl.SteerlabError as error:
                value = str(error)
            values.append(f"seed {record['seed']}, {name}: {value}")
    points = "; ".join(f"{row['tokens']:,}: {row['perplexity']:.1f}" for row in rows)
    return [
        "",
        "## Does one language help the other?",
        "",
        f"Models of the first language alone, perplexity by the tokens seen (one seed, whole runs): {points}. "
        f"{law.sentence('Perplexity', 'tokens')[:1].upper()}{law.sentence('Perplexity', 'tokens')[1:]}",
        "",
        "Token efficiency, the tokens of one language alone that would give the perplexity, per token seen in it "
        f"(above 1: the other helped): {'; '.join(values)}.",
    ]


if __name__ == "__main__":
    main()
