"""docs/vision.md: an edit that was fitted on text alone, on models that also see.

`python experiments/vision/vision_page.py` makes small models of seven shapes; three of them write with the
packaged model's weights, and caption a picture of noise beside a sentence, as they are and under edits. The
numbers go into recorded/, one file a shape, and are not made again; the page is written from them.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from captions import HOLDS, NEW_TOKENS, PARTS, captions, lengths, seeing
from shapes import IMAGE, SHAPES, made, own_text_model, picture

import steerlab as sl
from steerlab.analysis.intervals import by_sentence, paired_difference
from steerlab.analysis.tables import markdown, spelled
from steerlab.core.directions import Directions
from steerlab.core.files import read_json, write_json
from steerlab.edits import Edit
from steerlab.models.model import Model
from steerlab.scores.answer import Answer
from steerlab.scores.judges import Retrieval, score
from steerlab.scores.langid import identifier

RECORDED = Path(__file__).resolve().parent / "recorded"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "vision.md"
SOURCE = "en"
TARGETS = ("de", "fr", "es", "ru")
LAYERS, STRENGTHS = (2, 3, 4, 5), (1.0, 1.5)
LINES = {"dev": 12, "test": 30}
PICTURES = (5, 6)  # seeds of noise
# (what is shown, positions, the seed of the picture)
WAYS: tuple[tuple[str, str, int | None], ...] = (
    ("no picture", "all", None),
    ("a picture, the text edited", "all", PICTURES[0]),
    ("another picture, the text edited", "all", PICTURES[1]),
    ("a picture, text and picture edited", "all image", PICTURES[0]),
    ("a picture, the picture alone edited", "image", PICTURES[0]),
)
CONTROLS = WAYS[:2]


def answers_of(outputs: Sequence[str], target: str, split: str) -> list[Answer]:
    lines = sl.corpus().split(split)
    return [
        Answer(output, f"{line}\n", line, number, SOURCE, target)
        for output, line, number in zip(outputs, lines[SOURCE], lines.numbers, strict=False)
    ]


def judged(outputs: Mapping[str, Sequence[str]], split: str) -> pd.DataFrame:
    """A row for each output, by its target."""
    judge = Retrieval(sl.corpus().split(split))
    parts = []
    for target, texts in outputs.items():
        answers = answers_of(texts, target, split)
        columns = score(answers, identifier=identifier(), judge=judge)
        parts.append(
            pd.DataFrame(
                {
                    "target": target,
                    "sentence": [answer.sentence for answer in answers],
                    "output": texts,
                    "in_language": columns["in_language"],
                    "joint": columns["joint"],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def edits_of(
    directions: Directions, layer: int, strength: float, positions: str
) -> dict[str, Edit]:
    """By target."""
    return {
        target: sl.add(
            directions.at(layer).between(SOURCE, target), strength=strength, positions=positions
        )
        for target in TARGETS
    }


def said(
    model: Model, shape: str, split: str, edits: Mapping[str, Edit] | None, seed: int | None
) -> pd.DataFrame:
    """What the model says of the sentences of a split, under the edit to each target."""
    lines = list(sl.corpus().split(split)[SOURCE][: LINES[split]])
    if edits is None:
        plain = captions(model, shape, lines, seed=seed)
        return judged(dict.fromkeys(TARGETS, plain), split)
    return judged(
        {to: captions(model, shape, lines, edit, seed=seed) for to, edit in edits.items()}, split
    )


def steered(shape: str) -> dict[str, Any]:
    """A shape that writes with the packaged model's weights."""
    begun = time.process_time()
    model = seeing(shape)
    texts = sl.corpus().select([SOURCE, *TARGETS]).split("estimate")
    fitted = sl.diffmean(sl.collect(model, texts))
    methods = {
        "diffmean": fitted,
        "random": sl.controls.random(fitted, seed=0, source=SOURCE),
        "wrong": sl.controls.wrong(fitted, source=SOURCE, seed=0),
    }
    tables = {
        ("unsteered", way): said(model, shape, "test", None, seed) for way, _, seed in CONTROLS
    }
    chosen = {}
    for name, directions in methods.items():
        best = (-1.0, 0, 0.0)
        for layer in LAYERS:
            for strength in STRENGTHS:
                edits = edits_of(directions, layer, strength, "all")
                rows = said(model, shape, "dev", edits, None)
                best = max(best, (float(rows["joint"].mean()), -layer, -strength))
        layer, strength = -best[1], -best[2]
        chosen[name] = {"layer": layer, "strength": strength, "dev": best[0]}
        for way, positions, seed in WAYS if name == "diffmean" else CONTROLS:
            edits = edits_of(directions, layer, strength, positions)
            tables[name, way] = said(model, shape, "test", edits, seed)
    without = tables["diffmean", WAYS[0][0]]
    summary = []
    for (name, way), table in tables.items():
        row: dict[str, Any] = {"method": name, "way": way, "outputs": len(table)}
        for column in ("in_language", "joint"):
            values = table[column].to_numpy(float)
            row[column] = list(by_sentence(values, table["sentence"].to_numpy()))
        if name == "diffmean":
            row["less"] = list(
                paired_difference(
                    *(table["joint"].to_numpy(float), table["sentence"].to_numpy()),
                    *(without["joint"].to_numpy(float), without["sentence"].to_numpy()),
                )
            )
            row["same"] = float((table["output"] == without["output"]).mean())
        summary.append(row)
    shown = tables["diffmean", WAYS[1][0]]
    words, parts = lengths(model, shape)
    return {
        **parity(shape, model, sl.load()),
        "chosen": chosen,
        "rows": summary,
        "lengths": [words, parts],
        "lines": len(texts),
        "examples": shown.groupby("target").first()["output"].to_dict(),
        "question": sl.corpus().split("test")[SOURCE][0],
        "seconds": time.process_time() - begun,
    }


# ------------------------------------------------------------------------- what holds of every shape


def small(shape: str) -> dict[str, Any]:
    """A shape with random weights, from a folder, as a released model comes: PaliGemma's text part
    is told from an encoder by its files alone."""
    with TemporaryDirectory() as folder:
        made(shape).save_pretrained(folder)
        sl.load().tokenizer.save_pretrained(folder)
        model = sl.load(folder)
    return parity(shape, model, own_text_model(shape, model))


@torch.inference_mode()
def parity(shape: str, model: Model, alone: Model) -> dict[str, Any]:
    """On text, the largest difference of its logits from its own text model's; and how much of a
    step of an edit arrives at text, at a picture's parts and at BOS."""
    lines = list(sl.corpus().split("test")[SOURCE][:20])
    largest, scale = 0.0, 0.0
    for line in lines:
        ids = torch.tensor([model.tokenizer(line).input_ids])
        mask = torch.ones_like(ids, dtype=torch.bool)
        first, second = (each.forward(ids, mask)[0] for each in (model, alone))
        largest = max(largest, float((first - second).abs().max()))
        scale = max(scale, float(second.abs().max()))
    [start, *rest] = model.tokenizer(lines[0]).input_ids
    ids = torch.tensor([[start, *[IMAGE] * PARTS, *rest]])
    texts = sl.corpus().select([SOURCE, TARGETS[0]]).split("estimate").take(20)
    step = sl.diffmean(sl.collect(model, texts)).between(SOURCE, TARGETS[0]).at(1)

    def after(edit: Edit | None, seed: int) -> torch.Tensor:
        """What comes out of block 1, [pos width]."""
        found: list[torch.Tensor] = []

        def run() -> None:
            with model.attached([("resid_post", 1, lambda h, _: found.append(h[0].clone()))]):
                model.hf(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    **picture(shape, ids, seed=seed),
                )

        if edit is None:
            run()
        else:
            with edit.on(model):
                run()
        return found[0]

    plain, other = (after(None, seed) for seed in PICTURES)
    places = {
        "BOS": slice(0, 1),
        "picture": slice(1, 1 + PARTS),
        "text": slice(1 + PARTS, None),
    }
    moved: dict[str, dict[str, float]] = {}
    for positions in ("all", "image", "all image"):
        change = after(sl.add(step, strength=1.0, positions=positions), PICTURES[0]) - plain
        sizes = change.norm(dim=-1) / float(step.gap)
        moved[positions] = {name: float(sizes[where].mean()) for name, where in places.items()}
    return {
        "shape": shape,
        "class": type(model.hf).__name__,
        "polyglot": shape in HOLDS,
        "texts": len(lines),
        "largest": largest,
        "scale": scale,
        "moved": moved,
        "seen": float((plain - other)[places["text"]].abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--recorded", type=Path, default=RECORDED)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    given.recorded.mkdir(exist_ok=True)
    for shape in given.shapes:
        file = given.recorded / f"{shape}.json"
        if not file.exists():
            make: Callable[[str], dict[str, Any]] = steered if shape in HOLDS else small
            write_json(file, make(shape))
            print(f"{shape} is done", file=sys.stderr, flush=True)
    found = [given.recorded / f"{shape}.json" for shape in SHAPES]
    given.page.write_text(page([read_json(file) for file in found if file.exists()]), "utf-8")


# ------------------------------------------------------------------------------------- the page


def page(records: Sequence[Mapping[str, Any]]) -> str:
    holding = [record for record in records if record["polyglot"]]
    lines = [
        "# Models that also see",
        "",
        "Written by `python experiments/vision/vision_page.py`. steerlab reads and steers the part of a model of text and "
        "pictures that writes. Here is whether an edit that was fitted *on text alone* still steers when there is a picture in "
        "the prompt.",
        "",
        "**Nothing here is about seeing.** Every model is made in the script: its vision tower is random, its pictures are "
        f"noise, and a picture is {PARTS} vectors that mean nothing. What is shown is that such vectors in the prompt do or do not "
        "disturb an edit, and that edits reach the positions that they say. No released model of text and pictures was run.",
        "",
        "## Steering beside a picture",
        "",
        f"{_names(holding)} have a Llama for the part that writes, and hold the packaged model's weights exactly. The "
        "prompt is BOS, the picture, an English sentence and a line break; the model's own `generate` goes on for up to "
        f"{NEW_TOKENS} tokens. DiffMean is fitted on {holding[0]['lines'] if holding else 0} sentences of each language; its layer "
        f"({_one_of(LAYERS)}) and strength ({_one_of(STRENGTHS)}) are chosen by joint on {LINES['dev']} sentences × "
        f"{len(TARGETS)} targets ({', '.join(TARGETS)}) *without a picture*, as are those of the controls: a random direction, "
        f"and another target's. Reported on {LINES['test']} other sentences × {len(TARGETS)} targets, 95 % intervals over "
        "sentences. *less*: joint less joint without a picture, paired by sentence; *same*: outputs that are letter by letter "
        "those without a picture. A picture's parts are scaled to the length of words' vectors.",
        "",
    ]
    for record in holding:
        chosen = "; ".join(
            f"{name} at layer {one['layer']}, strength {one['strength']:g}"
            for name, one in record["chosen"].items()
        )
        lines += [
            f"### {record['shape']} ({record['class']})",
            "",
            f"Chosen: {chosen}.",
            "",
            markdown(_steering(record)),
            "",
            f"“{record['question']}” beside a picture: "
            + "; ".join(f"{to}: “{text}”" for to, text in record["examples"].items())
            + ".",
            "",
        ]
    lines += _reading(holding)
    lines += [
        "",
        "## Every shape: what its own text model says, and where an edit acts",
        "",
        "*largest*: the largest difference of a logit on text from the text model alone, of the same weights, beside the "
        "largest logit; how far an edit of one gap moves BOS, a picture's parts and text, in gaps, where it says `all`, "
        "`image`, and both; *seen*: how far another picture moves the text at the same layer, so that the picture is "
        "in the prompt indeed. Qwen, Gemma and PaliGemma have writers of other shapes, which cannot hold the packaged model's "
        "weights: theirs are random, and nothing is steered.",
        "",
        markdown(_parities(records)),
    ]
    return "\n".join(lines) + "\n"


def _names(records: Sequence[Mapping[str, Any]]) -> str:
    names = [record["shape"] for record in records]
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)


def _one_of(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _steering(record: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for row in record["rows"]:
        rows.append(
            {
                "method": row["method"],
                "prompt": row["way"] if row["method"] != "unsteered" else row["way"].split(",")[0],
                "in language": spelled(row["in_language"]),
                "joint": spelled(row["joint"]),
                "less": spelled(row["less"]) if "less" in row and row["same"] < 1 else "",
                "same": f"{row['same']:.2f}" if "same" in row and row["same"] < 1 else "",
                "outputs": row["outputs"],
            }
        )
    return pd.DataFrame(rows)


def row_of(record: Mapping[str, Any], method: str, way: str) -> Mapping[str, Any]:
    """A row of a shape's table."""
    found: Mapping[str, Any] = next(
        row for row in record["rows"] if (row["method"], row["way"]) == (method, way)
    )
    return found


def _reading(records: Sequence[Mapping[str, Any]]) -> list[str]:
    said = []
    for record in records:
        shown, whole, alone = (row_of(record, "diffmean", WAYS[index][0]) for index in (1, 3, 4))
        controls = [row_of(record, name, WAYS[1][0])["joint"][0] for name in ("random", "wrong")]
        bare = row_of(record, "diffmean", WAYS[0][0])
        plain, language = bare["joint"], bare["in_language"][0]
        asked = [row_of(record, "unsteered", way)["joint"][0] for way, *_ in CONTROLS]
        change = shown["less"]
        verdict = (
            "no difference is shown"
            if change[1] <= 0 <= change[2]
            else "less than without"
            if change[0] < 0
            else "more than without"
        )
        said.append(
            f"- {record['shape']}: in language {language:.2f} without a picture and {shown['in_language'][0]:.2f} beside one; "
            f"joint {plain[0]:.2f} without a picture and {shown['joint'][0]:.2f} beside one ({verdict}: "
            f"{spelled(change)}); with its parts edited too {whole['joint'][0]:.2f}; with these alone edited "
            f"{alone['joint'][0]:.2f}. As it is the model falls from {asked[0]:.2f} to {asked[1]:.2f}. Random {controls[0]:.2f}, another target's direction {controls[1]:.2f} beside a picture."
        )
    return said


def _parities(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    rows = []
    for record in records:
        row = {
            "shape": record["shape"],
            "writer": "the packaged model's weights" if record["polyglot"] else "random",
            "texts": record["texts"],
            "largest": f"{record['largest']:.1e} of {record['scale']:.1f}",
        }
        for positions, sizes in record["moved"].items():
            row[positions] = " ".join(f"{name} {size:.2f}" for name, size in sizes.items())
        rows.append(row | {"seen": f"{record['seen']:.2f}"})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
