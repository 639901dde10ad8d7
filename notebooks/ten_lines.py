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
# # Ten lines
#
# From a language model to a picture of how well it speaks another language. Everything is in the
# package, so that this runs offline, on a CPU.

# %%
import steerlab as sl

# %% [markdown]
# The model in the package is small and multilingual. `sl.load("path/or/id")` takes any other causal
# language model.

# %%
model = sl.load()

# %% [markdown]
# The corpus in the package holds the same sentences in every language, split by line into
# `estimate`, `dev` and `test`.

# %%
corpus = sl.corpus()
corpus["en"][:3], corpus["es"][:3]

# %% [markdown]
# One pass over the `estimate` lines sums up the residual stream of every layer and language.
# Activations are not kept.

# %%
moments = sl.collect(model, corpus.split("estimate"))

# %% [markdown]
# An estimator turns these sums into directions. For `lda`, `pca`, `probe` or `eigengap`, change one
# word.

# %%
directions = sl.diffmean(moments)

# %% [markdown]
# An edit adds the direction from English to Spanish at layer 5. `strength=1.0` is one natural gap,
# the distance between the two languages' means at that layer.

# %%
edit = sl.add(directions.between("en", "es").at(5), strength=1.0)

# %% [markdown]
# Without the edit the model goes on as it likes; inside the `with`, every position carries the
# edit.

# %%
prompt = ["The weather is nice today.\n"]
print("without:", sl.generate(model, prompt))
with edit.on(model):
    print("with:   ", sl.generate(model, prompt))

# %% [markdown]
# A sweep does this for a grid of targets, layers and strengths, and judges every output. Each row
# is one output; `joint` is true for the right language with its own sentence recognised: the output
# is in the target language and lies nearer, by chrF, to the translation of its own prompt than to
# those of 31 other sentences.

# %%
rows = sl.sweep(
    model,
    corpus,
    targets=["es", "de"],
    estimators=["diffmean"],
    layers=[2, 4, 6],
    strengths=[1, 1.5],
    limit=8,
)
rows[["target", "layer", "strength", "output", "language", "joint"]].head()

# %% [markdown]
# Where does steering work? The share of `joint` outputs, by layer and target.

# %%
sl.figures.heatmap(rows, x="layer", y="target", value="joint").show()

# %% [markdown]
# How do the languages cluster at layer 5? Colours are language families.

# %%
sl.figures.dendrogram(directions.at(5)).show()
