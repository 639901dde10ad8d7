"""Directions that others released, read into `Directions` with what is known of how they were made.

Files are read as tensors alone: nothing in them is run.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError, first_line_of
from steerlab.core.languages import is_language, language
from steerlab.core.sites import SITES
from steerlab.core.tensors import need_file, read_safetensors, whole_in

# CLaS-Bench's kinds of files and what the estimators are called here.
KINDS = {"vector": "diffmean", "lda": "lda", "probe": "probe"}
# CLaS-Bench's short names of models, which end its file names.
MODELS = {"llama": "meta-llama/Llama-3.1-8B-Instruct", "aya": "CohereLabs/aya-expanse-8b"}
_SOURCE = "CLaS-Bench (Gurgurov et al. 2026, arXiv 2601.08331), released files, Apache-2.0"
_CORPUS = {"name": "CulturaX", "excluded": "BOS and special tokens", "read": "all tokens"}


def clas_bench(folder: str | Path, *, kind: str = "vector", model: str | None = None) -> Directions:
    """Read CLaS-Bench's released files of one kind, `<kind>.<language>.<model>`, for every language
    that has one.

    Files of kind `vector` hold language means: their differences are the paper's DiffMean. Files of
    the other kinds hold a direction for each language against three others (in
    `provenance["negatives"]`), as released, not at unit length: the paper pushes along the target's
    own, which is `between(a, b).basis`, not along the difference of two. They need the languages'
    `vector` files beside them, since means give strength its unit. Layer k is the output of
    block k.

    Args:
        folder: where the files are.
        kind: "vector", "lda" or "probe".
        model: the short name that ends the file names, such as "llama"; needed where the folder
            holds files of several models.
    """
    files = _released_files(Path(folder), kind, model)
    vectors: dict[str, Tensor] = {}
    means: dict[str, Tensor] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    negatives: dict[str, list[str]] = {}
    tokens: dict[str, int] = {}
    for lang, file in files.items():
        mean_file = file.with_name(_mean_name(file, kind))
        if not mean_file.exists():
            raise SteerlabError(
                f"{file} needs {mean_file.name} beside it: its means give strength its unit"
            )
        content = _tensors(file)
        mean_content = _tensors(mean_file)
        vectors[lang] = _vectors(content, file, kind)
        means[lang] = _vectors(mean_content, mean_file, "vector")
        counted = mean_content.get("num_tokens", 0)
        tokens[lang] = whole_in(counted, f"num_tokens in {mean_file}", least=0)
        others = content.get("negative_languages", [])
        if not isinstance(others, list | tuple) or not all(isinstance(one, str) for one in others):
            raise SteerlabError(
                f"negative_languages in {file} is {repr(others)[:60]}; it has to be a list of codes"
            )
        negatives[lang] = list(others)
    for lang, file in files.items():
        shapes[file.name] = tuple(vectors[lang].shape)
    for lang, file in files.items():
        shapes[_mean_name(file, kind)] = tuple(means[lang].shape)
    _need_one_shape(shapes)
    stacked = torch.stack([*vectors.values()])
    # Means hold what all languages share; directions that were fitted against others do not.
    own = stacked - stacked.mean(0) if kind == "vector" else stacked
    short = next(iter(files.values())).suffix[1:]
    provenance: dict[str, Any] = {
        "estimator": KINDS[kind],
        "model": {"name": MODELS.get(short, short)},
        "corpus": {**_CORPUS, "tokens": tokens},
        "source": _SOURCE,
        "files": {file.name: _sha256(file) for file in files.values()},
    }
    if any(negatives.values()):
        provenance["negatives"] = negatives
    return Directions(
        vectors=stacked,
        basis=_unit_rows(own),
        means=torch.stack([*means.values()]),
        langs=tuple(files),
        layers=tuple(range(stacked.shape[1])),
        site="resid_post",
        provenance=provenance,
    )


def language_means(file: str | Path) -> Directions:
    """Read a safetensors file of language means as DiffMean directions.

    It holds `means` [lang layer width] of any float type, and in its header `langs` (codes with
    commas between them), `model`, `site` (its first word), and whatever else is to be kept as
    provenance.
    """
    file = Path(file)
    header, names, means = _read_means(file)
    langs = tuple(word.strip() for word in header.pop("langs", "").split(",") if word.strip())
    if means is None or means.ndim != 3 or len(means) != len(langs):
        shape = "none" if means is None else f"shape {tuple(means.shape)}"
        raise SteerlabError(
            f"{file} holds tensors {' '.join(sorted(names)) or '(none)'}, means of {shape}, and "
            f"{len(langs)} languages in its header; a file of means holds `means` "
            "[lang layer width], with `langs` in the header"
        )
    for lang in langs:
        language(lang)  # raises where there is no such code
    # Remarks may follow the site's name in the header.
    site = next(iter(header.pop("site", "resid_post").split()), "")
    if site not in SITES:
        raise SteerlabError(f"{file} says its site is {site!r}; the sites are {', '.join(SITES)}")
    return Directions(
        vectors=means,
        basis=_unit_rows(means - means.mean(0)),
        means=means,
        langs=langs,
        layers=tuple(range(means.shape[1])),
        site=site,
        provenance={
            "estimator": "diffmean",
            **header,
            "model": {"name": header.get("model", "unknown")},
            "files": {file.name: _sha256(file)},
        },
    )


def _read_means(file: Path) -> tuple[dict[str, str], set[str], Tensor | None]:
    """(header, names of the tensors, the tensor `means` in float32 or None) of a safetensors
    file."""
    tensors, header = read_safetensors(file, again="make it again")
    means = tensors.get("means")
    if means is not None and not (means.is_floating_point() and torch.isfinite(means).all()):
        raise SteerlabError(f"means in {file} are no finite numbers of floating point")
    return header, set(tensors), None if means is None else means.float()


def _released_files(folder: Path, kind: str, model: str | None) -> dict[str, Path]:
    """The files of one kind and one model by language, in the order of their codes."""
    if kind not in KINDS:
        raise SteerlabError(
            f"CLaS-Bench files of kind {kind!r} are not known; the kinds are {', '.join(KINDS)}"
        )
    if not folder.is_dir():
        raise SteerlabError(
            f"there is no folder {folder}; give the one that holds files such as {kind}.de.llama"
        )
    # Names are <kind>.<language>.<model>; other files may lie beside them.
    named: dict[Path, tuple[str, str, str]] = {}
    for file in sorted(folder.iterdir()):
        words = file.name.split(".")
        if file.is_file() and len(words) == 3:
            named[file] = (words[0], words[1], words[2])
    of_kind = {file: words for file, words in named.items() if words[0] == kind}
    models = sorted({short for _, _, short in of_kind.values()})
    if model is None and len(models) > 1:
        raise SteerlabError(
            f"{folder} holds {kind} files of {' and '.join(models)}; say which model"
        )
    files = {lang: file for file, (_, lang, short) in of_kind.items() if model in (None, short)}
    if not files:
        available = {
            f"{other}.*.{short}" for other, lang, short in named.values() if is_language(lang)
        }
        raise SteerlabError(
            f"{folder} holds no {kind}.<language>.{model or '<model>'}; it has "
            f"{', '.join(sorted(available)) or 'no such files'}: "
            f"give another folder, or one of the kinds {', '.join(KINDS)}"
        )
    for lang in files:
        language(lang)  # raises where there is no such code
    return files


def _mean_name(file: Path, kind: str) -> str:
    """The name of the file of means that belongs to a file of this kind."""
    return file.name.replace(kind, "vector", 1)


def _tensors(file: Path) -> Mapping[str, Any]:
    """What a file of PyTorch holds, if that is tensors in a table."""
    need_file(file)
    try:
        # `weights_only` refuses to unpickle anything that could run.
        content = torch.load(file, map_location="cpu", weights_only=True)
    # A pickle in an archive: what a damaged one raises has no class in common.
    except Exception as error:
        reason = first_line_of(error)
        raise SteerlabError(
            f"{file} is no whole file of tensors, so it was not read, and nothing in it was run "
            f"({reason}); take the released file again"
        ) from error
    if not isinstance(content, Mapping):
        raise SteerlabError(
            f"{file} holds a {type(content).__name__}; CLaS-Bench's files hold a table of tensors"
        )
    return content


def _vectors(content: Mapping[str, Any], file: Path, kind: str) -> Float[Tensor, "layer width"]:
    """A file's vectors in float32; raises where it holds none of this kind."""
    if kind == "probe":
        vectors = _probe_weights(content.get("probes", {}))
        expected = "probes: {layer: {weight [1 width]}}"
    else:
        vectors = content.get("steering_vectors")
        expected = "steering_vectors [layer width]"
    if not isinstance(vectors, Tensor) or vectors.ndim != 2 or not vectors.is_floating_point():
        raise SteerlabError(
            f"{file} holds {', '.join(map(str, content)) or 'nothing'}, and no {expected}; is it "
            "of another kind?"
        )
    if not torch.isfinite(vectors).all():
        raise SteerlabError(f"the vectors in {file} hold NaN or infinity; take the released file")
    return vectors.float()


def _probe_weights(probes: Any) -> Tensor | None:
    """The probes' weights [layer width]; None unless there is one of every layer, of one width."""
    if not isinstance(probes, Mapping) or not probes:
        return None
    if set(probes) != set(range(len(probes))):
        return None
    if not all(isinstance(probe, Mapping) for probe in probes.values()):
        return None
    rows = [probes[layer].get("weight") for layer in sorted(probes)]
    if not _are_rows_of_one_width(rows):
        return None
    return torch.cat(rows)


def _are_rows_of_one_width(rows: list[Any]) -> bool:
    if not all(isinstance(row, Tensor) and row.ndim == 2 for row in rows):
        return False
    return all(row.shape == (1, rows[0].shape[1]) for row in rows)


def _need_one_shape(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise unless all files, by name, hold as many layers of the same width."""
    first_name, first = next(iter(shapes.items()))
    for name, shape in shapes.items():
        if shape != first:
            raise SteerlabError(
                f"{name} is {shape[0]} layers x {shape[1]} wide, but {first_name} is "
                f"{first[0]} x {first[1]}; one import reads the files of one model"
            )


def _unit_rows(vectors: Float[Tensor, "lang layer width"]) -> Float[Tensor, "lang layer 1 width"]:
    """Each vector at unit length, as a basis of one row; a zero vector stays zero."""
    length = vectors.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    return rearrange(vectors / length, "lang layer width -> lang layer 1 width")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
