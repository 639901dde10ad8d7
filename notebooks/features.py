# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The features and neurons of a language
#
# Which latents of a sparse autoencoder, and which neurons, belong to a language, and does taking
# them away hurt that language and no other? On the packaged model and its own SAEs, offline.

# %%
import steerlab as sl
from steerlab import figures
from steerlab.analysis.effects.matrix import effect_matrix

model, corpus = sl.load(), sl.corpus(langs=["en", "de", "es", "fr", "ru", "tr", "hi", "ja"])
saes = sl.units.saes(layers=[2, 3, 4])
texts = corpus.split("estimate")

# %% [markdown]
# One pass counts when each latent is on, in how many texts, and how strongly.

# %%
firing = sl.collect_units(model, texts, saes)
selection = sl.units.monolinguality(firing, top=2)
selection.table().head(8)

# %% [markdown]
# A feature on a page: where it fires, on what, and which tokens it promotes.
# `sl.units.feature_card` gives HTML.

# %%
from IPython.display import HTML

unit = selection.of("de", 3)[0]
HTML(sl.units.feature_card(model, corpus.split("dev"), saes[3], unit))

# %% [markdown]
# What a selection says becomes `Directions`, which every edit takes.

# %%
features = sl.units.decoded(selection, firing, saes)
with sl.add(features.between("en", "de").at(3), strength=1.0).on(model):
    print(sl.generate(model, ["The weather is nice today.\n"]))

# %% [markdown]
# Take each language's features away and read every language. Beside them: as many other features of
# the same layer, as often on, and with decoder rows as long.

# %%
test = corpus.split("test").take(8)
norms = saes[3].W_dec.norm(dim=-1)[None]
chosen = selection.at(3)
edits, controls = (
    {
        lang: sl.ablate(sl.units.decoded(some, firing, saes, source=None)[lang])
        for lang in corpus.langs
    }
    for some in (chosen, sl.units.matched(chosen, firing, norms))
)
effects = sl.effects.language_effects(model, test, edits, controls=controls)
figures.selectivity(effect_matrix(effects))

# %%
(
    sl.effects.dominance(effects),
    sl.effects.dissociated(effects),
    sl.effects.dissociated(effects, kind="control"),
)

# %% [markdown]
# The neurons that LAPE finds, layer by layer.

# %%
neurons = sl.collect_units(model, texts)
figures.units_by_layer(sl.units.lape(neurons).counts)
