"""The logit lens: what the model would say next if it stopped at each layer, by language."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import steerlab.engine.batching as batches
from steerlab.analysis.lens import Lens, Read
from steerlab.core.corpus import Corpus, as_texts
from steerlab.core.errors import SteerlabError
from steerlab.core.progress import bar
from steerlab.edits import Edit
from steerlab.engine.forward import need_rows
from steerlab.engine.inputs import chosen_layers
from steerlab.engine.prompts import encode, pad
from steerlab.engine.token_lexicon import Lexicon, packaged_lexicon
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.models.positions import Positions

SITE = "resid_post"
_CLOSE = 0.02  # how far the lens of the last layer may be from what the model says, as probability


@torch.inference_mode()
def lens(
    model: Any,
    texts: str | Sequence[str] | Corpus,
    *,
    edit: Edit | None = None,
    layers: Iterable[int] | None = None,
    words: Lexicon | None = None,
    batch: int | None = None,
    progress: bool | None = None,
) -> Lens:
    """How much of the next token's probability lies on each language's own tokens, at each layer
    and position: the residual stream after the layer, through the final norm and the unembedding.

    Formula: p_l = softmax(W_U norm(h_l)), and M(lang) = Σ_u w_lang(u) p_l(u) with the weights w of
    `lexicon`. Under an edit each text is read twice, and what it is without stands beside. The
    lens is no probe: that a layer's stream reads as English shows what its words are nearest to,
    not what the model thinks. Source: logit lens (nostalgebraist 2020); by language in "Do Llamas
    Work in English?" (Wendler et al., arXiv 2402.10588).

    Raises `SteerlabError` for an edit of generated positions alone, as nothing is generated, and
    for a model whose logits are not those of its norm and unembedding.

    Args:
        model: what `load` takes.
        texts: one text, several, or a `Corpus`, whose texts are told apart by their language.
        edit: what is done to the activations, or a stack with one edit for each text.
        layers: which layers are read; by default all.
        words: which tokens are each language's own; by default by the sentences in the package.
        batch: the most texts that run together; by default as many as memory advises.
        progress: whether to show a bar on stderr; by default in a terminal and in a notebook.
    """
    model = load(model)
    chosen = chosen_layers(model, layers)
    named = _named(texts)
    words = packaged_lexicon(model) if words is None else words
    words.need_fits(model)
    ids = encode(model.tokenizer, [text for text, _, _ in named])
    need_rows(model, ids, edit, None, new=0, unsteered=edit is not None)
    weights = words.weights.to(model.device)
    rows = batches.advise(model, max(map(len, ids)), every=True) if batch is None else batch
    runs: list[Edit | None] = [edit] if edit is None else [edit, None]
    masses: list[list[Tensor]] = []
    tops: list[Tensor] = []
    with bar(progress=progress) as display, model.turns.taken():
        task = display.add_task("reading", total=len(ids) * len(runs))
        for run, each in enumerate(runs):
            masses.append([])
            for start in range(0, len(ids), max(1, rows)):
                part = list(range(start, min(len(ids), start + max(1, rows))))
                reading = _Reading(model, weights, chosen, [len(ids[row]) for row in part])
                reading.run([ids[row] for row in part], part, each)
                masses[-1] += reading.masses
                if not run:
                    tops += reading.tops
                display.advance(task, len(part))
    reads = []
    for row, (text, lang, sentence) in enumerate(named):
        before = masses[1][row] if len(runs) > 1 else None
        pieces = _pieces(model, ids[row][-masses[0][row].shape[1] :])
        top = tuple(_pieces(model, of_layer) for of_layer in tops[row].tolist())
        reads.append(Read(text, lang, sentence, pieces, masses[0][row], before, top))
    return Lens(words.langs, chosen, tuple(reads), model.metadata, words.sizes)


def _named(texts: str | Sequence[str] | Corpus) -> list[tuple[str, str | None, int]]:
    """Each text with its language, if that is known, and the number of its sentence."""
    if isinstance(texts, Corpus):
        return [
            (line, lang, texts.numbers[index] if texts.aligned else index)
            for lang in texts.langs
            for index, line in enumerate(texts[lang])
        ]
    listed = as_texts(texts, "lens")
    if not listed:
        raise SteerlabError("lens was given no text; give one or more")
    return [(text, None, number) for number, text in enumerate(listed)]


def _pieces(model: Model, ids: Sequence[int]) -> tuple[str, ...]:
    return tuple(model.tokenizer.batch_decode([[token] for token in ids]))


class _Reading:
    """One batch of texts: masses `[layer pos lang]` and likeliest tokens `[layer pos]` of each,
    without the tokens that begin a text."""

    def __init__(
        self,
        model: Model,
        weights: Float[Tensor, "lang vocab"],
        layers: Sequence[int],
        lengths: Sequence[int],
    ):
        self.model = model
        self.weights = weights
        self.layers = layers
        begins = max(1, len(model.begins["bos"]))
        self.kept = [max(1, length - begins) for length in lengths]
        self.masses = [torch.zeros(len(layers), kept, len(weights)) for kept in self.kept]
        self.tops = [torch.zeros(len(layers), kept, dtype=torch.long) for kept in self.kept]
        self.last: list[Tensor] = []  # of each row, the log-probabilities after its last token
        self.scale = _scaling(model)

    def run(self, ids: Sequence[list[int]], rows: Sequence[int], edit: Edit | None) -> None:
        """Read the texts of these rows, under their edits or without."""
        model = self.model
        tokens, mask = pad(ids, model.padding, model.device)
        # An edit goes on first, so that the lens sees what it made.
        looks = [(SITE, layer, self._look(number)) for number, layer in enumerate(self.layers)]
        with ExitStack() as attached:
            if edit is not None:
                attached.enter_context(edit.on(model))
            attached.enter_context(model.attached(looks))
            numbers = torch.tensor(rows, device=model.device)
            positions = model.positions(tokens, mask, rows=numbers)
            logits, _ = model.forward(tokens, mask, last=1, positions=positions)
        if self.layers[-1] == model.n_layers - 1:
            self._check(logits[:, -1], mask)

    def _look(self, number: int) -> Any:
        def look(h: Float[Tensor, "row pos width"], positions: Positions) -> None:
            if self.layers[number] == self.model.n_layers - 1:
                self.last = []
            # One by one: all positions of a batch times a large vocabulary fill a memory.
            for row, kept in enumerate(self.kept):
                logits = self._logits(h[row, -kept:])
                chances = logits.softmax(-1)
                self.masses[row][number] = (chances @ self.weights.T).cpu()
                self.tops[row][number] = logits.argmax(-1).cpu()
                if self.layers[number] == self.model.n_layers - 1:
                    self.last.append(logits[-1].log_softmax(-1))

        return look

    def _logits(self, h: Float[Tensor, "pos width"]) -> Float[Tensor, "pos vocab"]:
        head = self.model.head
        device = head.unembedding.device
        normed = head.norm(h[None].to(device, head.unembedding.dtype))[0]
        return self.scale((normed @ head.unembedding.T).float()).to(self.model.device)

    def _check(self, logits: Float[Tensor, "row vocab"], mask: Bool[Tensor, "row pos"]) -> None:
        """Raise where the lens of the last layer is not what the model says: then it reads the
        stream by another head than the model's."""
        for row, by_lens in enumerate(self.last):
            said = logits[row].float().log_softmax(-1)
            far = float((said.exp() - by_lens.exp()).abs().sum()) / 2
            if not far <= _CLOSE:
                raise SteerlabError(
                    f"the logits of {self.model.name} are not those of its final norm and "
                    f"unembedding (they differ by {far:.0%} of the probability), so that a lens "
                    "through these would not be what it says; use another model"
                )


def _scaling(model: Model) -> Any:
    """What a model does to its logits at the end: Gemma 2 keeps them below a cap, Granite and
    Cohere scale them."""
    config = model.config
    cap = getattr(config, "final_logit_softcapping", None) or getattr(
        config, "output_logits_soft_cap", None
    )
    if cap and cap > 0:
        return lambda logits: cap * torch.tanh(logits / cap)
    divided = getattr(config, "logits_scaling", None) or 1.0
    times = getattr(config, "logit_scale", None) or 1.0
    return lambda logits: logits * (times / divided)
