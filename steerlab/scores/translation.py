"""ACC × BLEU: how often an output is in its target language, and how near such outputs come to
their references.

This is how Zhong et al. (arXiv 2510.07213) and, after them, LangFIR (arXiv 2604.03532) score
steering towards a translation.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from steerlab.analysis.intervals import named
from steerlab.analysis.results import column_mean
from steerlab.analysis.tables import need_columns
from steerlab.core.corpus import need_texts
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.scores.langid import Identifier

__all__ = ["acc_bleu", "bleu", "doubled", "tokenizer"]

_TOKENIZERS = {"zh": "zh", "ja": "ja-mecab"}  # sacrebleu's own for a language
_SPACELESS = ("th", "bo")  # sacrebleu has none for these, and its default splits at spaces
_MECAB = ("MeCab", "ipadic")  # the modules that ja-mecab needs, of the extra sacrebleu[ja]
POOLED = "all"  # the name of the row over all values


def acc_bleu(
    rows: pd.DataFrame,
    *,
    identifier: Identifier | None = None,
    threshold: float = 0.0,
    by: str = "target",
) -> pd.DataFrame:
    """ACC, BLEU and their product for each value of a column, and over all rows (`all`), with 95 %
    intervals by resampling sentences.

    - `acc`: the share of the `n` rows whose output is in the target language (`successes`).
    - `bleu`: the mean sentence BLEU (0 to 100) of these rows only, NaN where there are none.
    - `product` = acc · bleu. It is the mean BLEU with 0 for the other rows, and is resampled as
      such.
    - `tokenizer`: sacrebleu's, one name for each that the targets need.

    In the row `all` rows of all values are pooled, and acc and bleu averaged before they are
    multiplied. The notebook that Zhong et al. released counts each success twice, so that its ACC
    is 2a / (1 + a): see `doubled`.

    Args:
        rows: a row for each output, with the columns `output`, `reference`, `target`, `sentence`,
            and `language` if no identifier is given.
        identifier: what names the language of an output; None for the column `language`.
        threshold: the probability that the identifier must reach (.5 in the papers, with lid.176).
        by: the column whose values each have a row in the result.
    """
    need_columns(rows, "acc_bleu", "output", "reference", "target", "sentence", by)
    in_target = succeeded(rows, identifier, threshold)
    scores = np.zeros(len(rows))
    # Only outputs in the target have a BLEU. A language at a time, since each has its tokenizer.
    successes = rows[in_target].assign(index=np.flatnonzero(in_target))
    for lang, part in successes.groupby("target"):
        outputs = part["output"].tolist()
        references = part["reference"].tolist()
        scores[part["index"]] = bleu(outputs, references, str(lang))
    scored = pd.DataFrame(
        {
            by: rows[by],
            "target": rows["target"],
            "sentence": rows["sentence"],
            "acc": in_target,
            "bleu": scores,
        }
    )
    parts = [*scored.groupby(by, sort=False), (POOLED, scored)]
    return pd.DataFrame([{by: name} | _line(part) for name, part in parts])


def _line(part: pd.DataFrame) -> dict[str, Any]:
    """The columns of one row of `acc_bleu`."""
    successes = part[part["acc"]]
    tokenizers = {tokenizer(lang) for lang in part["target"].unique()}
    return {
        "n": len(part),
        "successes": len(successes),
        **named("acc", column_mean(part, "acc")),
        **named("bleu", column_mean(successes, "bleu")),
        # BLEU over all rows, where those in another language have 0: the product of the two.
        **named("product", column_mean(part, "bleu")),
        "tokenizer": " ".join(sorted(tokenizers)),
    }


def succeeded(
    rows: pd.DataFrame, identifier: Identifier | None, threshold: float
) -> Bool[np.ndarray, " row"]:
    """Whether each row's output is in its target language, `[row]`.

    Raises `SteerlabError` for a threshold that is no probability, and for one without an
    identifier, whose probabilities it needs.

    Args:
        rows: the rows, with `output` and `target`, and `language` if no identifier is given.
        identifier: what names the language of an output; None for the column `language`.
        threshold: the probability that the identifier must reach.
    """
    if not 0 <= threshold <= 1:
        raise SteerlabError(f"the threshold is a probability from 0 to 1, not {threshold}")
    targets = rows["target"].to_numpy()
    if identifier is None:
        if threshold:
            raise SteerlabError(
                f"rows hold no probabilities; give identifier= for the threshold {threshold}, or "
                "leave it"
            )
        need_columns(rows, "acc_bleu without an identifier", "language")
        return np.asarray(rows["language"].to_numpy() == targets, dtype=bool)
    codes, probabilities = identifier.weigh(rows["output"].tolist())
    return (np.array(codes, dtype=object) == targets) & (probabilities >= threshold)


def bleu(
    outputs: Sequence[str], references: Sequence[str], iso: str
) -> Float[np.ndarray, " output"]:
    """sacrebleu's sentence BLEU of each output, 0 to 100, `[output]`.

    It is computed with effective order: a sentence of fewer than four words is scored on the
    n-grams that it has. Lists of unequal length raise `SteerlabError`.

    Args:
        outputs: the texts to score.
        references: what each should say.
        iso: the code of their language, which decides the tokenizer.
    """
    outputs, references = need_texts(outputs, "bleu"), need_texts(references, "bleu")
    if len(outputs) != len(references):
        raise SteerlabError(
            f"BLEU needs a reference for each output; {len(outputs)} outputs, {len(references)} "
            "given as references"
        )
    metric = _metric(tokenizer(iso))
    scores = [
        metric.sentence_score(output, [reference]).score
        for output, reference in zip(outputs, references, strict=True)
    ]
    return np.array(scores, dtype=np.float64)


def tokenizer(iso: str) -> str:
    """The name of sacrebleu's tokenizer for a language: `zh`, `ja-mecab` (`char` where MeCab is not
    installed), or `13a`.

    Thai and Tibetan, which have no spaces and no tokenizer in sacrebleu, have `char`.
    """
    name = _TOKENIZERS.get(language(iso).iso, "char" if iso in _SPACELESS else "13a")
    if name == "ja-mecab" and not all(map(find_spec, _MECAB)):
        return "char"
    return name


@lru_cache(maxsize=4)
def _metric(tokenize: str) -> Any:
    # Kept, since MeCab's dictionary takes long to load; imported here, since few need sacrebleu.
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True, tokenize=tokenize)


def doubled(acc: float) -> float:
    """The ACC that a notebook which counts each success twice reports for a share `acc`:
    2a / (1 + a)."""
    if not 0 <= acc <= 1:
        raise SteerlabError(f"a share is from 0 to 1, not {acc}; divide percents by 100")
    return 2 * acc / (1 + acc)
