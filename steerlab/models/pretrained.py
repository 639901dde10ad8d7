"""Hugging Face's own loading: what cannot be loaded raises a sentence of ours."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from steerlab.core.errors import SteerlabError, first_line_of
from steerlab.core.files import read_config
from steerlab.models.adapters import base_of, with_adapter
from steerlab.models.checks import (
    ADAPTER,
    ENCODERS,
    check_folder,
    is_encoder,
    need_causal,
    need_package,
    sees,
)


@dataclass(frozen=True)
class Files:
    """Where a model is read from.

    Args:
        source: a folder or Hub id.
        revision: of the Hub.
        subfolder: inside of it.
        trust_remote_code: whether code in it may run.
        spread: whether the model is laid over all devices.
    """

    source: str
    revision: str | None = None
    subfolder: str = ""
    trust_remote_code: bool = False
    spread: bool = False

    @property
    def folder(self) -> Path | None:
        """The folder, if it is one of this machine."""
        folder = Path(self.source) / self.subfolder
        return folder if folder.is_dir() else None

    @property
    def options(self) -> dict[str, Any]:
        """What `from_pretrained` is to be told."""
        return {
            "revision": self.revision,
            "subfolder": self.subfolder,
            # Without it a terminal is asked, and "y" runs the code.
            "trust_remote_code": self.trust_remote_code,
        }


def pretrained(files: Files, dtype: Any, tokenizer: Any = None) -> tuple[Any, Any]:
    """Hugging Face's model and tokenizer; what cannot be loaded raises.

    Args:
        files: where they are read from.
        dtype: what to compute in.
        tokenizer: in place of the one beside the weights.
    """
    import transformers  # here, as importing it takes seconds

    transformers.utils.logging.disable_progress_bar()
    folder = files.folder
    if folder is not None and (folder / ADAPTER).exists():
        base = Files(
            base_of(folder), trust_remote_code=files.trust_remote_code, spread=files.spread
        )
        own = folder if tokenizer is None and (folder / "tokenizer_config.json").exists() else None
        if own is not None:
            tokenizer = transformers.AutoTokenizer.from_pretrained(own, trust_remote_code=False)
        hf, tokenizer = pretrained(base, dtype, tokenizer)
        return with_adapter(hf, folder), tokenizer
    if folder is not None:
        check_folder(folder, tokenizer=tokenizer is None, trust_remote_code=files.trust_remote_code)
    try:
        config = read_config(folder / "config.json") if folder else _hub_config(files)
        make: Any = transformers.AutoModelForCausalLM.from_pretrained
        if sees(config):
            make = transformers.AutoModelForImageTextToText.from_pretrained
        if is_encoder(config):
            name = ENCODERS.get(str(config.get("model_type")), "AutoModel")
            make = getattr(transformers, name).from_pretrained
        placed: dict[str, Any] = {"device_map": "auto"} if files.spread else {}
        if sees(config):
            placed["config"] = _causal(files)
        hf, loading_info = make(
            files.source, dtype=dtype, output_loading_info=True, **placed, **files.options
        )
        if tokenizer is None:
            tokenizer = transformers.AutoTokenizer.from_pretrained(files.source, **files.options)
    except (OSError, ValueError, ImportError) as error:
        raise _not_loaded(files, error) from error
    except (SafetensorError, RuntimeError) as error:
        raise SteerlabError(
            f"the weights of {files.source!r} are truncated, altered or of another shape than "
            "config.json says "
            f"({first_line_of(error)}); fetch the model again"
        ) from error
    except MemoryError:
        raise
    # What transformers raises for a key that is missing, or of another type, has no class in
    # common.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise SteerlabError(
            f"could not load {files.source!r}: its configuration or its tokenizer is damaged, or "
            f"of another version of transformers ({type(error).__name__}: {reason}); fetch its "
            "files again"
        ) from error
    # What stands on an encoder is not read.
    missing = [key for key in loading_info["missing_keys"] if "pooler" not in key.split(".")]
    if missing:
        # transformers would leave them random and go on.
        raise SteerlabError(
            f"{files.source!r} has no weights for {min(missing)}; fetch the model again"
        )
    if empty := [key for key, value in hf.named_parameters() if not value.numel()]:
        raise SteerlabError(
            f"the weights of {files.source!r} hold nothing in {empty[0]}, as config.json gives a "
            "size of 0; fetch the model again"
        )
    return hf, usable(tokenizer)


def _causal(files: Files) -> Any:
    """The configuration of a model that also sees, whose text is read from left to right: PaliGemma
    reads a prompt in both directions, and says of each prompt which by `token_type_ids`; without
    these it would see what it is to predict."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(files.source, **files.options)
    text = config.get_text_config()
    if getattr(text, "use_bidirectional_attention", None):
        text.use_bidirectional_attention = False
    return config


def _hub_config(files: Files) -> dict[str, Any]:
    """The configuration of a model of the Hub; raises for one that cannot be used, by this
    alone."""
    import transformers

    config, _ = transformers.PreTrainedConfig.get_config_dict(
        files.source, revision=files.revision, subfolder=files.subfolder
    )
    if config:
        if not is_encoder(config):
            need_causal(config, files.source, trust_remote_code=files.trust_remote_code)
        need_package(config, files.source)
    return dict(config)


def _not_loaded(files: Files, error: Exception) -> SteerlabError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, ImportError):
        return SteerlabError(
            f"could not load {files.source!r}: a package is missing ({reason}); install it"
        )
    if files.folder is not None:
        return SteerlabError(f"could not load {files.source!r} ({reason}); fetch its files again")
    return SteerlabError(
        f"could not load {files.source!r}: it is no folder with a causal language model, and it "
        "could not be fetched "
        f"from the Hub or its cache ({reason}); give a folder, check the id, or connect once"
    )


def usable(tokenizer: Any) -> Any:
    """A copy of a tokenizer that pads on the left, with its end of text where it has no padding."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def is_placed(hf: Any) -> bool:
    """Whether a model is where it should be: quantised, or laid over several devices."""
    return bool(getattr(hf, "hf_device_map", None) or getattr(hf, "is_quantized", False))
