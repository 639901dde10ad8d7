"""What methods that choose units read of a model: each reading once for all of them, with what it
cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlab.core.corpus import Corpus
from steerlab.core.costs import Cost
from steerlab.core.errors import SteerlabError
from steerlab.engine.causal_lift import causal_lift
from steerlab.engine.collect import collect
from steerlab.engine.collect_gradients import collect_gradients
from steerlab.engine.collect_texts import collect_texts
from steerlab.engine.collect_units import collect_units
from steerlab.engine.language_mass import lexicon
from steerlab.engine.latent_pairs import latent_pairs
from steerlab.engine.prompts import prompt
from steerlab.engine.weights.steer2edit import agreements
from steerlab.estimate.units.foxp2 import candidates, foxp2_features
from steerlab.models.counting import counted
from steerlab.models.model import Model
from steerlab.sae import SAE, saes
from steerlab.sweeps.methods import Readings

Dictionaries = Mapping[int, SAE] | str | Path | None  # SAEs by layer, or their folder
# The causal lift costs a pass for each latent: so many are tried of each layer and language, on so
# many sentences.
LIFTED = 12
PROMPTS = 16
# The readings, in an order in which each finds what it needs of the others.
READ = (
    *("latents", "random", "shuffled", "neurons", "gradients", "texts", "lift", "pairs"),
    *("writing_neurons", "writing_heads"),
)
WRITING = {"writing_neurons": "mlp_post", "writing_heads": "attn_z"}


def read_units(
    model: Model,
    texts: Corpus,
    needs: set[str],
    *,
    source: str,
    form: str = "line",
    dictionaries: Dictionaries = None,
    prompts: int = PROMPTS,
    progress: bool | None = None,
) -> Readings:
    """Read everything that unit methods need of a model, each once.

    The causal lift is measured for the most selective features of each layer and language, on some
    of the source's sentences.

    Args:
        model: the model that is read.
        texts: the corpus.
        needs: fields of `Readings`.
        source: the language that directions lead from.
        form: the form of prompt.
        dictionaries: the model's SAEs by layer, or their folder; by default the package's.
        prompts: on how many sentences the causal lift is measured.
        progress: show how far the reading is; by default in a terminal and in a notebook.
    """
    texts[source]  # raises where the corpus has no such language
    of_saes = {"saes", "latents", "random", "shuffled", "lift", "pairs"}
    coders: Mapping[int, SAE] = load_saes(model, dictionaries) if needs & of_saes else {}
    # The lift tries what is most selective, and pairs are read of what it finds.
    wanted = {"latents": bool(coders), "lift": bool(needs & {"lift", "pairs"})}
    found: dict[str, Any] = {}

    def read(name: str) -> Any:
        match name:
            case "latents":
                return collect_units(model, texts, coders, progress=progress)
            case "random" | "shuffled":
                return collect_units(model, texts, coders, noise=name, progress=progress)
            case "neurons":
                return collect_units(model, texts, progress=progress)
            case "gradients":
                items, control = contrast(model, texts, source, form)
                return collect_gradients(model, items, control=control, site="mlp_post")
            case "texts":
                return collect_texts(model, texts, site="mlp_post", form=form, read="last")
            case "writing_neurons" | "writing_heads":
                site = WRITING[name]
                moments = collect(
                    model, texts, site=site, source=source, form=form, also=[], progress=progress
                )
                return agreements(model, moments, source=source)
            case "lift":
                # The words of a language are learnt on other sentences than it is measured on.
                words = lexicon(model, texts.drop(prompts))
                some = candidates(found["latents"], source=source, pool=LIFTED)
                return causal_lift(
                    model,
                    texts.take(prompts),
                    coders,
                    some,
                    words,
                    firing=found["latents"],
                    source=source,
                    form=form,
                    progress=progress,
                )
            case "pairs":
                features = foxp2_features(found["latents"], found["lift"])
                return latent_pairs(model, texts, coders, features, source=source, form=form)

    costs: dict[str, Cost] = {}
    for name in READ:
        if wanted.get(name, name in needs):
            with counted(model) as count:
                found[name] = read(name)
            costs[name] = count.cost
    return Readings(source=source, saes=coders, costs=costs, **found)


def load_saes(model: Model, folder: Dictionaries) -> Mapping[int, SAE]:
    """The model's SAEs by layer, as they are given, of a folder or of the package; raises where
    there are none, or of another model."""
    coders = folder if isinstance(folder, Mapping) else saes(folder)
    for coder in coders.values():
        coder.need(model)
    if not coders:
        raise SteerlabError(
            f"there are no SAEs at {folder}; give a folder with one subfolder for each layer"
        )
    return coders


Items = dict[str, list[tuple[str, str]]]  # by language, prompts with their answers


def contrast(model: Model, texts: Corpus, source: str, form: str) -> tuple[Items, Items]:
    """(items, control) for gradient scores: source sentences answered in each language.

    An item is a source sentence as a prompt with its translation as the answer, by the answer's
    language. The control of a language has the same prompts, answered in each of the other
    languages in turn: what it has in common with the items is answering, not the language.

    Args:
        model: its tokenizer makes the prompts.
        texts: an aligned corpus.
        source: the language of the prompts.
        form: the form of prompt.
    """
    texts.need_aligned("a contrast of translations")
    prompts = [
        prompt(model.tokenizer, form, line, source=source, target=source) for line in texts[source]
    ]
    items = {lang: list(zip(prompts, texts[lang], strict=True)) for lang in texts.langs}
    control = {}
    for lang in texts.langs:
        others = [items[other] for other in texts.langs if other != lang]
        control[lang] = [others[index % len(others)][index] for index in range(len(prompts))]
    return items, control
