"""Write docs/models.md, which architectures are read and steered rightly: `python experiments/architectures.py`.

Each causal architecture of transformers is made tiny and random, and what the package says of it is held against the
plain model, a text at a time and without a cache: the activations that are read, cross-entropies, texts decoded alone, in
rows, and under edits whose rows share their prompts. `--only llama bloom` checks some and prints them; `--keep
FOLDER` keeps each result, so that the work can be done in pieces.
"""

import argparse
import json
import signal
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, add, stack
from steerlab.engine.collect import collect
from steerlab.engine.cross_entropy import cross_entropy
from steerlab.engine.decoding import generate
from steerlab.engine.prompts import encode
from steerlab.models.huggingface import HuggingFaceModel
from steerlab.models.loading import PACKAGED, load

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
TEXTS = ("The weather is nice today.", "No.", "We eat bread with butter in the morning.")
NEW = 5  # tokens of an output
LAYERS = 4
SECONDS = 30  # of the processor, the most that one architecture may take
PARAMETERS = 40_000_000  # the most that a tiny model may have
# The sizes of a tiny model, by the names that configurations have for them.
SIZES: dict[str, Any] = {
    **dict.fromkeys(
        "hidden_size d_model n_embd dim model_dim embedding_size embed_dim".split(), 32
    ),
    **dict.fromkeys(
        "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers".split(),
        LAYERS,
    ),
    **dict.fromkeys("num_decoder_layers vision_num_layers".split(), 2),
    **dict.fromkeys(
        "num_attention_heads n_head n_heads num_heads decoder_attention_heads "
        "encoder_attention_heads".split(),
        4,
    ),
    **dict.fromkeys("num_key_value_heads num_kv_heads".split(), 2),
    **dict.fromkeys("head_dim kv_channels dim_head v_head_dim qk_head_dim".split(), 8),
    **dict.fromkeys(
        "intermediate_size ffn_dim d_ff d_inner n_inner dim_ff ffn_hidden_size decoder_ffn_dim "
        "encoder_ffn_dim shared_expert_intermediate_size moe_intermediate_size "
        "intermediate_size_mlp expert_ffn_hidden_size ffn_hidden_size".split(),
        64,
    ),
    **dict.fromkeys(
        "num_experts num_local_experts n_routed_experts moe_num_experts num_routed_experts".split(),
        4,
    ),
    **dict.fromkeys(
        "num_experts_per_tok num_experts_per_token moe_top_k top_k moe_k moe_topk".split(), 2
    ),
    **dict.fromkeys("n_group topk_group n_groups".split(), 1),
    **dict.fromkeys("n_shared_experts num_shared_experts moe_num_shared_experts".split(), 1),
    "rotary_dim": 4,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "o_lora_rank": 16,
    "vocab_size": 12288,
    "sliding_window": 8,
    "attention_window": 8,
    "attention_chunk_size": 8,
    "max_position_embeddings": 128,
    "n_positions": 128,
    "n_ctx": 128,
    "max_seq_len": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "decoder_start_token_id": 1,
    "tie_word_embeddings": False,
}


WITHOUT = "right, more slowly"
ORDER = ("right", WITHOUT, "refused", "wrong", "not built")
HEAD = """# Models

<!-- experiments/architectures.py writes this page -->

Every causal language model of transformers {transformers}, made tiny and random ({layers} layers where it has as many as
asked for, float32, one thread), and what the package says of it against the plain model, one text at a time, without
padding, a cache or hooks: the means that `collect` reads at every layer but the last, cross-entropies, {new} tokens of
{texts} texts decoded alone and in one batch, and rows under edits at every depth that share their prompts. Of {total}:
{counts}. `python experiments/architectures.py` makes it again.

- **right**: all of these are the plain model's, with rows that join on the way through the blocks.
- **right, more slowly**: all of these are, but what the last column names would change numbers, so that the package does
  without and says so once: rows of several lengths in a batch, a cache, or rows that join. It finds that out by trying it
  on six tokens.
- **refused**: a sentence says why, before any work.
- **wrong**: some number is another; the last column says which.
- **not built**: no small configuration was found, or the plain model itself does not run on text; nothing is known.

Where a model is not listed (one with its own code, a new architecture), the same trial decides. Sites inside a block
are told by sums in a pass of two tokens (see [Design](design.md)) and refused where nothing adds up, whatever this table
says.

**Models that also see** (LLaVA, Qwen2-VL and Qwen2.5-VL, Gemma 3, PaliGemma, Idefics 3 and SmolVLM in
`tests/test_vision.py`; other image-text-to-text classes by the same way) load by name or folder. Read and steered is the part
that writes, which is found by its name: a vision tower may be as deep. On text it gives the numbers of its own text model.
An edit that was fitted on text steers captions too: `with edit.on(model): model.hf.generate(**processor_inputs)`. The
places of a picture's parts are no text: no position of `all`, `prompt` or `last`, but `positions="image"`, `everywhere` and
numbers. PaliGemma's text is read from left to right, and its prompts in both directions where `token_type_ids` say so.

| architecture | | |
|---|---|---|
"""


@dataclass
class Result:
    """What was found of an architecture: each check is "right", or what is wrong."""

    name: str
    outcome: str = ""  # one of ORDER
    why: str = ""
    without: str = ""  # what the package does without
    checks: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def tiny_config(name: str, **own: Any) -> Any:
    """The configuration of a tiny model of an architecture."""
    from transformers import AutoConfig

    made = AutoConfig.for_model(name)
    return type(made)(**_shrunk(made, {**OWN.get(name, {}), **own}))


def _shrunk(config: Any, own: dict[str, Any]) -> dict[str, Any]:
    """The keywords of a configuration like this one, but tiny; of its parts too."""
    small: dict[str, Any] = {}
    written = config.to_dict()
    depths = {written.get(key) for key in ("num_hidden_layers", "n_layer", "num_layers")} - {None}
    for key, value in written.items():
        part = vars(config).get(key)
        if hasattr(part, "to_dict"):
            small[key] = _shrunk(part, OWN.get(part.model_type, {}))
        elif isinstance(value, list) and len(value) in depths:
            kinds = list(dict.fromkeys(map(str, value)))  # every kind that the architecture has
            first = [value[list(map(str, value)).index(kind)] for kind in kinds]
            small[key] = (first * LAYERS)[:LAYERS]
        elif key in SIZES and (isinstance(value, int) or (value is None and key in FILLED)):
            small[key] = SIZES[key]
    if "kv_lora_rank" in written:  # all heads share what is compressed
        small["num_key_value_heads"] = SIZES["num_attention_heads"]
    return small | own


# What a configuration may leave open, and a tiny one has to say.
FILLED = {
    "num_experts_per_tok",
    "head_dim",
    "num_key_value_heads",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16, "mamba_n_groups": 1}
_PER_LAYER = {"vocab_size_per_layer_input": 12288, "hidden_size_per_layer_input": 8}
# What the sizes above do not fit.
OWN: dict[str, dict[str, Any]] = {
    "bamba": {**_MAMBA, "attn_layer_indices": [1, 3]},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "dots3_note_text": {"num_key_value_heads": 4},
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 64},
    "gemma3n_text": {**_PER_LAYER, "num_kv_shared_layers": 2, "laurel_rank": 8},
    "gemma4_text": {**_PER_LAYER, "num_kv_shared_layers": 0, "global_head_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 8},
    "granitemoehybrid": {**_MAMBA, "layer_types": ["mamba", "attention"] * 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 16},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "xlm": {"n_words": 12288, "emb_dim": 32, "causal": True},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
}


def made(name: str, **own: Any) -> HuggingFaceModel:
    """A tiny random model of an architecture, with the packaged model's tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = tiny_config(name, **own)
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if size > PARAMETERS:
        raise MemoryError(f"its smallest configuration has {size:,} parameters")
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for weight in hf.parameters():  # so that every part of it is felt, and rows differ
            noise = torch.randn_like(weight)
            if weight.ndim == 1:
                weight.add_(0.1 * noise)
            else:
                weight.copy_(noise / weight.shape[-1] ** 0.5)
    tokenizer = AutoTokenizer.from_pretrained(PACKAGED, padding_side="left")
    model = load(hf, tokenizer=tokenizer)
    assert isinstance(model, HuggingFaceModel)
    return model


# ------------------------------------------------------------------------------ the plain model


@torch.inference_mode()
def plain(hf: Any, ids: Sequence[int], *, states: bool = False) -> Any:
    """A pass of one text, without padding, a cache or anything of this package."""
    tokens = torch.tensor([list(ids)])
    mask = torch.ones_like(tokens)
    return hf(input_ids=tokens, attention_mask=mask, use_cache=False, output_hidden_states=states)


def greedy(hf: Any, ids: Sequence[int], new: int = NEW) -> list[int]:
    """The likeliest next tokens, each from a pass over all before it."""
    tokens = list(ids)
    for _ in range(new):
        tokens.append(int(plain(hf, tokens).logits[0, -1].argmax()))
    return tokens[len(ids) :]


# ------------------------------------------------------------------------------------ the checks


def check(name: str, **own: Any) -> Result:
    """Build an architecture and hold what the package says of it against the plain model."""
    start = time.monotonic()
    result = Result(name)
    try:
        with _at_most(SECONDS):
            _check(result, **own)
    except SteerlabError as error:
        result.outcome, result.why = "refused", str(error)
    except TimeoutError as error:
        result.outcome, result.why = "not built", str(error)
    except Exception as error:
        result.outcome = result.outcome or "not built"
        result.why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    result.seconds = round(time.monotonic() - start, 1)
    return result


def _check(result: Result, **own: Any) -> None:
    model = made(result.name, **own)
    ids = encode(model.tokenizer, [f"{text}\n" for text in TEXTS])
    plain(model.hf, ids[0])  # what does not run by itself is not built
    result.outcome = "wrong"
    checks = {
        "reading": lambda: reads(model, ids),
        "cross-entropy": lambda: predicts(model, ids),
        "alone": lambda: decodes(model, ids, together=False),
        "rows": lambda: decodes(model, ids, together=True),
        "shared": lambda: shares(model, ids),
    }
    for key, run in checks.items():
        result.checks[key] = run()
    wrong = {key: value for key, value in result.checks.items() if value != "right"}
    if not wrong:
        abilities = model.tried()
        result.without = abilities.why
        result.outcome = WITHOUT if abilities.why else "right"
    result.why = "; ".join(f"{key}: {value}" for key, value in wrong.items())


def reads(model: HuggingFaceModel, ids: list[list[int]]) -> str:
    """Whether `collect` gives the mean of the plain model's hidden states."""
    corpus = Corpus("texts", {"en": TEXTS}, tuple(range(len(TEXTS))))
    moments = collect(model, corpus, also=[])
    sums: Any = 0
    for tokens in ids:
        states = plain(model.hf, tokens, states=True).hidden_states
        if states is None or len(states) < model.n_layers:
            return "gives no hidden states to compare"
        lane = getattr(model.config, "altup_active_idx", 0)  # Gemma 3n has several streams
        states = [state[lane] if state.ndim == 4 else state for state in states]
        sums = sums + torch.stack(states)[:, 0, 1:].double().sum(1)
    means = sums / sum(len(tokens) - 1 for tokens in ids)
    # The last one may be behind the final norm, so it is left out. Some architectures give the
    # embedding first and some do not.
    inner = model.n_layers - 1
    found = [_close(moments.mean[0, :inner], means[start : start + inner]) for start in (1, 0)]
    return "right" if "right" in found else found[0]


def predicts(model: HuggingFaceModel, ids: list[list[int]]) -> str:
    """Whether `cross_entropy` gives that of the plain model's logits."""
    ours = cross_entropy(model, [f"{text}\n" for text in TEXTS], [Edit(()), *edit_of(model)])
    theirs = [_nats(plain(model.hf, tokens).logits[0], tokens) for tokens in ids]
    return _close(ours[0], torch.tensor(theirs))


def _nats(logits: Any, tokens: Sequence[int]) -> float:
    return float(torch.nn.functional.cross_entropy(logits[:-1].float(), torch.tensor(tokens[1:])))


def decodes(model: HuggingFaceModel, ids: list[list[int]], *, together: bool) -> str:
    """Whether outputs are what the plain model says, a prompt at a time or all in one batch."""
    prompts = [f"{text}\n" for text in TEXTS]
    options: Any = {"max_new_tokens": NEW, "one_line": False}
    if together:
        ours = generate(model, prompts, **options)
    else:
        ours = [generate(model, [prompt], **options)[0] for prompt in prompts]
    found = _same(ours, [_text(model, greedy(model.hf, tokens)) for tokens in ids])
    if found != "right" and ours == [_text(model, _generated(model.hf, tokens)) for tokens in ids]:
        found += ", as those of its own `generate` are with a cache"
    return found


def _generated(hf: Any, ids: Sequence[int]) -> list[int]:
    """What transformers' own `generate` gives for one text, with its cache."""
    out = hf.generate(torch.tensor([list(ids)]), max_new_tokens=NEW, do_sample=False)
    return [int(token) for token in out[0, len(ids) :]]


def shares(model: HuggingFaceModel, ids: list[list[int]]) -> str:
    """Whether rows that share a prompt under edits at several depths say what each says alone."""
    prompts = [f"{text}\n" for text in TEXTS[:2]]
    edits = edit_of(model)
    options: Any = {"max_new_tokens": NEW, "one_line": False}
    rows = [(prompt, edit) for prompt in prompts for edit in edits]
    ours = generate(
        model, [prompt for prompt, _ in rows], edit=stack([e for _, e in rows]), **options
    )
    theirs = []
    for prompt, edit in rows:
        [tokens] = encode(model.tokenizer, [prompt])
        with edit.on(model):
            theirs.append(_text(model, greedy(model.hf, tokens)))
    return _same(ours, theirs)


def edit_of(model: HuggingFaceModel) -> list[Any]:
    """Edits that each act at another layer, strongly enough to change what is said."""
    random = torch.Generator().manual_seed(1)
    layers = tuple(range(model.n_layers))
    means = 3 * torch.randn(2, len(layers), model.width, generator=random)
    basis = torch.nn.functional.normalize(means, dim=-1)[:, :, None]
    directions = Directions(means, basis, means, ("en", "es"), layers, "resid_post")
    return [add(directions.between("en", "es").at(layer)) for layer in layers]


# ------------------------------------------------------------------------------------- comparing


def _text(model: HuggingFaceModel, tokens: Sequence[int]) -> str:
    """What tokens say until one of them ends the text."""
    until = [number for number, token in enumerate(tokens) if token in model.ends]
    kept = tokens[: until[0]] if until else tokens
    return str(model.tokenizer.decode(kept, skip_special_tokens=True))


def _same(ours: Sequence[str], theirs: Sequence[str]) -> str:
    unlike = sum(one != other for one, other in zip(ours, theirs, strict=True))
    return "right" if not unlike else f"{unlike} of {len(ours)} outputs are others"


def _close(ours: Any, theirs: Any) -> str:
    apart = float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())
    return "right" if apart < 1e-4 else f"differs by {apart:.1%}"


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)  # of the processor, whatever else it does
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# --------------------------------------------------------------------------------------- the page


def names() -> list[str]:
    """Every causal architecture of transformers."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def page(results: Sequence[Result]) -> str:
    """The page of all results."""
    from importlib.metadata import version

    counts = Counter(result.outcome for result in results)
    rows = [
        f"| `{each.name}` | {each.outcome} | {_cell(each)} |"
        for each in sorted(results, key=lambda each: (ORDER.index(each.outcome), each.name))
    ]
    return (
        HEAD.format(
            transformers=version("transformers"),
            layers=LAYERS,
            texts=len(TEXTS),
            new=NEW,
            total=len(results),
            counts=", ".join(f"{counts[kind]} {kind}" for kind in ORDER if counts[kind]),
        )
        + "\n".join(rows)
        + "\n"
    )


def _cell(result: Result) -> str:
    """What a result's last column says, on one line."""
    without = f"without {result.without}" if result.outcome == WITHOUT else ""
    return (without or result.why).replace("|", "/").replace("\n", " ")[:300]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="architectures to check and print")
    parser.add_argument("--keep", type=Path, help="a folder of results; those there are not rerun")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    results = []
    for name in arguments.only or names():
        file = arguments.keep and arguments.keep / f"{name}.json"
        if file and file.exists():
            results.append(Result(**json.loads(file.read_text("utf-8"))))
            continue
        results.append(check(name))
        print(
            f"{name}: {results[-1].outcome} ({_cell(results[-1])}) {results[-1].seconds}",
            flush=True,
        )
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(asdict(results[-1])), "utf-8")
    if not arguments.only:
        PAGE.write_text(page(results), "utf-8")


if __name__ == "__main__":
    main()
