"""Measure polyglot and write its card.

`python experiments/polyglot/evaluate.py WORK` reads what data.py and train.py left in WORK
(held-out lines, counts, the learning curve, kept checkpoints), measures the model in the package,
and writes README.md and evaluation.json beside its weights. Everything is measured on lines that
training never saw.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from data import GIVEN_WEIGHT, NAMES, VOCABULARY
from saes.lines import HELD_OUT_SHARE

from steerlab.analysis.intervals import by_sentence
from steerlab.core.corpus import Corpus, corpus
from steerlab.engine.cross_entropy import bits_per_byte
from steerlab.engine.decoding import decode
from steerlab.engine.prompts import prompt
from steerlab.models.loading import PACKAGED, load
from steerlab.models.model import Model
from steerlab.scores.chrf import ChrfIndex
from steerlab.scores.judges import Answer, Retrieval, score
from steerlab.scores.langid import identifier
from steerlab.scores.text import first_line

PROMPTS, TOKENS, TEMPERATURE, GATE = 50, 24, 0.8, 5 / 32
OTHERS = [iso for iso in NAMES if iso != "en"]


def continuation(model: Model, held: dict) -> dict[str, dict]:
    """Share of free continuations in the prompt's language, beside the identifier's accuracy on
    gold of that length."""
    named, prompts, gold = identifier(), [], []
    for iso in NAMES:
        lines = held["mono"][iso]
        for i in range(PROMPTS):
            two, next_two = (
                lines[4 * i % (len(lines) - 4) :][:2],
                lines[4 * i % (len(lines) - 4) + 2 :][:2],
            )
            prompts.append("\n".join(two) + "\n")
            ids = model.tokenizer("\n".join(next_two), add_special_tokens=False).input_ids[:TOKENS]
            gold.append(model.tokenizer.decode(ids))
    texts = decode(
        model,
        prompts,
        max_new_tokens=TOKENS,
        temperature=TEMPERATURE,
        seed=0,
        one_line=False,
        batch=200,
    ).texts
    result = {}
    for place, iso in enumerate(NAMES):
        part = slice(place * PROMPTS, (place + 1) * PROMPTS)
        hits = np.array([found == iso for found in named.identify(texts[part])])
        accuracy = np.mean([found == iso for found in named.identify(gold[part])])
        result[iso] = {
            "in_language": by_sentence(hits, np.arange(PROMPTS)),
            "identifier_on_gold": float(accuracy),
        }
    return result


def translation(model: Model, lines: Corpus) -> dict[str, dict]:
    """Instructed English → other: share that finds its own reference among 32, and chrF less
    mismatched chrF."""
    numbers, result = np.array(lines.numbers), {}
    for iso in OTHERS:
        prompts = [
            prompt(model.tokenizer, "instructed", text, source="en", target=iso)
            for text in lines["en"]
        ]
        texts = decode(model, prompts, max_new_tokens=32, batch=256).texts
        told = zip(texts, prompts, lines["en"], lines.numbers, strict=True)
        answers = [
            Answer(first_line(text), given, line, number, "en", iso)
            for text, given, line, number in told
        ]
        table = score(answers, identifier=identifier(), judge=Retrieval(lines))
        scores = ChrfIndex(lines[iso]).score(table["output"])
        own = np.diag(scores)
        mismatched = (scores.sum(1) - own) / (len(lines) - 1)
        result[iso] = {
            "retrieval": by_sentence(table["joint"], numbers),
            "in_language": by_sentence(table["in_language"], numbers),
            "chrf": float(own.mean()),
            "chrf_gain": by_sentence(own - mismatched, numbers),
            "samples": list(zip(lines["en"][:3], table["output"][:3], lines[iso][:3], strict=True)),
        }
    return result


def held_out(model: Model, held: dict) -> dict[str, float]:
    """Bits per byte over all held-out lines of a language (each alone after BOS, its line break
    not counted)."""
    result = {}
    for iso, lines in held["mono"].items():
        sizes = np.array([len(line.encode()) for line in lines])
        result[iso] = float((bits_per_byte(model, lines) * sizes).sum() / sizes.sum())
    return result


def learning_curve(work: Path, lines: Corpus) -> list[dict]:
    """Held-out bits and instructed retrieval of every kept checkpoint."""
    rows = []
    for point in map(json.loads, (work / "curve.jsonl").read_text("utf-8").splitlines()):
        folder = work / "kept" / f"{point['tokens'] // 1000:06d}k"
        if not folder.exists():
            continue
        found = translation(load(folder), lines)
        bits = [value for name, value in point["bits_per_byte"].items() if ">" not in name]
        paired = [value for name, value in point["bits_per_byte"].items() if ">" in name]
        rows.append(
            {
                "tokens": point["tokens"],
                "seconds": point["seconds"],
                "layers": point["layers"],
                "mono_bits": float(np.mean(bits)),
                "pair_bits": float(np.mean(paired)),
                "retrieval": float(np.mean([row["retrieval"][0] for row in found.values()])),
                "above_gate": sum(row["retrieval"][0] >= GATE for row in found.values()),
            }
        )
    return rows


def triple(value: tuple[float, float, float], digits: int = 2) -> str:
    return f"{value[0]:.{digits}f} [{value[1]:.{digits}f}, {value[2]:.{digits}f}]"


def card(found: dict, counts: dict, last: dict) -> str:
    """The model card, every number of it from this run."""
    rows = []
    for iso in NAMES:
        said, other = found["continuation"][iso], found["translation"].get(iso)
        cells = [iso, NAMES[iso], f"{found['bits_per_byte'][iso]:.2f}", triple(said["in_language"])]
        cells += [f"{said['identifier_on_gold']:.2f}"]
        cells += [triple(other["retrieval"]), triple(other["chrf_gain"], 1)] if other else ["", ""]
        rows.append("| " + " | ".join(cells) + " |")
    curve = [
        f"| {p['tokens'] / 1e6:.1f} | {p['seconds'] / 60:.0f} | {p['layers']} | "
        f"{p['mono_bits']:.2f} | "
        f"{p['pair_bits']:.2f} | {p['retrieval']:.3f} | {p['above_gate']} |"
        for p in found["curve"]
    ]
    samples = [
        f"* {given} → *{iso}* {said or '(nothing)'} (reference: {wanted})"
        for iso in ("de", "es", "ru", "tr", "ja")
        for given, said, wanted in found["translation"][iso]["samples"][:2]
    ]
    passed = sum(row["retrieval"][0] >= GATE for row in found["translation"].values())
    dropped = counts["dropped"]
    read = {
        kind: sum(v for k, v in last["read"].items() if k.startswith(kind))
        for kind in ("mono", "bare", "instructed")
    }
    total = sum(read.values())
    return f"""---
license: cc-by-4.0
library_name: transformers
language: [{", ".join(NAMES)}]
---

# polyglot

A Llama of {found["parameters"] / 1e6:.1f} million parameters ({found["layers"]} layers, width {found["width"]}, tied
embeddings, byte-level BPE of {VOCABULARY:,} entries) that writes {len(NAMES)} languages and has begun to
translate. It is the model in the box of steerlab: small enough to study and steer on two CPU cores without a network.
It is no translator, no assistant and no source of facts.

This card is written by `experiments/polyglot/evaluate.py`; the brackets are 95 % intervals by resampling sentences.

## Data

Short everyday sentences and their translations: Common Voice (CC0), Tatoeba (CC BY 2.0 FR), Global African Storybook
(CC BY), Open Source Guides (CC BY 4.0), GNOME user documentation (CC BY 3.0), read from their public repositories.
{sum(counts["mono_lines"].values()):,} monolingual lines and {sum(counts["pairs"].values()):,} translation pairs (joined
through their English line into {counts["groups"]:,} groups) were at hand.

* Documents: 3 to 8 lines of one language ({read["mono"] / total:.0%} of the tokens read), translations line under line
  ({read["bare"] / total:.0%}), and the same with the languages named ({read["instructed"] / total:.0%}; `English: ...`
  line break `Spanish: ...`). In the last two the loss on the given line weighs {GIVEN_WEIGHT}.
* Languages are drawn by size to the power ½, English half as often again.
* Held out: {HELD_OUT_SHARE:.1%} of the classes of near-duplicates (people's names, numbers, short words and word order
  do not count), with every line that translates one.
* Dropped because they equal, after normalisation, a line of steerlab's own corpus or of the parallel test sets:
  {dropped.get("pair_in_test_sets", 0)} pairs and {dropped.get("mono_in_test_sets", 0)} lines. Dropped as too
  long or as the other side of a held-out pair: {dropped.get("pair_long", 0):,} pairs and
  {dropped.get("mono_long_or_held_out_pair", 0):,} lines.

## Training

{last["tokens"] / 1e6:.1f} million tokens in {last["step"]:,} steps, {last["seconds"]:,} seconds on a two-core
CPU without bf16 (`device: {last["device"]}`), beside other work. Muon for the matrices inside the blocks, AdamW for the
rest; the softmax over the batch's tokens and a sample; four layers first, stacked to eight after 30 % of the time.

Learning curve (mean over languages; retrieval: an instructed translation of an English line of the `dev` split is in
the target language and nearest to its own reference among 32; chance 0.031; the gate is {GATE:.3f} in ten languages):

| million tokens | minutes | layers | held-out bits per byte | of translations | retrieval | languages above the gate |
|---|---|---|---|---|---|---|
{chr(10).join(curve)}

## What it can do

Bits per byte of held-out lines; share of free continuations (T = {TEMPERATURE}, {TOKENS} tokens, {PROMPTS} prompts of
two held-out lines, prompt excluded) in the prompt's language, beside the identifier's accuracy on held-out text of that
length; instructed translation from English of steerlab's {found["lines"]} sentences: own reference nearest among 32 in
the right language (chance 0.03), and chrF less the mean chrF to the other references.

| code | language | bits per byte | continues in language | identifier on gold | translation retrieval | chrF gain |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

Gate for meaning (retrieval at five times chance, {GATE:.3f}, or better in at least ten languages):
**{passed} languages, {"passed" if passed >= 10 else "not passed: meaning waits for more training"}**.

First sentences of the corpus, instructed, greedy, not chosen:

{chr(10).join(samples)}

## Known weaknesses

It has read a few million tokens: its sentences are often ungrammatical, rare words are lost or replaced, and long
sentences drift into frequent ones. After one line of text alone it may go on in any of its languages. It knows nothing
beyond short everyday sentences (many of them about a person called Tom). It was trained on public text of volunteers
without a filter of its own.

## Licence

The weights are derived from texts under the licences above, which ask for attribution: CC BY 4.0, the steerlab
contributors and the authors of those texts.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--model", type=Path, default=PACKAGED)
    options = parser.parse_args()
    held = json.loads((options.work / "held_out.json").read_text("utf-8"))
    counts = json.loads((options.work / "counts.json").read_text("utf-8"))
    points = [
        json.loads(line) for line in (options.work / "curve.jsonl").read_text("utf-8").splitlines()
    ]
    model, lines = load(options.model), corpus()
    found = {
        "parameters": sum(p.numel() for p in model.hf.parameters()),
        "layers": model.n_layers,
        "width": model.width,
        "fingerprint": model.fingerprint,
        "lines": len(lines),
        "bits_per_byte": held_out(model, held),
        "continuation": continuation(model, held),
        "translation": translation(model, lines),
        "curve": learning_curve(options.work, lines.split("dev")),
        "training": points[-1],
    }
    if not all(math.isfinite(value) for value in found["bits_per_byte"].values()):
        raise SystemExit("held-out bits per byte are not finite; the weights are broken")
    text = json.dumps(found, indent=1, ensure_ascii=False)
    (options.model / "evaluation.json").write_text(text, "utf-8")
    (options.model / "README.md").write_text(card(found, counts, points[-1]), "utf-8")
    print(card(found, counts, points[-1]))


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
