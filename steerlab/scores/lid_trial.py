"""A file of a language identifier on trial: fastText loads a damaged model without a word, and then
ends the process or names another language.

The file is loaded by a process of its own, and names the language of sentences that are known.
"""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlab.core.corpus import corpus
from steerlab.core.errors import SteerlabError, first_line_of

SENTENCES = 24  # of each packaged language
ENOUGH = 8  # packaged languages that a model can name: fewer are no model of languages at large
SHARE = 0.7  # of a language's sentences that a sound model names right: lid.176 has .91 and more
PATIENCE = 300  # seconds

# Reads lines of JSON, each a text, and writes for each the label and the probability.
_PROGRAM = """
import json, sys, fasttext
predict = fasttext.load_model(sys.argv[1]).f.predict
for line in sys.stdin:
    print(json.dumps(predict(json.loads(line) + chr(10), 1, 0.0, "strict")))
"""


def try_out(path: Path, codes: Mapping[str, str]) -> None:
    """Raise `SteerlabError` for an identifier that crashes, answers what is no answer, or is wrong
    about the packaged sentences.

    Args:
        path: the file.
        codes: the code that each of its labels stands for.
    """
    texts = corpus()
    named = [lang for lang in texts.langs if lang in codes.values()]
    asked = [(lang, line) for lang in named for line in texts[lang][:SENTENCES]]
    asked.append(("", ""))  # what it says of nothing is asked, too
    answers = _answers(path, [line for _, line in asked])
    right = dict.fromkeys(named, 0)
    for (lang, _), answer in zip(asked, answers, strict=True):
        probability, label = _read(path, answer)
        if label not in codes:
            raise _damaged(path, f"it answers with {label[:40]!r}, which is none of its labels")
        if not (math.isfinite(probability) and 0 <= probability <= 1.01):
            raise _damaged(path, f"it gives a probability of {probability:g}")
        if lang:
            right[lang] += codes[label] == lang
    if len(named) < ENOUGH:
        return
    wrong = {lang: count for lang, count in right.items() if count < SHARE * SENTENCES}
    if wrong:
        lang, count = min(wrong.items(), key=lambda pair: pair[1])
        raise _damaged(path, f"it finds {count} of {SENTENCES} sentences in {lang!r} to be in it")


def _answers(path: Path, texts: list[str]) -> list[Any]:
    """The answer to each text, by a process that may crash."""
    try:
        run = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(path)],
            input="".join(json.dumps(text) + "\n" for text in texts),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise _damaged(path, f"it gave no answer for {PATIENCE} s") from None
    if run.returncode < 0:
        raise _damaged(path, f"fastText crashes on it (signal {-run.returncode})")
    if run.returncode:
        last = run.stderr.strip().splitlines()[-1:] or ["without a word"]
        raise _damaged(path, f"fastText refuses it: {last[0][:200]}")
    try:
        return [json.loads(line) for line in run.stdout.splitlines()]
    except ValueError as error:
        raise _damaged(path, f"its answers cannot be read: {first_line_of(error)}") from None


def _read(path: Path, answer: Any) -> tuple[float, str]:
    """(probability, label) of the first answer."""
    if not answer:
        raise _damaged(path, "it answers with nothing")
    probability, label = answer[0]
    return float(probability), str(label)


def _damaged(path: Path, reason: str) -> SteerlabError:
    return SteerlabError(
        f"the language identifier {path} is damaged, or no identifier of languages: {reason}; "
        "fetch it again"
    )
