"""One contender of the sweep as a process of its own: requests come as JSON lines, seconds and
tokens go back.

`python worker.py CONTENDER MATERIAL` runs under any Python that has torch, transformers,
safetensors and the contender. A request {"cells": [...], "rows": 8, "natural": false, "bos": false}
is answered by {"seconds": ..., "tokens": [[...], ...]} (`texts` from steerlab), a row for each cell
and prompt. `rows` is how many go through the model at once; `natural` lets a row end with its line,
otherwise every row runs to the last token, EOS or not; with `bos` the reference steers BOS too, as
some peers always do.

Each contender steers as its own documentation shows. The vector is added to a block's output at
every position; where a peer can leave BOS alone, it does. What padding says is masked, so whether
it is steered changes nothing.
"""

import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from safetensors import safe_open

Request = dict[str, Any]


class Material:
    """The file that all contenders read."""

    def __init__(self, file: str) -> None:
        with safe_open(file, framework="pt") as opened:
            told = json.loads(opened.metadata()["about"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
        self.folder, self.prompts, self.new_tokens = (
            told["folder"],
            told["prompts"],
            told["new_tokens"],
        )
        self.layers, self.strengths = told["layers"], told["strengths"]
        self.bos, self.eos, self.pad = told["bos"], told["eos"], told["pad"]
        self.ids, self.mask, self.shift = tensors["ids"], tensors["mask"], tensors["shift"]
        self.unit, self.gap = tensors["unit"], tensors["gap"]
        self.dtype = getattr(torch, told.get("dtype", "float32"))
        self.breaks, self.blank = tensors["breaks"], tensors["blank"]

    def place(self, cell: int) -> tuple[int, int, int]:
        """(layer, target, strength) of a cell, as places in the tensors."""
        _, targets, strengths, _ = self.shift.shape
        return cell // (targets * strengths), cell // strengths % targets, cell % strengths

    def edit(self, cell: int) -> tuple[int, torch.Tensor]:
        """The layer of a cell in the model, and its vector."""
        layer, target, strength = self.place(cell)
        return self.layers[layer], self.shift[layer, target, strength]

    def batches(self, rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(ids, mask) of the prompts, all at once or one at a time without padding."""
        if rows >= len(self.ids):
            yield self.ids, self.mask
            return
        for ids, mask in zip(self.ids, self.mask, strict=True):
            yield ids[mask][None], mask[mask][None]

    def kept(self, ids: torch.Tensor, mask: torch.Tensor, *, bos: bool) -> torch.Tensor:
        """[row pos 1], 1 where the vector is added: text, and BOS only if asked for."""
        return (mask if bos else mask & (ids != self.bos)).float()[:, :, None]

    def line_ends(self, prompt: int) -> Any:
        """A stopping criterion of transformers: a row ends at the first line break after some
        text."""

        def ended(ids: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
            new = ids[:, prompt:]
            said = (~self.blank[new]).cumsum(1) > 0
            return (self.breaks[new] & said).any(1)

        return ended


class Contender:
    """A way to run cells; most run one cell, or one prompt of it, at a time."""

    package = "transformers"

    def __init__(self, material: Material) -> None:
        self.material = material

    def run(self, request: Request) -> list[Any]:
        made: list[Any] = []
        for cell in request["cells"]:
            for ids, mask in self.material.batches(request["rows"]):
                layer, vector = self.material.edit(cell)
                made += self.steered(layer, vector, ids, mask, request)[:, ids.shape[1] :].tolist()
        return made

    def steered(
        self, layer: int, vector: Any, ids: Any, mask: Any, request: Request
    ) -> torch.Tensor:
        raise NotImplementedError


class HuggingFace(Contender):
    """(a) `generate` of transformers under a plain forward hook; the peers below differ in how
    they attach."""

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        transformers = importlib.import_module("transformers")
        load = transformers.AutoModelForCausalLM.from_pretrained
        self.model = load(material.folder, dtype=torch.float32).eval()

    def options(self, ids: torch.Tensor, request: Request) -> dict[str, Any]:
        self.model.generation_config.eos_token_id = (
            self.material.eos if request["natural"] else None
        )
        more = (
            {"stopping_criteria": [self.material.line_ends(ids.shape[1])]}
            if request["natural"]
            else {}
        )
        return {
            "max_new_tokens": self.material.new_tokens,
            "do_sample": False,
            "pad_token_id": self.material.pad,
        } | more

    def steered(
        self, layer: int, vector: Any, ids: Any, mask: Any, request: Request
    ) -> torch.Tensor:
        with self.attached(layer, vector, ids, mask, request):
            return self.model.generate(
                input_ids=ids, attention_mask=mask.long(), **self.options(ids, request)
            )

    def attached(
        self, layer: int, vector: Any, ids: Any, mask: Any, request: Request
    ) -> AbstractContextManager[Any]:
        kept = self.material.kept(ids, mask, bos=request["bos"])

        def hook(_: Any, __: Any, out: Any) -> Any:
            return out + (vector * kept if out.shape[1] == kept.shape[1] else vector)

        return self.model.model.layers[layer].register_forward_hook(hook)


class SteeringVectors(HuggingFace):
    """(b) `with SteeringVector(...).apply(model)`: every position, BOS and padding among them."""

    package = "steering-vectors"

    def attached(
        self, layer: int, vector: Any, ids: Any, mask: Any, request: Request
    ) -> AbstractContextManager[Any]:
        library = importlib.import_module("steering_vectors")
        return library.SteeringVector({layer: vector}, "decoder_block").apply(self.model)


class Repeng(HuggingFace):
    """(e) `ControlModel(model, [layer]).set_control(vector)`, then `generate`: every position
    but padding, also BOS."""

    package = "repeng"

    def steered(
        self, layer: int, vector: Any, ids: Any, mask: Any, request: Request
    ) -> torch.Tensor:
        library = importlib.import_module("repeng")
        options = self.options(ids, request)
        controlled = library.ControlModel(self.model, [layer])
        try:
            controlled.set_control(library.ControlVector("llama", {layer: vector.numpy()}), 1.0)
            return controlled.generate(input_ids=ids, attention_mask=mask.long(), **options)
        finally:
            controlled.unwrap()


class NNsight(Contender):
    """(c) `model.generate` with an in-place edit in `tracer.iter`; several cells at once as one
    `invoke` each."""

    package = "nnsight"

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        wrap = importlib.import_module("nnsight").TransformersModel
        self.model = wrap(
            material.folder, task="text-generation", dispatch=True, dtype=material.dtype
        )
        self.model.tokenizer.padding_side = "left"

    def run(self, request: Request) -> list[Any]:
        if request["rows"] <= len(self.material.ids):
            return super().run(request)
        size, cells, made = request["rows"] // len(self.material.ids), request["cells"], []
        for start in range(0, len(cells), size):
            made += self.together(cells[start : start + size], request)
        return made

    def options(self, ids: torch.Tensor, request: Request) -> dict[str, Any]:
        self.model.pipeline.model.generation_config.eos_token_id = (
            self.material.eos if request["natural"] else None
        )
        more = (
            {"stopping_criteria": [self.material.line_ends(ids.shape[1])]}
            if request["natural"]
            else {}
        )
        return {
            "max_new_tokens": self.material.new_tokens,
            "do_sample": False,
            "pad_token_id": self.material.pad,
        } | more

    def rows(self, ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
        return [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]

    def steered(
        self, layer: int, vector: Any, ids: Any, mask: Any, request: Request
    ) -> torch.Tensor:
        model, prompts, steps = self.model, self.rows(ids, mask), self.material.new_tokens
        first = vector * self.material.kept(ids, mask, bos=request["bos"])
        options = self.options(ids, request)
        with model.generate(**options) as tracer:
            with tracer.invoke(prompts):
                for step in tracer.iter[:steps]:
                    model.model.layers[layer].output[:] += first if step == 0 else vector
            with tracer.invoke():  # reached also when every row has ended before the last step
                result = tracer.result.save()
        return result

    def together(self, cells: list[int], request: Request) -> list[Any]:
        ids, mask, steps, model = (
            self.material.ids,
            self.material.mask,
            self.material.new_tokens,
            self.model,
        )
        kept = self.material.kept(ids, mask, bos=request["bos"])
        prompts, options = self.rows(ids, mask), self.options(ids, request)
        edits = [self.material.edit(cell) for cell in cells]
        with model.generate(**options) as tracer:
            for layer, vector in edits:
                with tracer.invoke(prompts):
                    for step in tracer.iter[:steps]:
                        model.model.layers[layer].output[:] += (
                            vector * kept if step == 0 else vector
                        )
            with tracer.invoke():
                result = tracer.result.save()
        return result[:, ids.shape[1] :].tolist()


class Hooked(Contender):
    """(d) `HookedTransformer.generate` inside `model.hooks`; ends a row at any token with a line
    break."""

    package = "transformer-lens"

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        transformers = importlib.import_module("transformers")
        lens = importlib.import_module("transformer_lens")
        names: Any = importlib.import_module("transformer_lens.loading_from_pretrained")
        names.get_official_model_name = lambda model_name: (
            model_name
        )  # it knows only names, not folders
        hf = transformers.AutoModelForCausalLM.from_pretrained(material.folder, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(material.folder, padding_side="left")
        load = lens.HookedTransformer.from_pretrained_no_processing
        self.model = load(
            material.folder, hf_model=hf, tokenizer=tokenizer, device="cpu", dtype=torch.float32
        )
        self.stops = [material.eos, *material.breaks.nonzero()[:, 0].tolist()]

    def steered(
        self, layer: int, vector: Any, ids: Any, mask: Any, request: Request
    ) -> torch.Tensor:
        kept = self.material.kept(ids, mask, bos=request["bos"])

        def add(h: torch.Tensor, hook: Any) -> torch.Tensor:
            return h + (vector * kept if h.shape[1] == kept.shape[1] else vector)

        natural: dict[str, Any] = {"stop_at_eos": request["natural"], "eos_token_id": self.stops}
        with self.model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_post", add)]):
            return self.model.generate(
                ids,
                max_new_tokens=self.material.new_tokens,
                do_sample=False,
                verbose=False,
                **natural,
            )


class Steerlab(Contender):
    """Ours: every row in one call, each with its own edit."""

    package = "steerlab"

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self.library: Any = importlib.import_module("steerlab")
        self.direction = importlib.import_module("steerlab.core.directions").Direction
        self.model = self.library.load(material.folder, dtype="float32")
        self.eos = self.model.tokenizer.eos_token

    def run(self, request: Request) -> list[Any]:
        self.model.tokenizer.eos_token = self.eos if request["natural"] else None
        edits = [
            edit
            for cell in request["cells"]
            for edit in [self.added(cell)] * len(self.material.prompts)
        ]
        prompts = self.material.prompts * len(request["cells"])
        options = {"max_new_tokens": self.material.new_tokens, "one_line": request["natural"]}
        return self.library.generate(self.model, prompts, edit=self.library.stack(edits), **options)

    def added(self, cell: int) -> Any:
        layer, target, strength = self.material.place(cell)
        unit, gap = self.material.unit[layer, target][None], self.material.gap[layer, target][None]
        step = self.direction(
            target=str(target),
            source=None,
            layers=(self.material.layers[layer],),
            site="resid_post",
            unit=unit,
            gap=gap,
            start=torch.zeros_like(unit),
            basis=unit[:, None],
        )
        return self.library.add(step, strength=self.material.strengths[strength])


CONTENDERS = {
    "steerlab": Steerlab,
    "hooks": HuggingFace,
    "steering-vectors": SteeringVectors,
    "nnsight": NNsight,
    "hooked-transformer": Hooked,
    "repeng": Repeng,
}


def answer(contender: Contender, request: Request) -> dict[str, Any]:
    """What a request costs, with what it gave."""
    with torch.no_grad():
        start, cpu = time.perf_counter(), time.process_time()
        made = contender.run(request)
        spent, cpu = time.perf_counter() - start, time.process_time() - cpu
    said = "texts" if made and isinstance(made[0], str) else "tokens"
    return {"seconds": spent, "cpu seconds": cpu, said: made}


def versions(contender: Contender) -> dict[str, str]:
    found = {
        name: importlib.metadata.version(name)
        for name in ("torch", "transformers", contender.package)
    }
    return found | {"python": platform.python_version()}


def main() -> None:
    name, file = sys.argv[1:]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print goes to the log
    contender = CONTENDERS[name](Material(file))
    print(
        json.dumps({"versions": versions(contender)}), file=replies, flush=True
    )  # the model is there
    for line in sys.stdin:
        print(json.dumps(answer(contender, json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
