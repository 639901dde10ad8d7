"""What can be told of a model's files before they are loaded: each kind of folder that cannot be
used has its own sentence, and says what to do."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlab.core.errors import SteerlabError
from steerlab.core.files import read_config

ADAPTER = "adapter_config.json"
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_TOKENIZERS = (
    "tokenizer.json tokenizer.model tokenizer_config.json vocab.json vocab.txt spiece.model "
    "sentencepiece.bpe.model tekken.json".split()
)
_SETTINGS = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
_POINTER = b"version https://git-lfs"
# The packages that read quantised weights, by what configurations call the method; "" for none.
_PACKAGES = {
    "bitsandbytes": "bitsandbytes",
    "gptq": "gptqmodel",
    "awq": "gptqmodel",
    "compressed-tensors": "compressed-tensors",
    "hqq": "hqq",
    "aqlm": "aqlm",
    "quanto": "optimum-quanto",
    "torchao": "torchao",
    "eetq": "kernels",
    "vptq": "vptq",
    "spqr": "spqr-quant",
    "auto-round": "auto-round",
    "fbgemm_fp8": "fbgemm-gpu",
    "mxfp4": "kernels",
    "higgs": "flute-kernel",
    "quark": "amd-quark",
    "fp_quant": "fp-quant",
    "fouroversix": "fouroversix",
    "sinq": "sinq",
    **dict.fromkeys(("fp8", "bitnet"), "accelerate"),
}
# The kinds with an encoder and a decoder of which the encoder is read by itself, and what it is
# called. Those of BART's kind have language tokens in their texts and are not among them.
ENCODERS: Mapping[str, str] = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
}
# Where a module is called other than its package.
_MODULES = {"optimum-quanto": "optimum.quanto", "flute-kernel": "flute", "amd-quark": "quark"}


def check_folder(folder: Path, *, tokenizer: bool, trust_remote_code: bool) -> None:
    """Raise for a folder that cannot be loaded, by what is wrong with it.

    Args:
        folder: holds the files.
        tokenizer: whether a tokenizer is to be read from it.
        trust_remote_code: whether code in it may run.
    """
    _need_files(folder)
    config = read_config(folder / "config.json")
    if not is_encoder(config):
        need_causal(config, str(folder), trust_remote_code=trust_remote_code)
    need_package(config, str(folder))
    for index in _INDICES:
        if (folder / index).exists():
            listed = read_config(folder / index).get("weight_map")
            if not isinstance(listed, Mapping) or not all(
                isinstance(name, str) for name in listed.values()
            ):
                raise SteerlabError(
                    f"{folder / index} does not say which file each weight is in (weight_map); "
                    "fetch it again"
                )
            files = set(listed.values())
            missing = sorted(name for name in files if not (folder / name).exists())
            if missing:
                raise SteerlabError(
                    f"{folder} lacks {missing[0]}, one of the {len(files)} files of weights that "
                    f"{index} lists ({len(missing)} are missing); fetch it too"
                )
    for name in _SETTINGS:
        if (folder / name).exists():
            read_config(folder / name)  # raises for what is no configuration
    there = [name for name in _TOKENIZERS if (folder / name).exists()]
    if tokenizer and not there:
        raise SteerlabError(
            f"{folder} has a model and no tokenizer (none of {', '.join(_TOKENIZERS[:3])}); copy "
            "the tokenizer's files there, or give it as load(..., tokenizer=...)"
        )
    if tokenizer and "tokenizer.json" in there and "tokenizer_config.json" not in there:
        raise SteerlabError(
            f"{folder} has no tokenizer_config.json, which says which tokens begin and end a text; "
            "fetch it too, or give a tokenizer as load(..., tokenizer=...)"
        )


def need_causal(config: Mapping[str, Any], name: str, *, trust_remote_code: bool) -> None:
    """Raise for a configuration of what is no causal model, or of code that may not run."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto import modeling_auto as known

    causal = known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    kind = str(config.get("model_type") or "")
    brings_code = bool(config.get("auto_map"))
    if kind not in CONFIG_MAPPING:
        if brings_code and not trust_remote_code:
            raise SteerlabError(
                f"{name} brings its own code ({kind or 'no model_type'}), which runs only if you "
                "say so: read it, and then give trust_remote_code=True"
            )
        if not brings_code:
            raise SteerlabError(
                f"{name} is of the architecture {kind!r}, which this transformers does not know; "
                "update transformers, or take another model"
            )
        return
    need_left_to_right(config, name, made_causal=sees(config))
    registered = kind in CONFIG_MAPPING._extra_content  # by the user
    if sees(config):
        return
    if kind not in causal and not registered and not (brings_code and trust_remote_code):
        raise SteerlabError(
            f"{name} is of the architecture {kind!r}, which is no causal language model; take one"
        )


def sees(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is of a model that reads pictures and text and writes text, of a kind
    that is no causal language model by itself."""
    from transformers.models.auto import modeling_auto as known

    kind = str(config.get("model_type") or "")
    both = known.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return kind in both and kind not in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def is_encoder(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is of a model that is read as an encoder: one that was trained on
    masked text, and does not claim to be a causal one, or one of T5's kind."""
    from transformers.models.auto import modeling_auto as known

    kind = str(config.get("model_type") or "")
    if kind in ENCODERS:
        return True
    made_as = _made_as(config)
    causal = "CausalLM" in made_as or "LMHead" in made_as
    masked = kind in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not _decodes(kind, config)
    return masked and not causal and not config.get("is_encoder_decoder")


def need_left_to_right(config: Mapping[str, Any], name: str, *, made_causal: bool = False) -> None:
    """Raise for a configuration of a model whose tokens see those after them, or that reads a
    source with an encoder first.

    Args:
        config: the configuration.
        name: what messages call the model.
        made_causal: whether its attention is going to be set to look back alone.
    """
    from transformers.models.auto import modeling_auto as known

    causal = known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    kind = str(config.get("model_type") or "")
    made_as = _made_as(config)
    masked = {*known.MODEL_FOR_MASKED_LM_MAPPING_NAMES, "bert-generation"}
    if kind in masked and not _decodes(kind, config):
        raise SteerlabError(
            f"{name} is a masked language model ({kind}): each of its tokens sees those after it, "
            "so that it predicts and generates nothing; take a causal language model, or load it "
            "as an encoder (AutoModel), which collect reads"
        )
    both_ways = any(
        part.get("use_bidirectional_attention") in (True, "all") for part in _parts(config)
    )
    if both_ways and not made_causal:
        raise SteerlabError(
            f"each token of {name} sees those after it (use_bidirectional_attention), so that it "
            "predicts and generates nothing; take the causal language model, or load a model that "
            "also sees by its name or folder"
        )
    if config.get("is_encoder_decoder") and (kind not in causal or "Conditional" in made_as):
        raise SteerlabError(
            f"{name} has an encoder and a decoder ({kind}), and steerlab reads decoders alone; "
            "take a causal language model"
        )


def _made_as(config: Mapping[str, Any]) -> str:
    """The names of the classes that a model was made as."""
    names = config.get("architectures")
    return " ".join(map(str, names)) if isinstance(names, list | tuple) else ""


def _parts(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A configuration, and that of its language model if it has one of its own."""
    text = config.get("text_config")
    return [config, text] if isinstance(text, Mapping) else [config]


def _decodes(kind: str, config: Mapping[str, Any]) -> bool:
    """Whether a model of a kind that may also be masked is a decoder."""
    # These are decoders whenever they are loaded as causal language models.
    always = {"bart", "mbart", "mvp", "bigbird_pegasus", "plbart", "pegasus"}
    return kind in always or bool(config.get("is_decoder") or config.get("causal"))


def need_package(config: Mapping[str, Any], name: str) -> None:
    """Raise where the weights are quantised, and the package that reads them is not there."""
    quantised = config.get("quantization_config")
    if not isinstance(quantised, Mapping):
        return
    method = str(quantised.get("quant_method") or "bitsandbytes")
    package = _PACKAGES.get(method, "")
    if package and not _is_there(_MODULES.get(package, package.replace("-", "_"))):
        raise SteerlabError(
            f"the weights of {name} are quantised by {method}, which the package {package} reads, "
            f"and it is not installed; pip install {package}"
        )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package above it is not there either
        return False


def _need_files(folder: Path) -> None:
    """Raise for a folder without a configuration, and for files that are pointers to elsewhere."""
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.stat().st_size < 1024 and file.read_bytes().startswith(_POINTER):
            raise SteerlabError(
                f"{file} is a pointer of Git LFS and not the file itself; run `git lfs pull` in "
                "its folder, or fetch it from the Hub"
            )
    if not (folder / "config.json").exists():
        raise SteerlabError(
            f"could not load {str(folder)!r}: it is no folder with a causal language model, as it "
            "has no config.json; give the folder that holds one, or a subfolder by subfolder="
        )
