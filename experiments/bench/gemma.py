"""What a real vocabulary and width cost: reading and a steered sweep on Gemma 3 270M in bfloat16.

It needs the extra `steerlab[models]`, whose weights come under the Gemma Terms of Use, and is run
only when it is asked for: `make bench ARGS="--only gemma"`. Each figure is a ratio of what is done
in turns in one warm process. Both clocks are shown: CPU time says what the work is also where other
processes share the cores.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from environments import BUILD, NotMeasured, python_of
from measures import ratio, spread
from safetensors.torch import save_file
from workers import Worker

import steerlab as sl
import steerlab.engine.prefix as prefix
from steerlab.core.corpus import Corpus
from steerlab.engine.decoding import decode
from steerlab.engine.forward import read
from steerlab.engine.inputs import tokens_of
from steerlab.engine.prompts import encode, pad, prompt
from steerlab.engine.shots import shots
from steerlab.models.model import Model

LANGS = ("en", "de", "es", "fr", "ru", "ja")
LINES = 16  # of each language that are read: 96 short lines in all
FORM, NEW = "echo:5", 24
LAYERS, STRENGTHS, SENTENCES = (4, 8, 12, 16), (0.5, 0.75, 1.0), 8
CLOCKS = {"CPU": time.process_time, "wall": time.perf_counter}

Action = Callable[[], Any]


def measure(*, quick: bool) -> dict[str, Any]:
    model = sl.load("gemma-3-270m", dtype="auto")
    rounds, layers = (2, LAYERS[1:3]) if quick else (5, LAYERS)
    tables = [
        {"title": "Reading 96 short lines: times a bare pass", "rows": _reading(model, rounds)},
        {"title": f"A sweep with {FORM}: times steerlab", "rows": _sweep(model, rounds, layers)},
    ]
    more, why = _beside_nnsight(model, rounds, layers, make=not quick)
    tables += more
    notes = [
        *why,
        "Bare: the blocks alone, without logits, over the same lines in the same batches of "
        f"{LINES} lines of a language. The aims are 1.1 for means and 1.3 with pooled scatter.",
        f"The sweep: one vector at each of the layers {', '.join(map(str, layers))} and strengths "
        f"{', '.join(map(str, STRENGTHS))}, {SENTENCES} sentences, at most {NEW} new tokens, until "
        "the first line break. Each row whole: steerlab without running the examples once for each "
        "edit; rows that differ are counted from its outputs, those of its own in batches of 16 beside them. "
        "A loop over cells: Hugging Face's `generate` with a plain hook, all sentences of a "
        "cell in a batch, to the longest row's end.",
        f"Weights: {model.metadata['gguf'][:16]}, {model.metadata['dtype']}.",
    ]
    return {"tables": tables, "notes": notes}


def _reading(model: Model, rounds: int) -> list[dict[str, Any]]:
    corpus = sl.corpus(langs=LANGS).split("estimate").take(LINES)
    ids = {lang: tokens_of(model, lang, corpus[lang], "line") for lang in LANGS}

    @torch.inference_mode()
    def bare() -> None:
        for of_lang in ids.values():
            read(model, of_lang, [])

    return _compared(
        {
            "bare": bare,
            "means": lambda: sl.collect(model, corpus, also=[]),
            "means and pooled scatter": lambda: sl.collect(model, corpus, also=["scatter"]),
        },
        rounds,
    )


def _sweep(model: Model, rounds: int, layers: tuple[int, ...]) -> list[dict[str, Any]]:
    texts = sl.corpus(langs=["en", "de"])
    prompts = _prompts(model, texts)
    cells = _cells(model, texts, layers)
    edits = [sl.add(direction, strength=strength) for direction, strength in cells]
    rows = [text for text in prompts for _ in edits]
    stacked = sl.stack(edits * len(prompts))

    def ours(batch: int | None = None) -> list[str]:
        return decode(model, rows, edit=stacked, max_new_tokens=NEW, batch=batch).texts

    def whole(batch: int | None = None) -> list[str]:
        with _each_row_whole():
            return ours(batch)

    expected = whole()
    differing = [
        sum(one != two for one, two in zip(said, expected, strict=True))
        for said in (ours(), whole(16))
    ]
    table = _compared(
        {
            "steerlab": ours,
            "each row whole": whole,
            "loop over cells": _loop(model, prompts, cells),
        },
        rounds,
    )
    # From those of each row whole, beside what batches of another size do: ties of rounding.
    for row, count in zip(table, differing, strict=False):
        row["rows that differ"] = f"{count} of {len(rows)}"
    table[1]["rows that differ"] += " in batches of 16"
    return table


def _prompts(model: Model, texts: Corpus) -> list[str]:
    given = shots(texts, FORM, "en", "de")
    lines = texts.split("dev").take(SENTENCES)["en"]
    return [prompt(model.tokenizer, FORM, line, shots=given) for line in lines]


def _cells(model: Model, texts: Corpus, layers: tuple[int, ...]) -> list[tuple[Any, float]]:
    directions = sl.diffmean(sl.collect(model, texts.split("estimate").take(24), also=[]))
    between = directions.between("en", "de")
    return [(between.at(layer), strength) for layer in layers for strength in STRENGTHS]


def _beside_nnsight(
    model: Model, rounds: int, layers: tuple[int, ...], *, make: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """The same sweep by nnsight, one `invoke` a cell and all cells in one call: a table and notes;
    no table where it cannot be set up.

    It runs in a process of its own, in whose turn this one waits.
    """
    try:
        python = python_of("nnsight", make=make)
    except NotMeasured as error:
        return [], [f"nnsight was not measured: {error}"]
    texts = sl.corpus(langs=["en", "de"])
    prompts, cells = _prompts(model, texts), _cells(model, texts, layers)
    edits = [sl.add(direction, strength=strength) for direction, strength in cells]
    stacked = sl.stack(edits * len(prompts))
    rows = [text for text in prompts for _ in edits]
    file = BUILD / "gemma.safetensors"
    _write(file, model, prompts, cells)
    numbers = list(range(len(cells)))
    taken: dict[str, dict[str, list[float]]] = {
        name: {clock: [] for clock in CLOCKS} for name in ("steerlab", "nnsight")
    }
    with Worker("nnsight", python, file) as worker:
        for number in range(rounds + 1):  # the first to warm up
            starts = {clock: now() for clock, now in CLOCKS.items()}
            ours = decode(model, rows, edit=stacked, max_new_tokens=NEW).texts
            spent = {clock: now() - starts[clock] for clock, now in CLOCKS.items()}
            made = worker.run(numbers, rows=len(rows), natural=True)
            if number:
                theirs = {"CPU": made["cpu seconds"], "wall": made["seconds"]}
                for clock in CLOCKS:
                    taken["steerlab"][clock].append(spent[clock])
                    taken["nnsight"][clock].append(theirs[clock])
        versions = worker.versions
    table = _ratios(taken)
    table[1]["rows that differ"] = (
        f"{_differing(model, ours, made['tokens'], cells)} of {len(rows)}"
    )
    note = (
        f"nnsight {versions['nnsight']} with transformers {versions['transformers']}: "
        "`model.generate` with one `tracer.invoke` a cell, all cells in one call, an in-place edit "
        "of the block's output in `tracer.iter`, in the same dtype and until the first line break "
        "of the longest row."
    )
    title = f"The same sweep by nnsight with an invoke a cell: times steerlab ({len(cells)} cells)"
    return [{"title": title, "rows": table}], [note]


def _differing(
    model: Model, ours: Sequence[str], tokens: Sequence[Sequence[int]], cells: Sequence[Any]
) -> int:
    """How many rows' first lines are not the same; nnsight's come cell by cell, ours prompt by
    prompt."""
    theirs = model.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    sentences = len(ours) // len(cells)
    count = 0
    for number, text in enumerate(ours):
        sentence, cell = divmod(number, len(cells))
        other = theirs[cell * sentences + sentence]
        count += text.strip().split("\n")[0] != other.strip().split("\n")[0]
    return count


def _write(
    file: Path, model: Model, prompts: Sequence[str], cells: Sequence[tuple[Any, float]]
) -> None:
    """What a worker reads (`shared._write`), each cell as a layer of its own with one vector."""
    ids, mask = pad(encode(model.tokenizer, prompts), model.tokenizer.pad_token_id, model.device)
    texts = model.tokenizer.batch_decode([[token] for token in range(model.vocabulary)])
    unit = torch.stack([direction.unit[0] for direction, _ in cells])[:, None]
    gap = torch.stack([strength * direction.gap[0] for direction, strength in cells])[:, None]
    tensors = {
        "ids": ids,
        "mask": mask,
        "unit": unit,
        "gap": gap,
        "shift": (gap[..., None] * unit)[:, :, None],
        "breaks": torch.tensor(["\n" in text for text in texts]),
        "blank": torch.tensor([not text.strip() for text in texts]),
    }
    told = {
        "folder": str(model.hf.config._name_or_path),
        "layers": [direction.layers[0] for direction, _ in cells],
        "strengths": [1.0],
        "prompts": list(prompts),
        "new_tokens": NEW,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    tokens = {name: getattr(model.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        file,
        metadata={"about": json.dumps(told | tokens)},
    )


def _loop(model: Model, prompts: list[str], cells: list[tuple[Any, float]]) -> Action:
    """`generate` for each cell, with a hook on its block that adds the vector."""
    ids, mask = pad(encode(model.tokenizer, prompts), model.tokenizer.pad_token_id, model.device)
    texts = model.tokenizer.batch_decode([[token] for token in range(model.vocabulary)])
    breaks = torch.tensor(["\n" in text for text in texts])
    options = {
        "max_new_tokens": NEW,
        "do_sample": False,
        "pad_token_id": model.tokenizer.pad_token_id,
        "stopping_criteria": [lambda rows, _: breaks[rows[:, -1]]],  # of each row, as ours
    }

    @torch.inference_mode()
    def loop() -> None:
        for direction, strength in cells:
            vector = (strength * direction.gap[0] * direction.unit[0]).to(model.dtype)

            def steer(_: Any, __: Any, out: Any, vector: torch.Tensor = vector) -> Any:
                return (out[0] + vector, *out[1:]) if isinstance(out, tuple) else out + vector

            handle = model.blocks[direction.layers[0]].register_forward_hook(steer)
            try:
                model.hf.generate(input_ids=ids, attention_mask=mask.long(), **options)
            finally:
                handle.remove()

    return loop


@contextmanager
def _each_row_whole() -> Iterator[None]:
    before = prefix.pays
    prefix.pays = lambda ids, depth, kinds, end: 0
    try:
        yield
    finally:
        prefix.pays = before


def _compared(actions: Mapping[str, Action], rounds: int) -> list[dict[str, Any]]:
    """The first action's seconds, and how many times as long each one takes, by both clocks."""
    taken: dict[str, dict[str, list[float]]] = {
        name: {clock: [] for clock in CLOCKS} for name in actions
    }
    for number in range(rounds + 1):  # the first to warm up: pages of weights, kernels of shapes
        for name, action in actions.items():
            starts = {clock: now() for clock, now in CLOCKS.items()}
            action()
            for clock, now in CLOCKS.items():
                if number:
                    taken[name][clock].append(now() - starts[clock])
    return _ratios(taken)


def _ratios(taken: Mapping[str, Mapping[str, list[float]]]) -> list[dict[str, Any]]:
    """The seconds of the first, and how many times as long each one takes, by both clocks."""
    base = taken[next(iter(taken))]
    return [
        {"what": name, "CPU s": spread(of["CPU"])}
        | {f"times, {clock}": ratio(of[clock], base[clock]) for clock in CLOCKS}
        for name, of in taken.items()
    ]
