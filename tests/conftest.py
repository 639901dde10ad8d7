"""What several test files share: polyglot, its directions, tiny random models of other shapes,
one finished run."""

import functools
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = (
    "1"  # before anything imports huggingface_hub: no test may use the network
)
if "PYTEST_XDIST_WORKER" in os.environ:  # before anything imports torch: workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import processes
import pytest
import torch
from dealing import pytest_collection_modifyitems, pytest_xdist_make_scheduler  # noqa: F401 -- hooks

from steerlab.core.corpus import Corpus, corpus
from steerlab.core.directions import Directions
from steerlab.core.moments import Moments
from steerlab.estimate import diffmean
from steerlab.models.loading import PACKAGED, load
from steerlab.models.model import Model

# A test has no time of its own: other work may share the cores.
hypothesis.settings.register_profile("steerlab", deadline=None)
hypothesis.settings.load_profile("steerlab")

PROMPTS = [
    "The weather is nice today.\n",
    "No.\n",
    "I would like to buy two tickets for the train to the next city, please.\n",
    "We eat bread with butter in the morning.\n",
]
SHAPES = ("gemma2", "gpt2", "qwen2")
RESIDUAL = ("resid_pre", "resid_post")  # the sites that every model has
ALL_SHAPES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2", "mixtral", "qwen3_moe")
NO_BOS = "qwen2 without BOS"  # as the Qwen family is: its tokenizer has none


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
    from steerlab.engine.collect import collect

    return collect(polyglot, lines.split("estimate").take(48))


@pytest.fixture(scope="session")
def directions(moments: Moments) -> Directions:
    """DiffMean directions of polyglot."""
    return diffmean(moments)


@pytest.fixture(scope="module")
def german(directions: Directions) -> Any:
    """An edit that speaks German."""
    from steerlab.edits import add

    return add(directions.between("en", "de").at(5), strength=1.25)


@pytest.fixture(scope="module")
def server(polyglot: Model, directions: Directions, german: Any) -> Iterator[Any]:
    """An endpoint with polyglot, and with an edit that has a name."""
    from steerlab.studies.explore.session import Session
    from steerlab.studies.serve import endpoint

    made = endpoint(Session(polyglot, directions), edits={"german": german})
    made.start()
    yield made
    made.close()


@pytest.fixture
def line(server: Any) -> Any:
    """The thread that says what the endpoint is asked for."""
    return server.line


@pytest.fixture
def chatty(server: Any, line: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The endpoint while its model has a chat template."""
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    monkeypatch.setattr(line.session.model.tokenizer, "chat_template", template)
    return server


def tiny_config(shape: str, *, layers: int = 3, width: int = 32, context: int = 128) -> Any:
    """The configuration of a tiny model with polyglot's vocabulary; windows slide over fewer tokens
    than a prompt has.

    The embedding is not tied to the unembedding: such a random model would say its last token again
    and again.
    """
    from transformers import AutoConfig

    sizes: dict[str, Any] = {
        "vocab_size": 12288,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    sizes |= {"tie_word_embeddings": False}
    if shape == "gpt2":  # HookedTransformer asks for n_ctx, which transformers no longer writes
        sizes |= {
            "n_layer": layers,
            "n_embd": width,
            "n_head": 4,
            "n_positions": context,
            "n_ctx": context,
        }
        return AutoConfig.for_model(shape, **sizes)
    sizes |= {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    sizes |= {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": context,
    }
    if shape in ("gemma2", "gemma3", "qwen3", "qwen3_moe"):
        sizes |= {"head_dim": width // 4}
    if shape in ("gemma2", "gemma3"):
        kinds = ["full_attention" if layer % 2 else "sliding_attention" for layer in range(layers)]
        sizes |= {"sliding_window": 8, "layer_types": kinds}
    if shape == "mixtral":
        sizes |= {"num_local_experts": 4, "num_experts_per_tok": 2}
    if shape == "qwen3_moe":
        sizes |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": width}
    return AutoConfig.for_model(
        {"gemma3": "gemma3_text", NO_BOS: "qwen2"}.get(shape, shape), **sizes
    )


def save_tiny(folder: Path, shape: str, *, lively: bool = False, **sizes: int) -> Path:
    """Write a random model of a shape, and polyglot's tokenizer, as a Hugging Face folder.

    `lively`: with large weights and random norms and biases, so that rows say different things and
    nothing cancels.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(shape, **sizes))
    if lively:
        with torch.no_grad():
            for weight in model.parameters():
                noise = torch.randn_like(weight)
                weight.copy_(
                    weight + 0.3 * noise
                    if weight.ndim == 1
                    else 1.5 * noise / weight.shape[-1] ** 0.5
                )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(PACKAGED)
    if shape == NO_BOS:
        tokenizer.bos_token = None
        tokenizer.backend_tokenizer.post_processor = None  # it put BOS before every text
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny random model of one of ALL_SHAPES."""
    top = tmp_path_factory.mktemp("tiny")
    return functools.cache(lambda shape: save_tiny(top / shape, shape))


@pytest.fixture(scope="session")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The same with weights that make rows differ; polyglot's folder for "polyglot"."""
    top = tmp_path_factory.mktemp("lively")
    nameless = lambda shape: top / str((*ALL_SHAPES, NO_BOS).index(shape))  # noqa: E731 -- HookedTransformer guesses from names
    save = functools.cache(lambda shape: save_tiny(nameless(shape), shape, lively=True))
    return lambda shape: PACKAGED if shape == "polyglot" else save(shape)


@pytest.fixture(scope="session")
def shaped(polyglot: Model, lively: Callable[[str], Path]) -> Callable[[str], Model]:
    """Polyglot, or the lively model of a shape, loaded once: not to be changed."""
    return functools.cache(lambda shape: polyglot if shape == "polyglot" else load(lively(shape)))


@pytest.fixture(scope="session")
def lens(
    shaped: Callable[[str], Model], lively: Callable[[str], Path]
) -> Callable[[str, str], Any]:
    """The TransformerLens view ("bridge" or "hooked") of what `shaped` gives, made once: not to
    be changed."""
    make = functools.cache(lambda shape: hooked_transformer(lively(shape)))
    return lambda shape, kind: shaped(shape).tl if kind == "bridge" else make(shape)


@pytest.fixture(scope="session")
def hooked(lens: Callable[[str, str], Any]) -> Any:
    """Polyglot as a `HookedTransformer`."""
    return lens("polyglot", "hooked")


def hooked_transformer(folder: Path) -> Any:
    """A folder as a `HookedTransformer` that a user would bring: unprocessed weights, a set of
    its own."""
    import transformer_lens.loading_from_pretrained as loading
    from transformer_lens import HookedTransformer

    warnings.simplefilter(
        "ignore", DeprecationWarning
    )  # version 4 of TransformerLens has no HookedTransformer
    model, official = load(folder), loading.get_official_model_name
    loading.get_official_model_name = lambda model_name: (
        model_name
    )  # it knows only names, not folders
    try:
        return HookedTransformer.from_pretrained_no_processing(
            str(folder),
            hf_model=model.hf,
            tokenizer=model.tokenizer,
            device="cpu",
            dtype=torch.float32,
        )
    finally:
        loading.get_official_model_name = official


def random_directions(
    model: Model, *, site: str = "resid_post", rank: int = 2, seed: int = 1
) -> Directions:
    """From "en" to "es" in random directions, at every layer, with gaps of the size of a tiny
    model's activations."""
    random = torch.Generator().manual_seed(seed)
    width = model.width_of(site)
    means = torch.randn(2, model.n_layers, width, generator=random)
    basis = torch.randn(2, model.n_layers, width, rank, generator=random)
    basis = torch.linalg.qr(basis)[0].mT.contiguous()
    return Directions(means, basis, means, ("en", "es"), tuple(range(model.n_layers)), site)


def script() -> str:
    """The installed `steerlab` command."""
    return str(Path(sys.executable).with_name("steerlab"))


QUICK = "run --quick --limit 4 --langs en,de,es,ru,fr,pl,it,uk --targets de,es --no-open".split()


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of one small finished `steerlab run`, and how the command ended."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DISPLAY", "WAYLAND_DISPLAY")
    }
    done = subprocess.run(
        [script(), *QUICK, "--out", str(folder)], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture(scope="session")
def small(tiny: Callable[[str], Path]) -> list[str]:
    """The words of the same run with a tiny random model: how a run stops does not depend on
    what it says."""
    return [*QUICK, "--model", str(tiny("llama"))]


@pytest.fixture(scope="session")
def uninterrupted(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with the tiny model, to compare with runs that were stopped."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    done = processes.steerlab(*small, "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return folder
