"""Models in GGUF files: unpacked to bfloat16 once, into the user's cache, and read from there.

A GGUF holds packed weights, which nothing here could read or edit. Unpacked it is an ordinary
folder of Hugging Face, of two bytes a parameter.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from steerlab.core.cache import cache_folder, made_once
from steerlab.core.errors import SteerlabError
from steerlab.core.files import write_json

ENDING = ".gguf"
INSTALL = "pip install 'steerlab[models]'"
_MAGIC = b"GGUF"
_BLOCK = 1 << 22  # bytes that are read at a time
_WORD = re.compile("[A-Za-z]{4,12}")
_TRIED, _WHOLE = 200, 0.5  # words of a vocabulary; the share that has to stay whole


@dataclass(frozen=True)
class Unpacked:
    """A folder of Hugging Face, and the SHA-256 of the GGUF file that it was made of."""

    folder: Path
    sha256: str


def unpacked(file: Path) -> Unpacked:
    """The folder of a GGUF file, made at its first use and found again by the file's hash.

    Raises `SteerlabError` for a file that is not there, no GGUF, damaged, or of an architecture
    that transformers does not read.
    """
    if not file.is_file():
        raise SteerlabError(f"there is no file {file}; give a model's {ENDING} file")
    with file.open("rb") as opened:
        if opened.read(len(_MAGIC)) != _MAGIC:
            raise SteerlabError(
                f"{file} is no GGUF file, whatever its name says: it does not begin with GGUF; "
                "fetch it again"
            )
    digest = sha256_of([file])
    folder = folder_of(file.stem, digest)
    return Unpacked(made_once(folder, lambda fresh: unpack(file, fresh, digest)), digest)


def folder_of(stem: str, sha256: str) -> Path:
    """Where a GGUF file of this hash is unpacked; the name, without its ending, is for people."""
    return cache_folder() / "models" / f"{stem}-{sha256[:16]}"


def sha256_of(files: Sequence[Path]) -> str:
    """SHA-256 of files one behind the other."""
    digest = hashlib.sha256()
    for block in blocks_of(files):
        digest.update(block)
    return digest.hexdigest()


def blocks_of(files: Iterable[Path]) -> Iterator[bytes]:
    """The bytes of files one behind the other, some at a time."""
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                yield block


def unpack(file: Path, folder: Path, sha256: str) -> None:
    """Write what a GGUF file holds as a folder of Hugging Face: weights in bfloat16, the
    configuration and the tokenizer.

    Args:
        file: the GGUF file.
        folder: an empty one.
        sha256: of the file, for `gguf.json`.
    """
    model, tokenizer = _read(file)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    made_by = {package: _version(package) for package in ("gguf", "transformers")}
    write_json(folder / "gguf.json", {"file": file.name, "sha256": sha256, "made by": made_by})


def _read(file: Path) -> tuple[Any, Any]:
    """A model in bfloat16 and its tokenizer out of a GGUF file; what cannot be read raises."""
    import transformers  # here, as importing it takes seconds
    from transformers.utils.import_utils import is_gguf_available

    if not is_gguf_available():
        raise SteerlabError(
            f"{file.name} needs the package gguf to be read, which is not installed; run: {INSTALL}"
        )
    transformers.utils.logging.disable_progress_bar()
    make: Any = transformers.AutoModelForCausalLM.from_pretrained
    options: dict[str, Any] = {
        "gguf_file": file.name,
        "dtype": torch.bfloat16,
        # Some architectures would else stay packed where there are kernels for it.
        "quantization_config": transformers.GgufConfig(dequantize=True),
        "output_loading_info": True,
    }
    try:
        # Once: a large vocabulary takes the reader seconds each time.
        config = transformers.AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        packed, info = make(file.parent, config=config, **options)
        read = transformers.AutoTokenizer.from_pretrained(
            file.parent, gguf_file=file.name, config=config
        )
    # Whatever a parser stumbles over in a damaged file: a struct, an index, a shape, no memory.
    except Exception as error:
        raise SteerlabError(_why_not(file, error)) from error
    if missing := info["missing_keys"]:
        raise SteerlabError(f"{file} has no weights for {min(missing)}; fetch it again")
    tokenizer = _as_it_is(read)
    need_own_words(tokenizer, file)
    return _plain(packed), tokenizer


def need_own_words(tokenizer: Any, file: Path) -> None:
    """Raise where a tokenizer takes the words of its own vocabulary to pieces.

    transformers before 5.23 read the tokenizer of Gemma's file as one of another kind, silently:
    the model then says 12 nats a token where it says 4.
    """
    words = sorted(piece for piece in tokenizer.get_vocab() if _WORD.fullmatch(piece.lstrip("▁Ġ")))
    tried = words[:: max(1, len(words) // _TRIED)]
    whole = 0
    for word in tried:
        text = word.replace("▁", " ").replace("Ġ", " ")
        whole += tokenizer(text, add_special_tokens=False).input_ids == [
            tokenizer.convert_tokens_to_ids(word)
        ]
    if whole < _WHOLE * len(tried):
        raise SteerlabError(
            f"{file.name}: the tokenizer that transformers {_version('transformers')} reads out of "
            f"it keeps {whole} of {len(tried)} words of its own vocabulary whole, so that the "
            "model would read gibberish; install transformers 5.23 or later"
        )


def _as_it_is(read: Any) -> Any:
    """The tokenizer as it came out of the file, in the class that keeps it so: one of an
    architecture puts its own normalizer and splitting in their place when it is loaded again."""
    import transformers

    ends = {key: token for key, token in read.special_tokens_map.items() if isinstance(token, str)}
    backend = read.backend_tokenizer
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, chat_template=read.chat_template, **ends
    )


def _plain(packed: Any) -> Any:
    """The same weights in a model that does not know of GGUF: one that does refuses to be saved."""
    import transformers

    config = packed.config
    with suppress(AttributeError):
        del config.quantization_config
    config.name_or_path = ""
    with torch.device("meta"):  # without random weights, which take seconds for a large vocabulary
        plain = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    plain.load_state_dict(packed.state_dict(), assign=True)
    plain.tie_weights()  # `assign` gives a tied pair two tensors
    return plain


def _why_not(file: Path, error: Exception) -> str:
    """What an error of transformers' says of a file, and what to do."""
    lines = str(error).splitlines()
    said = lines[0] if lines else type(error).__name__
    # By these words, since both are a ValueError.
    if "architecture" in said and ("not supported" in said or "unknown" in said.lower()):
        return (
            f"{file} holds a model that transformers {_version('transformers')} cannot read from "
            f"GGUF ({said}); give its Hugging Face folder"
        )
    return f"{file} could not be read as GGUF ({said}); it is damaged or cut short: fetch it again"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
