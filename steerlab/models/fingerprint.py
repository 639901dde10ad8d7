"""Which model this is: a hash of every weight, of the configuration and of the tokenizer."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.utils.hub import cached_file

from steerlab.core.cache import cache_folder
from steerlab.core.errors import SteerlabError
from steerlab.core.files import write_json
from steerlab.models.checks import ADAPTER
from steerlab.models.pretrained import Files

LARGE = 2 * 2**30  # bytes of weights that are hashed once for the same files

_CHUNK = 2**24  # numbers that are hashed at a time, so that no copy of a whole matrix is made
# What a configuration says beside what the network computes.
_BESIDE = frozenset(
    "_name_or_path name_or_path architectures auto_map dtype torch_dtype transformers_version "
    "use_cache id2label label2id problem_type return_dict output_hidden_states output_attentions "
    "chunk_size_feed_forward _attn_implementation attn_implementation "
    "_experts_implementation task_specific_params".split()
)


def fingerprint_of(
    module: torch.nn.Module, tokenizer: Any = None, files: Files | None = None
) -> str:
    """`weights-rest`: two hashes, of 16 and of 8 hex digits, that `core.fingerprints` explains.

    Every element of every parameter and of every buffer that is saved counts.

    Args:
        module: the network.
        tokenizer: its tokenizer, if that is to count.
        files: where a network was read from that nothing has changed since: the hashes of a large
            one are kept in the user's cache, by the files' sizes and times.
    """
    weights, rest = of_weights(module) if files is None else _kept(module, files)
    digest = hashlib.sha256(rest.encode())
    config: Any = getattr(module, "config", None)
    if config is not None and hasattr(config, "to_dict"):
        digest.update(_json(_computed(config.to_dict())))
    if tokenizer is not None:
        digest.update(_json(_of_tokenizer(tokenizer)))
    return f"{weights[:16]}-{digest.hexdigest()[:8]}"


@torch.no_grad()
def of_weights(module: torch.nn.Module) -> tuple[str, str]:
    """Two hashes of all weights: of their values rounded to bfloat16, and of what that loses."""
    rounded, lost = hashlib.sha256(), hashlib.sha256()
    for name, value in _tensors(module):
        label = _json([name, list(value.shape)])
        rounded.update(label)
        flat = value.detach().flatten()
        for start in range(0, flat.numel(), _CHUNK):
            chunk = flat[start : start + _CHUNK]
            few = chunk.to(torch.bfloat16) if chunk.is_floating_point() else chunk
            rounded.update(_bytes(few))
            if few.dtype != chunk.dtype and not torch.equal(few.to(chunk.dtype), chunk):
                lost.update(label + _bytes(_narrow(chunk)))
    return rounded.hexdigest(), lost.hexdigest()


def _kept(module: torch.nn.Module, files: Files) -> tuple[str, str]:
    """`of_weights`, from the cache where the same files have been hashed before."""
    size = sum(value.numel() * value.element_size() for value in module.parameters())
    read = _weight_files(files) if size >= LARGE else []
    if not read:
        return of_weights(module)
    states = [(str(each.resolve()), each.stat().st_size, each.stat().st_mtime_ns) for each in read]
    dtypes = sorted({str(value.dtype) for value in module.parameters()})
    key = hashlib.sha256(_json([states, dtypes, transformers.__version__])).hexdigest()[:32]
    file = cache_folder() / "fingerprints" / f"{key}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(file.read_text("utf-8"))
        return str(found["weights"]), str(found["rest"])
    weights, rest = of_weights(module)
    # A cache that cannot be written costs time and nothing else.
    with suppress(OSError, SteerlabError):
        file.parent.mkdir(parents=True, exist_ok=True)
        # By force: the name is a hash, so that what is there is an older or damaged copy of it.
        write_json(file, {"weights": weights, "rest": rest}, force=True)
    return weights, rest


def _weight_files(files: Files) -> list[Path]:
    """The files of a model's weights and configuration on this machine; none where unknown."""
    folder = files.folder
    if folder is None:
        config = cached_file(
            files.source,
            "config.json",
            revision=files.revision,
            subfolder=files.subfolder,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        folder = None if config is None else Path(config).parent
    if folder is None or (folder / ADAPTER).exists():  # whose model lies elsewhere
        return []
    kinds = ("*.safetensors", "*.bin", "config.json")
    return sorted(each for kind in kinds for each in folder.glob(kind))


def versions(module: torch.nn.Module) -> tuple[tuple[int, int], ...]:
    """A value that changes when a weight is replaced or changed in place: cheap to ask for, and so
    it tells when a fingerprint has to be made anew."""
    # What inference mode made keeps no count of its changes.
    return tuple(
        (id(value), 0 if value.is_inference() else value._version) for _, value in _tensors(module)
    )


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All weights by name, each once; buffers too, in which quantised layers keep theirs."""
    seen: set[int] = set()
    for prefix, each in module.named_modules():
        saved = [name for name in each._buffers if name not in each._non_persistent_buffers_set]
        for name in (*each._parameters, *saved):
            value = getattr(each, name)
            if value is None or id(value) in seen:
                continue
            seen.add(id(value))
            full = f"{prefix}.{name}".lstrip(".")
            yield full, _offloaded(each, name, full) if value.is_meta else value


def _offloaded(module: torch.nn.Module, name: str, full: str) -> Tensor:
    """A weight that accelerate keeps elsewhere until it is needed."""
    elsewhere = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
    if elsewhere is None or name not in elsewhere:
        raise SteerlabError(
            f"the weight {full} has no values (it is on the device 'meta'); load the model's "
            "weights first"
        )
    value: Tensor = elsewhere[name]
    return value


def _narrow(values: Tensor) -> Tensor:
    """The values in float16 if they fit, so that a checkpoint in float16 is the same in float32;
    they do not fit bfloat16."""
    half = values.to(torch.float16)
    return half if torch.equal(half.to(values.dtype), values) else values


def _bytes(values: Tensor) -> bytes:
    return bytes(values.contiguous().cpu().view(torch.uint8).numpy())


def _computed(config: Any) -> Any:
    """A configuration without what does not decide the numbers, at every level."""
    if isinstance(config, dict):
        return {str(key): _computed(value) for key, value in config.items() if key not in _BESIDE}
    if isinstance(config, list | tuple):
        return [_computed(value) for value in config]
    return config


def _of_tokenizer(tokenizer: Any) -> list[Any]:
    """What decides the tokens of a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    template = getattr(tokenizer, "chat_template", None)
    special = [tokenizer.bos_token, tokenizer.eos_token]
    if backend is None:
        return [type(tokenizer).__name__, tokenizer.get_vocab(), template, special]
    # From its tokens on: before them stands how the last call padded and cut, which is no part of
    # the tokenizer.
    written = backend.to_str()
    parts = hashlib.sha256(written[written.index('"added_tokens"') :].encode()).hexdigest()
    return [parts, template, special]


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
