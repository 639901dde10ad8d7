"""Directions that others released, read into `Directions` with what is known of their making."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import LANGUAGES, language
from steerlab.core.sites import SITES

KINDS = {"vector": "diffmean", "lda": "lda", "probe": "probe"}
MODELS = {"llama": "meta-llama/Llama-3.1-8B-Instruct", "aya": "CohereLabs/aya-expanse-8b"}
_SOURCE = "CLaS-Bench (Gurgurov et al. 2026, arXiv 2601.08331), released files, Apache-2.0"
_CORPUS = {"name": "CulturaX", "excluded": "BOS and special tokens", "read": "all tokens"}


def clas_bench(folder: str | Path, *, kind: str = "vector", model: str | None = None) -> Directions:
    """CLaS-Bench's released files `<kind>.<language>.<model>` of one kind, for every language that
    has one.

    `vector` holds language means: their differences are the paper's DiffMean. `lda` and `probe`
    hold a direction for each language against three others (ru, fr, zh or de in
    `provenance["negatives"]`), as released, not at unit length: the paper pushes along the target's
    own, which is `between(a, b).basis`, not the difference of two. Both need the languages'
    `vector` files beside them, since means give strength its unit. Files are read as tensors alone,
    and nothing in them is run. Layer k is the output of block k.
    """
    files = _released(Path(folder), kind, model)
    made, means, negatives, tokens = {}, {}, {}, {}
    for iso, file in files.items():
        beside = file.with_name(file.name.replace(kind, "vector", 1))
        if not beside.exists():
            raise SteerlabError(
                f"{file} needs {beside.name} beside it: its means give strength its unit"
            )
        held = _tensors(file)
        plain = _tensors(beside)
        made[iso], means[iso] = _vectors(held, file, kind), _vectors(plain, beside, "vector")
        tokens[iso] = int(plain.get("num_tokens", 0))
        negatives[iso] = list(held.get("negative_languages", []))
    names = [file.name for file in files.values()]
    others = [name.replace(kind, "vector", 1) for name in names]
    _alike([*zip(names, made.values(), strict=True), *zip(others, means.values(), strict=True)])
    vectors, plain_means = torch.stack([*made.values()]), torch.stack([*means.values()])
    own = vectors - vectors.mean(0) if kind == "vector" else vectors
    short = next(iter(files.values())).suffix[1:]
    return Directions(
        vectors=vectors,
        basis=(own / own.norm(dim=-1, keepdim=True).clamp(min=1e-30))[:, :, None],
        means=plain_means,
        langs=tuple(files),
        layers=tuple(range(vectors.shape[1])),
        site="resid_post",
        provenance={
            "estimator": KINDS[kind],
            "model": {"name": MODELS.get(short, short)},
            "corpus": {**_CORPUS, "tokens": tokens},
            "source": _SOURCE,
            "files": {
                file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files.values()
            },
            **({"negatives": negatives} if any(negatives.values()) else {}),
        },
    )


def language_means(file: str | Path) -> Directions:
    """A safetensors file of language means as DiffMean directions.

    It holds `means` [lang layer width] of any float type, and in its header `langs` (codes with
    commas between them), `model`, `site` (its first word), and whatever else is to be kept as
    provenance.
    """
    file = Path(file)
    try:
        with safe_open(file, framework="pt") as opened:
            header = dict(opened.metadata() or {})
            names = set(opened.keys())
            means = opened.get_tensor("means").float() if "means" in names else None
    except FileNotFoundError as error:
        raise SteerlabError(f"there is no file {file}") from error
    except (SafetensorError, OSError) as error:
        raise SteerlabError(
            f"{file} is truncated or no safetensors file ({error}); make it again"
        ) from error
    langs = tuple(word.strip() for word in header.pop("langs", "").split(",") if word.strip())
    if means is None or means.ndim != 3 or len(means) != len(langs):
        what = "none" if means is None else f"shape {tuple(means.shape)}"
        raise SteerlabError(
            f"{file} holds tensors {' '.join(sorted(names)) or '(none)'}, means of {what}, and "
            f"{len(langs)} languages "
            "in its header; a file of means holds `means` [lang layer width], with `langs` in the "
            "header"
        )
    for iso in langs:
        language(iso)
    site = next(iter(header.get("site", "resid_post").split()), "")
    if site not in SITES:
        raise SteerlabError(f"{file} says its site is {site!r}; the sites are {', '.join(SITES)}")
    header.pop("site", None)
    own = means - means.mean(0)
    return Directions(
        vectors=means,
        basis=(own / own.norm(dim=-1, keepdim=True).clamp(min=1e-30))[:, :, None],
        means=means,
        langs=langs,
        layers=tuple(range(means.shape[1])),
        site=site,
        provenance={
            "estimator": "diffmean",
            **header,
            "model": {"name": header.get("model", "unknown")},
        }
        | {"files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}},
    )


def _released(folder: Path, kind: str, model: str | None) -> dict[str, Path]:
    """The files of one kind and one model, by language in the order of their codes."""
    if kind not in KINDS:
        raise SteerlabError(
            f"CLaS-Bench files of kind {kind!r} are not known; the kinds are {', '.join(KINDS)}"
        )
    if not folder.is_dir():
        raise SteerlabError(
            f"there is no folder {folder}; give the one that holds files such as {kind}.de.llama"
        )
    parts = {file: file.name.split(".") for file in sorted(folder.iterdir()) if file.is_file()}
    ours = {file: words for file, words in parts.items() if len(words) == 3 and words[0] == kind}
    models = sorted({words[2] for words in ours.values()})
    if model is None and len(models) > 1:
        raise SteerlabError(
            f"{folder} holds {kind} files of {' and '.join(models)}; say which model"
        )
    files = {words[1]: file for file, words in ours.items() if model in (None, words[2])}
    if not files:
        kinds = {
            f"{words[0]}.*.{words[2]}"
            for words in parts.values()
            if len(words) == 3 and words[1] in LANGUAGES
        }
        there = ", ".join(sorted(kinds))
        raise SteerlabError(
            f"{folder} holds no {kind}.<language>.{model or '<model>'}; it has "
            f"{there or 'no such files'}: "
            f"give another folder, or one of the kinds {', '.join(KINDS)}"
        )
    for iso in files:
        language(iso)
    return files


def _tensors(file: Path) -> Mapping[str, Any]:
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SteerlabError(
            f"{file} is no whole file of tensors, so it was not read, and nothing in it was run "
            f"({why}); take the "
            "released file again"
        ) from error
    if not isinstance(held, Mapping):
        raise SteerlabError(
            f"{file} holds a {type(held).__name__}; CLaS-Bench's files hold a table of tensors"
        )
    return held


def _vectors(held: Mapping[str, Any], file: Path, kind: str) -> Tensor:
    """[layer width] in float32."""
    if kind == "probe":
        layers = held.get("probes", {})
        rows = (
            [layers[k].get("weight") for k in sorted(layers)] if isinstance(layers, Mapping) else []
        )
        sound = bool(rows) and sorted(layers) == list(range(len(rows))) and _same_rows(rows)
        found = torch.cat(rows) if sound else None
    else:
        found = held.get("steering_vectors")
    if not isinstance(found, Tensor) or found.ndim != 2 or not found.is_floating_point():
        wanted = (
            "probes: {layer: {weight [1 width]}}"
            if kind == "probe"
            else "steering_vectors [layer width]"
        )
        raise SteerlabError(
            f"{file} holds {', '.join(map(str, held)) or 'nothing'}, and no {wanted}; is it of "
            "another kind?"
        )
    return found.float()


def _same_rows(rows: list[Any]) -> bool:
    return all(
        isinstance(row, Tensor) and row.ndim == 2 and row.shape == (1, rows[0].shape[1])
        for row in rows
    )


def _alike(vectors: Sequence[tuple[str, Tensor]]) -> None:
    first, shape = vectors[0][0], tuple(vectors[0][1].shape)
    for name, vector in vectors:
        if tuple(vector.shape) != shape:
            raise SteerlabError(
                f"{name} is {vector.shape[0]} layers x {vector.shape[1]} wide, but {first} is "
                f"{shape[0]} x {shape[1]}; "
                "one import reads the files of one model"
            )
