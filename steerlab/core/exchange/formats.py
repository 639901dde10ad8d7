"""Which files can be written and read, and what each can say."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.exchange import arrays, gguf, json_files
from steerlab.core.exchange.vectors import Vectors, directions_of, vectors_of
from steerlab.core.files import explained, need_ending, need_target, read_config, replacing
from steerlab.core.targets import checksum
from steerlab.core.tensors import need_file

LAYERS = "layers.{block}"  # inside the base model of Llama's kind, which most models are of


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Args:
        name: what `format=` calls it.
        ending: of its files; the first format with an ending is the one that it means.
        readers: which tools read it.
        write: writes vectors; it may look at the pattern of the blocks' names.
        read: reads them.
        blocks: which blocks it can name.
        positions: at which positions its readers add the vectors.
        says_origin: whether the file itself says what made it; else a file beside it does.
    """

    name: str
    ending: str
    readers: str
    write: Callable[[Path, Vectors, str], None]
    read: Callable[[Path], Vectors]
    blocks: str = "any"
    positions: str = "all, the first token too"
    says_origin: bool = False


FORMATS = (
    Format(
        "gguf", ".gguf", "llama.cpp, repeng", gguf.write, gguf.read, blocks="1 and up",
        says_origin=True,
    ),
    Format("svec", ".svec", "activation-steering", json_files.write_svec, json_files.read_svec),
    Format(
        "npz", ".npz", "NumPy", arrays.write_npz, arrays.read_npz, positions="as you do it",
        says_origin=True,
    ),
    Format(
        "pt", ".pt", "PyTorch", arrays.write_pt, arrays.read_pt, positions="as you do it",
        says_origin=True,
    ),
    Format(
        "steering-vectors", ".pt", "steering-vectors", arrays.write_steering_vectors,
        arrays.read_pt, positions="all from `min_token_index`",
    ),
    Format("lm-eval", ".pt", "lm-evaluation-harness", arrays.write_lm_eval, arrays.read_pt),
    Format(
        "neuronpedia", ".json", "Neuronpedia", json_files.write_neuronpedia,
        json_files.read_neuronpedia, blocks="one a file", positions="as asked there",
    ),
)  # fmt: skip


def export(
    direction: Any,  # a Direction, or what was given in its place
    file: str | Path,
    *,
    strength: float = 1.0,
    format: str | None = None,
    modules: str = LAYERS,
    force: bool = False,
) -> Path:
    """Write what `add(direction, strength)` adds, as a file that another tool reads.

    A file with room for it says what made it; beside another kind lies `<file>.json`, which does.
    Other tools add it at every position, the first one too, where steerlab leaves BOS alone:
    `add(..., positions="everywhere")` is the same there. Raises `SteerlabError` for what a format
    cannot say: block 0 in GGUF, which llama.cpp refuses; several blocks in one file of Neuronpedia.

    Args:
        direction: of `resid_post` or `resid_pre`, at the layers that are to be steered.
        file: its ending decides the format: .gguf, .svec, .npz, .pt or .json.
        strength: in natural gaps; it is multiplied in.
        format: a name in `exchange.FORMATS`, where the ending does not say enough:
            "steering-vectors" or "lm-eval" for .pt.
        modules: what the blocks are called inside transformers' base model, with {block}
            ("h.{block}" of GPT-2): only lm-eval's file has their names.
        force: replace a file that steerlab did not write.
    """
    file = Path(file)
    kind = _format(file, format)
    vectors = vectors_of(direction, strength)
    if "{block}" not in modules:
        raise SteerlabError(f"modules is {modules!r}; give a name with {{block}} in it: {LAYERS}")
    if kind.name == "gguf" and 0 in vectors.by_block:
        raise SteerlabError(
            "llama.cpp refuses a control vector with block 0; leave layer 0 out with .at, or "
            "take another format"
        )
    if kind.name == "neuronpedia" and len(vectors.by_block) > 1:
        raise SteerlabError(
            "a vector of Neuronpedia is of one block, and the direction has "
            f"{len(vectors.by_block)} layers; take one with .at"
        )
    beside = [] if kind.says_origin else [file.with_name(file.name + ".json")]
    for each in (file, *beside):
        need_target(each, each.suffix, force=force)
    with explained(file), replacing(file, *beside, force=force) as fresh:
        kind.write(fresh[0], vectors, modules)
        if beside:
            said = {
                "steerlab": dict(vectors.about),
                "file": file.name,
                "format": kind.name,
                # By which the file is known as steerlab's when it is written again.
                "sha256": checksum(fresh[0].read_bytes()),
            }
            fresh[1].write_text(json.dumps(said, indent=1), "utf-8")
    return file


def read(file: Any, *, format: str | None = None) -> Directions:
    """`Directions` of another tool's file of vectors, with two ends: "off", and what the file says
    or "on".

    `between("off", "on")`, or the target that the file says instead of "on", is the file's vectors:
    `add` of it at strength 1 adds them as they are.
    Only that has a meaning for operators: a file says nothing of where activations lie, so that the
    means are 0 and the vectors. A .safetensors file is one of steerlab's own. Nothing in a file is
    run: .pt is read as tensors alone.

    Args:
        file: .gguf, .svec, .npz, .pt, .json or .safetensors; or an object of steering-vectors or of
            repeng that is in memory.
        format: a name in `exchange.FORMATS`, where the ending does not say enough.
    """
    if not isinstance(file, str | Path):
        return directions_of(arrays.of_object(file), type(file).__name__, "an object in memory")
    file = Path(file)
    if file.suffix == ".safetensors":
        return Directions.load(file)
    kind = _format(file, format, done="read")
    need_file(file)
    try:
        vectors = kind.read(file)
        beside = file.with_name(file.name + ".json")
        if not vectors.about and beside.is_file():
            origin = read_config(beside).get("steerlab")
            vectors = Vectors(
                vectors.by_block, origin if isinstance(origin, Mapping) else {}, vectors.model
            )
        return directions_of(vectors, file.name, kind.name)
    except SteerlabError as error:
        raise SteerlabError(f"{file}: {error}; give a file of the format {kind.name}") from error


def _format(file: Path, name: str | None, *, done: str = "written") -> Format:
    """The format of a name, or of a file's ending; `done` is what is to happen to the file."""
    endings = list(dict.fromkeys(kind.ending for kind in FORMATS))
    if name is None:
        need_ending(file, *endings, *([".safetensors"] if done == "read" else []), done=done)
        return next(kind for kind in FORMATS if kind.ending == file.suffix)
    for kind in FORMATS:
        if kind.name == name:
            need_ending(file, kind.ending, done=done)
            return kind
    raise SteerlabError(
        f"there is no format {name!r}; there are {', '.join(kind.name for kind in FORMATS)}"
    )


def table() -> list[dict[str, Any]]:
    """What each format can say, a row each."""
    return [
        {
            "format": kind.name,
            "ending": kind.ending,
            "read by": kind.readers,
            "blocks": kind.blocks,
            "positions": kind.positions,
            "says what made it": "yes" if kind.says_origin else "in a file beside it",
        }
        for kind in FORMATS
    ]
