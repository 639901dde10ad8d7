"""What a model thinks before it answers is not judged."""

import pytest

from steerlab.scores.text import first_line, without_thoughts


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("<think>\nThe user wants German.\n</think>\n\nEs regnet.\nMore.", "Es regnet."),
        ("The user wants German.</think>\nEs regnet.", "Es regnet."),  # opened in the prompt
        ("<think>\nThe user wants", ""),
        ("  <think>The user", ""),
        ("[THINK]Hm.[/THINK]Es regnet.", "Es regnet."),
        ("<think>a</think>b<think>c</think>Es regnet.", "Es regnet."),
        ("◁think▷Hm◁/think▷Es regnet.", "Es regnet."),
        ("Es <think> regnet.", "Es <think> regnet."),
        ("Es regnet.", "Es regnet."),
        ("", ""),
    ],
)
def test_only_the_answer_is_left(output, answer):
    assert first_line(output) == answer


def test_a_text_without_thoughts_is_left_as_it_is():
    assert without_thoughts("a\n b </thin> c\n") == "a\n b </thin> c\n"
