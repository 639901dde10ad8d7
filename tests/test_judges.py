"""Outputs to scores: gold texts win, copies and gibberish do not."""

import numpy as np
import pytest

from steerlab.scores.judges import DISTRACTORS, Answer, Retrieval, score
from steerlab.scores.langid import identifier


def judged(outputs, numbers, targets, references):
    told = zip(outputs, numbers, targets, strict=True)
    answers = [Answer(output, "", "", number, "en", target) for output, number, target in told]
    return score(answers, identifier=identifier(), judge=Retrieval(references))


@pytest.fixture(scope="module")
def dev(lines):
    return lines.split("dev")


def test_references_themselves_score_full(dev):
    sentences = list(dev.numbers[:20])
    found = judged(list(dev["es"][:20]), sentences, ["es"] * 20, dev)
    assert all(found["relevant"])
    assert np.mean(found["joint"]) >= 0.9
    assert np.mean(found["chrf"]) > 99
    assert found["output"] == list(dev["es"][:20])


def test_joint_is_the_language_and_the_meaning(dev):
    number, other = dev.numbers[3], dev["es"][9]
    cases = {
        "right": (dev["es"][3], True, True),
        "a copy of the prompt": (dev["en"][3], False, True),
        "another sentence": (other, True, False),
        "another language": (dev["ru"][3], False, True),
        "empty": ("", False, False),
        "digits": ("1 2 3", False, False),
    }
    outputs = [output for output, _, _ in cases.values()]
    found = judged(outputs, [number] * len(cases), ["es"] * len(cases), dev)
    for row, (name, (_, language, meaning)) in enumerate(cases.items()):
        assert (found["in_language"][row], found["relevant"][row]) == (language, meaning), name
        assert found["joint"][row] == (language and meaning), name
    assert found["language"][4:] == ["none", "none"]
    assert found["joint"].dtype == found["in_language"].dtype == bool


def test_numbers_are_those_of_the_file(dev):
    """A sentence is named by its line in the file, also when only a part of the lines is asked
    about."""
    few = dev.take(5)
    found = judged(list(few["fr"]), list(few.numbers), ["fr"] * 5, dev)
    assert all(found["relevant"])
    assert len(dev) > DISTRACTORS
