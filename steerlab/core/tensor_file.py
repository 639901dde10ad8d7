"""Objects of tensors on disk: safetensors whose JSON header says what made them and what they must
hash to."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from steerlab.core.errors import SteerlabError, first_line_of
from steerlab.core.files import explained, need_ending, replacing
from steerlab.core.sites import hook_name
from steerlab.core.tensors import object_in, read_safetensors, whole_in, word_in

Made = TypeVar("Made")


def digest_of(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """SHA-256 of everything in a file but the checksum itself."""
    lines = [f"{name}: {text}" for name, text in sorted(header.items()) if name != "sha256"]
    # Types and shapes too, since equal bytes can stand for different tensors.
    for name in sorted(tensors):
        lines.append(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}")
    digest = hashlib.sha256("\n".join(lines).encode())
    for name in sorted(tensors):
        flat = tensors[name].cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_tensors(
    file: str | Path,
    kind: str,
    tensors: Mapping[str, Tensor],
    about: Mapping[str, Any],
    *,
    force: bool = False,
) -> Path:
    """Write a .safetensors file; it appears whole or not at all.

    Args:
        file: its name.
        kind: what it holds, with the version of its layout: "steerlab moments 1".
        tensors: by name.
        about: everything else, as JSON has it.
        force: replace a file that steerlab did not write.
    """
    file = need_ending(file, ".safetensors")
    # Copies, since safetensors refuses tensors that share memory.
    kept = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    header = {"format": kind, "about": json.dumps(about)}
    header["sha256"] = digest_of(kept, header)
    with explained(file), replacing(file, force=force) as (fresh,):
        save_file(kept, fresh, metadata=header)
    return file


def load_tensors(file: str | Path, kind: str, make: Callable[["Content"], Made]) -> Made:
    """What a file of `save_tensors` holds, made by `make`.

    Raises `SteerlabError` for a missing, truncated, altered or foreign file, and for whatever
    `make` refuses.

    Args:
        file: its name.
        kind: what it must hold.
        make: from the content to the object.
    """
    tensors, header = read_safetensors(file, again="make it again")
    if header.get("format") != kind:
        raise SteerlabError(
            f"{file} holds {header.get('format')!r}, not {kind!r}; give a file that was saved as "
            "such"
        )
    # safetensors checks that a file is whole, not that nobody changed a number in it.
    if digest_of(tensors, header) != header.get("sha256"):
        raise SteerlabError(
            f"{file} was altered after it was written: its checksum does not match; make it again"
        )
    try:
        content = Content(tensors, object_in(json.loads(header["about"]), "about"))
        made = make(content)
        content.need_empty()
    except SteerlabError as error:
        raise SteerlabError(f"{file}: {error}; make it again") from error
    # A header may hold any JSON under a right checksum; what that raises has no class in common.
    except (KeyError, TypeError, ValueError, RecursionError, RuntimeError) as error:
        raise SteerlabError(
            f"{file} does not hold {kind!r} ({first_line_of(error)}); make it again"
        ) from error
    return made


class Content:
    """The tensors and the header of a file, taken piece by piece, each checked."""

    def __init__(self, tensors: dict[str, Tensor], about: Mapping[str, Any]):
        self.tensors = dict(tensors)
        self.about = about

    def take(self, name: str, *shape: int, dtype: torch.dtype, finite: bool = True) -> Tensor:
        """A tensor of this shape and type; -1 stands for any length."""
        if name not in self.tensors:
            raise SteerlabError(f"it has no {name}")
        value = self.tensors.pop(name)
        fits = value.ndim == len(shape) and all(
            wanted in (-1, given) for wanted, given in zip(shape, value.shape, strict=True)
        )
        if not fits or value.dtype != dtype:
            raise SteerlabError(
                f"{name} is {str(value.dtype).removeprefix('torch.')} {list(value.shape)}, not "
                f"{str(dtype).removeprefix('torch.')} {list(shape)}"
            )
        if finite and value.is_floating_point() and not torch.isfinite(value).all():
            raise SteerlabError(f"{name} holds NaN or infinity")
        return value

    def need_empty(self) -> None:
        """Raise where a tensor was not taken."""
        if self.tensors:
            raise SteerlabError(f"it holds {next(iter(self.tensors))!r}, which has no place in it")

    def words(self, name: str) -> tuple[str, ...]:
        """A list of words in the header."""
        return tuple(word_in(each, f"an entry of {name}") for each in self._list(name))

    def numbers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers from 0 up in the header."""
        return tuple(whole_in(each, f"an entry of {name}", least=0) for each in self._list(name))

    def word(self, name: str) -> str:
        """A word in the header."""
        return word_in(self.about.get(name), name)

    def number(self, name: str, *, least: int = 0) -> int:
        """A whole number in the header."""
        return whole_in(self.about.get(name), name, least=least)

    def object(self, name: str) -> dict[str, Any]:
        """Keys and values in the header."""
        return object_in(self.about.get(name), name)

    def site(self, layers: Sequence[int]) -> str:
        """The site in the header, if these layers may have it."""
        site = self.word("site")
        for layer in layers:
            hook_name(site, layer)
        return site

    def _list(self, name: str) -> list[Any]:
        found = self.about.get(name)
        if not isinstance(found, list):
            raise SteerlabError(f"{name} is {repr(found)[:60]}, not a list")
        return found
