"""Train polyglot on a CPU or on CUDA, and write a Hugging Face folder again and again.

`python experiments/polyglot/data.py TEXT WORK` first; then `python experiments/polyglot/train.py
WORK --minutes 180`. The learning rate follows the clock (constant, then down to zero over the last
third), so the run ends on time whatever else the machine does. `--start FOLDER` warms up from
16-bit weights; a run that was cut off goes on from WORK/state.pt.

What makes it bearable on two cores without bf16 (2.2 times the tokens per second of the plain loop,
measured on AVX2): small micro-batches that stay in the cache, the softmax over the tokens of the
batch and a random sample (corrected for how likely a token was to be in it), and half of the layers
for the first part of the run, stacked afterwards.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # threads that wait asleep share the cores with other jobs

import torch
from data import VOCABULARY, Documents
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WIDTH, LAYERS, HEADS, HIDDEN, CONTEXT, EPS, THETA = 256, 8, 4, 704, 512, 1e-5, 10_000.0
HEAD = WIDTH // HEADS
NEGATIVES = 1200  # tokens drawn at random into the softmax, beside those of the batch
MUON_RATE, ADAM_RATE, MOMENTUM = 0.012, 3e-3, 0.95
WARM_UP_STEPS, DECAY_SHARE = 80, 0.35
SAVE_SECONDS, KEEP_SECONDS = 180, 600

Weights = dict[
    str, torch.Tensor
]  # blocks stacked on the first axis: qkv, out, up (gate and up), down, norms


def new_weights(layers: int, seed: int = 0) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape, scale=0.02: torch.randn(*shape, generator=generator) * scale  # noqa: E731
    deep = 0.02 / math.sqrt(2 * LAYERS)
    return {
        "embed": normal(VOCABULARY, WIDTH),
        "qkv": normal(layers, 3 * WIDTH, WIDTH),
        "out": normal(layers, WIDTH, WIDTH, scale=deep),
        "up": normal(layers, 2 * HIDDEN, WIDTH),
        "down": normal(layers, WIDTH, HIDDEN, scale=deep),
        "norm_in": torch.ones(layers, WIDTH),
        "norm_mid": torch.ones(layers, WIDTH),
        "norm_final": torch.ones(WIDTH),
    }


STACKED = ("qkv", "out", "up", "down", "norm_in", "norm_mid")
# where each slice of a stacked tensor lives in a Hugging Face Llama block
PLACES = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
    "norm_in": ("input_layernorm",),
    "norm_mid": ("post_attention_layernorm",),
}


def to_hugging_face(weights: Weights) -> LlamaForCausalLM:
    layers = len(weights["qkv"])
    state = {
        "model.embed_tokens.weight": weights["embed"],
        "model.norm.weight": weights["norm_final"],
    }
    for name, places in PLACES.items():
        for layer in range(layers):
            for place, part in zip(places, weights[name][layer].chunk(len(places)), strict=True):
                state[f"model.layers.{layer}.{place}.weight"] = part
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=EPS,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict({k: v.detach().float().cpu().contiguous() for k, v in state.items()})
    return model.eval()


def from_hugging_face(folder: Path) -> Weights:
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    state, layers = model.state_dict(), model.config.num_hidden_layers
    weights = {
        "embed": state["model.embed_tokens.weight"],
        "norm_final": state["model.norm.weight"],
    }
    for name, places in PLACES.items():
        rows = [
            torch.cat([state[f"model.layers.{layer}.{place}.weight"] for place in places])
            for layer in range(layers)
        ]
        weights[name] = torch.stack(rows)
    return {k: v.clone() for k, v in weights.items()}


def block(
    x: Any,
    norm_in: Any,
    norm_mid: Any,
    qkv: Any,
    out: Any,
    up: Any,
    down: Any,
    cos: Any,
    sin: Any,
    bias: Any,
) -> Any:
    rows, length, _ = x.shape
    split = functional.linear(functional.rms_norm(x, (WIDTH,), norm_in, EPS), qkv)
    q, k, v = split.view(rows, length, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
    turned = lambda a: torch.cat([-a[..., HEAD // 2 :], a[..., : HEAD // 2]], -1)  # noqa: E731
    q, k = q * cos + turned(q) * sin, k * cos + turned(k) * sin
    mixed = functional.scaled_dot_product_attention(
        q.to(v.dtype), k.to(v.dtype), v, attn_mask=bias.to(v.dtype)
    )
    x = x + functional.linear(mixed.transpose(1, 2).reshape(rows, length, WIDTH), out)
    gate, value = functional.linear(functional.rms_norm(x, (WIDTH,), norm_mid, EPS), up).chunk(
        2, -1
    )
    return x + functional.linear(functional.silu(gate) * value, down)


def hidden(
    weights: Weights, tokens: torch.Tensor, numbers: torch.Tensor, run: Any = block
) -> torch.Tensor:
    """The final normed residual [row pos width]; each packed document sees only itself, from
    position 0."""
    length = tokens.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
    sees = (numbers[:, :, None] == numbers[:, None, :]) & causal
    bias = torch.zeros(sees.shape, device=tokens.device).masked_fill(~sees, -1e9)[:, None]
    turn = THETA ** (-torch.arange(0, HEAD, 2, device=tokens.device) / HEAD)
    angle = torch.cat([(sees.sum(-1) - 1)[..., None] * turn] * 2, -1)[:, None]
    x, cos, sin = functional.embedding(tokens, weights["embed"]), angle.cos(), angle.sin()
    names = ("norm_in", "norm_mid", "qkv", "out", "up", "down")
    for layer in range(len(weights["qkv"])):
        x = run(x, *(weights[name][layer] for name in names), cos, sin, bias)
    return functional.rms_norm(x, (WIDTH,), weights["norm_final"], EPS)


class Softmax:
    """Cross-entropy over the batch's own tokens and a sample; rarer candidates weigh as many as
    they stand for."""

    def __init__(self, device: str):
        self.seen = torch.ones(VOCABULARY, device=device)

    def begin(self, targets: torch.Tensor) -> None:
        self.seen += torch.bincount(targets, minlength=VOCABULARY)
        drawn = torch.randint(VOCABULARY, (NEGATIVES,), device=targets.device)
        self.candidates = torch.unique(torch.cat([targets, drawn]))
        self.place = torch.zeros(VOCABULARY, dtype=torch.long, device=targets.device)
        self.place[self.candidates] = torch.arange(len(self.candidates), device=targets.device)
        share = self.seen / self.seen.sum()
        absent = (len(targets) * torch.log1p(-share)).exp() * (1 - 1 / VOCABULARY) ** NEGATIVES
        self.log_inclusion = torch.log1p(-absent)[self.candidates]

    def nats(self, h: torch.Tensor, embed: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = functional.linear(h, embed[self.candidates]).float()
        place = self.place[targets][:, None]
        own = logits.gather(1, place)
        others = (logits - self.log_inclusion).scatter(1, place, own)
        return torch.logsumexp(others, 1) - own[:, 0]


@torch.no_grad()
def orthogonal(batch: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz towards the nearest semi-orthogonal matrices [n a b] (Jordan et al. 2024,
    Muon)."""
    flip = batch.shape[-2] > batch.shape[-1]
    x = batch.mT if flip else batch
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if flip else x


class Muon:
    """Muon on the stacked matrices, in whatever precision the weights have (torch's own always
    works in bf16)."""

    def __init__(self, weights: Weights):
        self.weights = weights
        self.momentum = {name: torch.zeros_like(w) for name, w in weights.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for name, weight in self.weights.items():
            gradient: Any = weight.grad
            buffer = self.momentum[name].mul_(MOMENTUM).add_(gradient)
            update = gradient + MOMENTUM * buffer
            _, rows, columns = update.shape
            rows //= len(PLACES[name])
            turn = orthogonal(update.reshape(-1, rows, columns)) * math.sqrt(
                max(1.0, rows / columns)
            )
            weight.mul_(1 - 0.01 * rate).add_(turn.reshape(weight.shape), alpha=-rate)


def scale_at(step: int, progress: float) -> float:
    return min(1.0, (step + 1) / WARM_UP_STEPS) * min(1.0, max(0.0, (1 - progress) / DECAY_SHARE))


def held_out_bits(
    model: Any, held: dict, tokenizer: Tokenizer, lines: int = 48
) -> dict[str, float]:
    """Bits per byte of held-out lines per language, and (`en>xx`) of translations given their
    English line."""
    result = {}
    for iso, pool in [*held["mono"].items(), *((f"en>{k}", v) for k, v in held["pairs"].items())]:
        rows, starts, size = [], [], 0
        for item in pool[:lines]:
            given, text = ("", item) if isinstance(item, str) else (item[0] + "\n", item[1])
            before = tokenizer.encode(given).ids
            rows.append(
                torch.tensor(before + tokenizer.encode(text + "\n", add_special_tokens=False).ids)
            )
            starts.append(len(before))
            size += len((text + "\n").encode())
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        with torch.no_grad():
            logits = model(input_ids=tokens).logits[:, :-1]
        nats = functional.cross_entropy(
            logits.float().transpose(1, 2), tokens[:, 1:], reduction="none"
        )
        at = torch.arange(1, tokens.shape[1])[None]
        read = (at >= torch.tensor(starts)[:, None]) & (
            at < torch.tensor([len(r) for r in rows])[:, None]
        )
        result[iso] = round(float(nats[read].sum()) / math.log(2) / size, 4)
    return result


def save_folder(weights: Weights, work: Path, folder: Path) -> None:
    """A Hugging Face folder in bfloat16: each file is replaced whole."""
    fresh = folder.with_name(folder.name + ".new")
    model: Any = to_hugging_face(weights)
    model.to(torch.bfloat16).save_pretrained(fresh)
    PreTrainedTokenizerFast(
        tokenizer_file=str(work / "tokenizer" / "tokenizer.json"),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    ).save_pretrained(fresh)
    folder.mkdir(parents=True, exist_ok=True)
    for file in fresh.iterdir():
        os.replace(file, folder / file.name)
    fresh.rmdir()


class Run:
    """Weights, optimisers and the count of what was read: everything that a continued run needs."""

    def __init__(self, weights: Weights, device: str):
        self.step = self.tokens = 0
        self.seconds = 0.0
        self.place(weights, device)

    def place(self, weights: Weights, device: str) -> None:
        self.weights = {k: v.to(device).requires_grad_() for k, v in weights.items()}
        blocks = {k: v for k, v in self.weights.items() if v.ndim == 3}
        rest = [v for v in self.weights.values() if v.ndim < 3]
        self.muon = Muon(blocks)
        self.adam = torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)

    def grow(self, device: str) -> None:
        """Twice the layers: the trained stack, and the same stack again on top."""
        momentum = self.muon.momentum
        old = {k: v.detach() for k, v in self.weights.items()}
        self.place(
            {k: v.repeat(2, *[1] * (v.ndim - 1)) if k in STACKED else v for k, v in old.items()},
            device,
        )
        self.muon.momentum = {k: v.repeat(2, 1, 1) for k, v in momentum.items()}

    def save(self, file: Path) -> None:
        state = {
            "weights": self.weights,
            "momentum": self.muon.momentum,
            "adam": self.adam.state_dict(),
        }
        torch.save(
            state | {"count": [self.step, self.tokens, self.seconds]}, file.with_suffix(".new")
        )
        os.replace(file.with_suffix(".new"), file)

    @classmethod
    def load(cls, file: Path, device: str) -> "Run":
        state = torch.load(file, weights_only=True, map_location=device)
        run = cls({k: v.detach() for k, v in state["weights"].items()}, device)
        run.muon.momentum = state["momentum"]
        run.adam.load_state_dict(state["adam"])
        run.step, run.tokens, run.seconds = state["count"]
        return run


def has_bf16(device: str) -> bool:
    return device == "cuda" or "avx512_bf16" in Path("/proc/cpuinfo").read_text()


def one_step(
    run: Run, documents: Documents, softmax: Softmax, options: argparse.Namespace, block_: Any
) -> float:
    tokens, weight, numbers = (
        torch.from_numpy(a).to(options.device) for a in documents.batch(options.rows, 128)
    )
    keep = (numbers[:, 1:] == numbers[:, :-1]) & (numbers[:, 1:] > 0)
    softmax.begin(tokens[:, 1:][keep])
    total, loss_sum = weight[:, 1:][keep].sum(), 0.0
    for start in range(0, options.rows, options.micro):
        part = slice(start, start + options.micro)
        with torch.autocast(options.device, dtype=torch.bfloat16, enabled=has_bf16(options.device)):
            h = hidden(run.weights, tokens[part], numbers[part], block_)[:, :-1][keep[part]]
            nats = softmax.nats(h, run.weights["embed"], tokens[part, 1:][keep[part]])
        loss = (nats * weight[part, 1:][keep[part]]).sum() / total
        loss.backward()
        loss_sum += loss.item()
    run.tokens += int((numbers > 0).sum())
    return loss_sum


def train(options: argparse.Namespace) -> None:
    work, state = options.work, options.work / "state.pt"
    lines = json.loads((work / "lines.json").read_text("utf-8"))
    held = json.loads((work / "held_out.json").read_text("utf-8"))
    tokenizer = Tokenizer.from_file(str(work / "tokenizer" / "tokenizer.json"))
    if state.exists():
        run = Run.load(state, options.device)
    else:
        start = (
            from_hugging_face(options.start)
            if options.start
            else new_weights(LAYERS // 2, options.seed)
        )
        run = Run(start, options.device)
    documents = Documents(
        lines, tokenizer, mixture=tuple(options.mixture), seed=options.seed + run.step
    )
    softmax, block_ = Softmax(options.device), torch.compile(block) if options.compile else block
    before, begun = run.seconds, time.monotonic()
    saved = kept = begun
    losses: list[float] = []
    while True:
        run.seconds = before + time.monotonic() - begun
        progress = run.seconds / (options.minutes * 60)
        if len(run.weights["qkv"]) < LAYERS and progress > options.grow_at:
            run.grow(options.device)
        losses.append(one_step(run, documents, softmax, options, block_))
        scale = scale_at(run.step, progress)
        run.muon.step(MUON_RATE * scale)
        run.adam.param_groups[0]["lr"] = ADAM_RATE * scale
        run.adam.step()
        for weight in run.weights.values():
            weight.grad = None
        run.step += 1
        if run.step % 25 == 0:
            mean, losses = sum(losses) / len(losses), []
            speed = run.tokens / (run.seconds + 1e-9)
            print(
                f"{run.step} {run.seconds:.0f}s {run.tokens / 1e6:.2f}M {mean:.3f} {speed:.0f}/s",
                flush=True,
            )
        now, finished = time.monotonic(), progress >= 1 or run.step == options.steps
        if finished or now - saved > SAVE_SECONDS:
            saved = now
            save_folder(run.weights, work, work / "polyglot")
            run.save(state)
        if finished or now - kept > KEEP_SECONDS:
            kept = now
            save_folder(run.weights, work, work / "kept" / f"{run.tokens // 1000:06d}k")
            bits = held_out_bits(to_hugging_face(run.weights), held, tokenizer)
            point = {
                "step": run.step,
                "tokens": run.tokens,
                "seconds": round(run.seconds),
                "device": options.device,
            }
            point |= {
                "layers": len(run.weights["qkv"]),
                "bits_per_byte": bits,
                "read": documents.read,
            }
            with (work / "curve.jsonl").open("a") as file:
                file.write(json.dumps(point) + "\n")
        if finished:
            return


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="the folder that data.py wrote")
    parser.add_argument("--minutes", type=float, default=180)
    parser.add_argument(
        "--steps", type=int, default=0, help="stop after so many steps (0: by the clock)"
    )
    parser.add_argument("--rows", type=int, default=32, help="rows of 128 tokens in a step")
    parser.add_argument("--micro", type=int, default=8, help="rows in a micro-batch")
    parser.add_argument(
        "--mixture", type=float, nargs=3, default=(0.14, 0.53, 0.33), help="mono, bare, instructed"
    )
    parser.add_argument(
        "--grow-at", type=float, default=0.3, help="share of the time after which 4 layers become 8"
    )
    parser.add_argument("--start", type=Path, help="a folder of weights to start from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(options)


if __name__ == "__main__":
    main()
