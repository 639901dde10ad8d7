"""Polyglot as a small mixture of experts: each MLP becomes four copies of itself with a little noise
and a router from random numbers, trained on with a load-balancing loss.

    python experiments/experts/upcycle.py --minutes 60      # goes on where it was cut off
    python experiments/experts/routing_report.py                    # writes docs/experts.md

It reads the `estimate` split of the packaged sentences, or with `--text` a folder of <iso>.txt, and
never what the report reads (`test`) or the curve is of (`dev`). Two experts a token, whose weights
sum to 1, so that without the noise the model says at first exactly what polyglot says.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch

import steerlab as sl
from steerlab.models.loading import PACKAGED

EXPERTS, PER_TOKEN = 4, 2
NOISE = 0.05  # of the copies' weights, in standard deviations of each matrix
BALANCE = 0.02  # the weight of the load-balancing loss
RATE, WARM_UP, DECAY_SHARE = 3e-4, 50, 0.35
ROUTER_RATE = 10  # times the rate of the rest: it begins from random numbers
ROWS = 32  # sentences of a step, all of one language or not, unless --rows says otherwise
SAVE_SECONDS = 120
WORK = Path(__file__).parents[2] / "build" / "experts"


def upcycled(seed: int = 0, *, noise: float = NOISE) -> Any:
    """Polyglot's weights as a Mixtral of EXPERTS copies."""
    from transformers import LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

    dense = LlamaForCausalLM.from_pretrained(PACKAGED, dtype=torch.float32)
    old = dense.config
    config = MixtralConfig(
        vocab_size=old.vocab_size,
        hidden_size=old.hidden_size,
        intermediate_size=old.intermediate_size,
        num_hidden_layers=old.num_hidden_layers,
        num_attention_heads=old.num_attention_heads,
        num_key_value_heads=old.num_key_value_heads or old.num_attention_heads,
        head_dim=old.head_dim,
        max_position_embeddings=old.max_position_embeddings,
        rms_norm_eps=old.rms_norm_eps,
        rope_parameters=old.rope_parameters,
        sliding_window=None,
        num_local_experts=EXPERTS,
        num_experts_per_tok=PER_TOKEN,
        router_aux_loss_coef=BALANCE,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(seed)
    sparse = MixtralForCausalLM(config)
    kept = {name: each for name, each in dense.state_dict().items() if ".mlp." not in name}
    left = sparse.load_state_dict(kept, strict=False)
    assert not left.unexpected_keys
    assert all(".mlp." in name for name in left.missing_keys), left.missing_keys
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for old_layer, layer in zip(dense.model.layers, sparse.model.layers, strict=True):
            mlp: Any = old_layer.mlp
            experts: Any = layer.mlp.experts
            both = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
            for place, matrix in (
                (experts.gate_up_proj, both),
                (experts.down_proj, mlp.down_proj.weight),
            ):
                drawn = torch.randn(place.shape, generator=random)
                place.copy_(matrix + noise * matrix.std() * drawn)
            gate: Any = layer.mlp.gate
            gate.weight.copy_(0.02 * torch.randn(gate.weight.shape, generator=random))
    return sparse.eval()


def lines_of(text: Path | None) -> dict[str, list[str]]:
    """What is read, by language."""
    if text is None:
        found = sl.corpus().split("estimate")
        return {lang: list(found[lang]) for lang in found.langs}
    found = sl.texts(text)
    return {lang: list(found[lang]) for lang in found.langs}


class Reader:
    """An endless stream of batches of lines, each language as often as any other."""

    def __init__(
        self, lines: dict[str, list[str]], tokenizer: Any, seed: int, rows: int, device: str
    ):
        self.lines, self.tokenizer = lines, tokenizer
        self.rows, self.device = rows, device
        self.random = torch.Generator().manual_seed(seed)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(tokens, mask), [row pos]."""
        langs = list(self.lines)
        chosen = []
        for _ in range(self.rows):
            of_lang = self.lines[langs[self._draw(len(langs))]]
            chosen.append(of_lang[self._draw(len(of_lang))] + "\n")
        made = self.tokenizer(chosen, return_tensors="pt", padding=True, padding_side="right")
        return made["input_ids"].to(self.device), made["attention_mask"].to(self.device)

    def _draw(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.random))


def optimiser(hf: Any) -> torch.optim.Optimizer:
    """AdamW, with a higher rate for the routers."""
    routers = [each for name, each in hf.named_parameters() if ".mlp.gate." in name]
    rest = [each for name, each in hf.named_parameters() if ".mlp.gate." not in name]
    groups = [{"params": rest, "times": 1.0}, {"params": routers, "times": float(ROUTER_RATE)}]
    return torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), weight_decay=0.01)


def step(hf: Any, adam: torch.optim.Optimizer, reader: Reader, scale: float) -> dict[str, float]:
    """One step; gives the loss in nats a token, and that of the balance."""
    ids, mask = reader.batch()
    hf.train()
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda):
        out = hf(
            input_ids=ids,
            attention_mask=mask,
            labels=ids.masked_fill(mask == 0, -100),
            output_router_logits=True,
        )
    out.loss.backward()
    torch.nn.utils.clip_grad_norm_(hf.parameters(), 1.0)
    for group in adam.param_groups:
        group["lr"] = RATE * scale * group["times"]
    adam.step()
    adam.zero_grad(set_to_none=True)
    hf.eval()
    balance = out.aux_loss.item()
    return {"nats": out.loss.item() - BALANCE * balance, "balance": balance}


def scale_at(number: int, progress: float) -> float:
    """The rate's factor: warm-up, constant, then down to zero over the last third."""
    return min(1.0, (number + 1) / WARM_UP) * min(1.0, max(0.0, (1 - progress) / DECAY_SHARE))


def surprise(hf: Any, tokenizer: Any) -> float:
    """Nats a token on the dev sentences of all languages."""
    model, texts = sl.load(hf, tokenizer=tokenizer), sl.corpus().split("dev").take(16)
    every = [line for lang in texts.langs for line in texts[lang]]
    return float(sl.cross_entropy(model, every).mean())


def save(hf: Any, tokenizer: Any, adam: Any, state: dict[str, Any], work: Path) -> None:
    """A Hugging Face folder, and what a continued run needs, each replaced whole."""
    hf.save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")
    fresh = work / "state.new"
    torch.save({"adam": adam.state_dict(), **state}, fresh)
    os.replace(fresh, work / "state.pt")


def train(given: argparse.Namespace) -> None:
    from transformers import AutoTokenizer, MixtralForCausalLM

    work: Path = given.out
    tokenizer = AutoTokenizer.from_pretrained(PACKAGED)
    number, before = 0, 0.0
    file = work / "state.pt"
    if file.exists():
        hf: Any = MixtralForCausalLM.from_pretrained(work / "model", dtype=torch.float32)
        hf = hf.to(given.device)
        adam, state = optimiser(hf), torch.load(file, weights_only=True)
        adam.load_state_dict(state["adam"])
        number, before = state["number"], state["seconds"]
    else:
        hf = upcycled(given.seed)
        work.mkdir(parents=True, exist_ok=True)
        hf.save_pretrained(work / "start")
        tokenizer.save_pretrained(work / "start")
        hf = hf.to(given.device)
        adam = optimiser(hf)
    lines, seed = lines_of(given.text), given.seed + number
    reader = Reader(lines, tokenizer, seed, given.rows, given.device)
    begun = saved = time.monotonic()
    while True:
        seconds = before + time.monotonic() - begun
        progress = number / given.steps if given.steps else seconds / (60 * given.minutes)
        losses = step(hf, adam, reader, scale_at(number, progress))
        number += 1
        finished = progress >= 1 or number == given.steps
        if not math.isfinite(losses["nats"]):
            raise SystemExit(f"the loss is not finite at step {number}; start again, lower RATE")
        if number % 25 == 0 or finished:
            print(number, f"{seconds:.0f}s", losses, flush=True)
        if finished or time.monotonic() - saved > SAVE_SECONDS:
            saved = time.monotonic()
            save(hf, tokenizer, adam, {"number": number, "seconds": seconds}, work)
            where = torch.cuda.get_device_name() if given.device == "cuda" else given.device
            point = {"step": number, "seconds": round(seconds), "rows": given.rows, "device": where}
            point |= losses
            point["dev"] = surprise(hf, tokenizer)
            with (work / "curve.jsonl").open("a") as curve:
                curve.write(json.dumps(point) + "\n")
        if finished:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=0, help="instead of the minutes")
    parser.add_argument("--text", type=Path, help="a folder of <iso>.txt to read")
    parser.add_argument("--out", type=Path, default=WORK)
    parser.add_argument("--rows", type=int, default=ROWS, help="sentences of a step")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
