"""What several test files share: polyglot, its directions, tiny random models of other shapes, one finished run."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test may use the network

import pytest
import torch

from steerlab.corpora import Corpus, corpus
from steerlab.directions import Directions
from steerlab.estimate import diffmean
from steerlab.model import PACKAGED, Model, load
from steerlab.stats import Moments

PROMPTS = [
    "The weather is nice today.\n",
    "No.\n",
    "I would like to buy two tickets for the train to the next city, please.\n",
    "We eat bread with butter in the morning.\n",
]
SHAPES = ("gemma2", "gpt2", "qwen2")


@pytest.fixture(scope="session")
def polyglot() -> Model:
    """The model in the package."""
    return load()


@pytest.fixture(scope="session")
def lines() -> Corpus:
    """The sentences in the package, in five languages of three families and two scripts."""
    return corpus().select(["en", "de", "es", "fr", "ru"])


@pytest.fixture(scope="session")
def moments(polyglot: Model, lines: Corpus) -> Moments:
    from steerlab.collection import collect

    return collect(polyglot, lines.split("estimate").take(48))


@pytest.fixture(scope="session")
def directions(moments: Moments) -> Directions:
    """DiffMean directions of polyglot."""
    return diffmean(moments)


def tiny_config(shape: str, *, layers: int = 3, width: int = 32, context: int = 128) -> Any:
    """The configuration of a tiny model with polyglot's vocabulary."""
    from transformers import Gemma2Config, GPT2Config, LlamaConfig, Qwen2Config

    shared: dict[str, Any] = {"vocab_size": 12288, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if shape == "gpt2":
        return GPT2Config(n_layer=layers, n_embd=width, n_head=2, n_positions=context, **shared)
    shared |= {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    shared |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": context}
    if shape == "gemma2":
        return Gemma2Config(head_dim=width // 2, sliding_window=16, **shared)
    return {"llama": LlamaConfig, "qwen2": Qwen2Config}[shape](**shared)


def save_tiny(folder: Path, shape: str, **sizes: int) -> Path:
    """Write a random model of a shape, and polyglot's tokenizer, as a Hugging Face folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config(shape, **sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(PACKAGED).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny random model of a shape: llama, qwen2, gemma2 or gpt2."""
    made: dict[str, Path] = {}

    def folder(shape: str) -> Path:
        if shape not in made:
            made[shape] = save_tiny(tmp_path_factory.mktemp("tiny") / shape, shape)
        return made[shape]

    return folder


@pytest.fixture(scope="session")
def hooked(polyglot: Model) -> Any:
    """Polyglot as a `HookedTransformer` that a user would bring: unprocessed weights, a set of its own."""
    import transformer_lens.loading_from_pretrained as loading
    from transformer_lens import HookedTransformer

    warnings.simplefilter("ignore", DeprecationWarning)  # version 4 of TransformerLens has no HookedTransformer
    official = loading.get_official_model_name
    loading.get_official_model_name = lambda model_name: model_name  # it knows only names, not folders
    try:
        return HookedTransformer.from_pretrained_no_processing(
            str(PACKAGED), hf_model=load().hf, tokenizer=polyglot.tokenizer, device="cpu", dtype=torch.float32
        )
    finally:
        loading.get_official_model_name = official


def script() -> str:
    """The installed `steerlab` command."""
    return str(Path(sys.executable).with_name("steerlab"))


QUICK = "run --quick --limit 4 --langs en,de,es,ru,fr,pl,it,uk --targets de,es --no-open".split()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of one small finished `steerlab run`, and how the command ended."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    return folder, _run(folder)


@pytest.fixture(scope="session")
def small(tiny: Callable[[str], Path]) -> list[str]:
    """The words of the same run with a tiny random model: how a run stops does not depend on what it says."""
    return [*QUICK, "--model", str(tiny("llama"))]


@pytest.fixture(scope="session")
def uninterrupted(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with the tiny model, to compare with runs that were stopped."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    _run(folder, small)
    return folder


def _run(folder: Path, words: Sequence[str] = QUICK) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run([script(), *words, "--out", str(folder)], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done
