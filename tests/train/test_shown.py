"""The first sample is shown as the model gets it, with marks around learned text and without control characters."""

import pytest

from tests.train.test_data_feed import model
from vlmdata_train.data.document import Document
from vlmdata_train.data.first_sample import HEAD, LINE, TAIL, shown
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.data.prompt import PlacedImage, Prompt
from vlmdata_train.model.batch import IGNORE
from vlmdata_train.model.written import Run


def prompt(positions, roles=None):
    prompter = prompter_of(model())
    document = Document(positions, roles)
    return prompter.chat(document) if roles else prompter.plain(document)


def show(positions, roles=None):
    return shown(model().tokenizer, prompt(positions, roles))


def test_learned_text_is_shown_between_marks_and_an_image_as_a_word():
    text = show([(32, 32), "What is it?", "A cat.", "And?", "A dog."], ["user", "user", "assistant", "user", "assistant"])
    assert text == (
        "<|user|><image x 4>\nWhat is it?<|end|><|assistant|>[[A cat.<|end|>]]<|user|>And?<|end|><|assistant|>[[A dog.<|end|>]]"
    )


def test_adjacent_and_empty_images_are_each_shown():
    tokenizer = model().tokenizer
    image = model().fusion.image_token_id
    ids = [image] * 5 + tokenizer("ab")["input_ids"]
    images = [PlacedImage((1, 1), start, end, (Run(end - start),)) for start, end in ((0, 3), (3, 3), (3, 5))]
    made = Prompt(ids, [IGNORE] * 6 + ids[6:], images)
    assert shown(tokenizer, made) == "<image x 3><image x 2>a[[b]]"


@pytest.mark.parametrize(
    ("hostile", "seen"),
    [
        ("\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J"),
        ("\u202egpj.exe\u2069", r"\u202egpj.exe\u2069"),
        ("a\rb\x08c\x7f\x9bd", r"a\rb\x08c\x7f\x9bd"),
        ("a\u2028b\u200fc\U000e0041", r"a\u2028b\u200fc\U000e0041"),
        ("not ]] learned [[", r"not \]] learned \[["),
        ("猫 ñ é　\xa0x", "猫 ñ é　\xa0x"),
    ],
)
def test_control_characters_do_not_reach_the_terminal(hostile, seen):
    text = show([f"<{hostile}>", "yes"], ["user", "assistant"])
    assert text == f"<|user|><{seen}><|end|><|assistant|>[[yes<|end|>]]"


def test_a_long_sample_is_shortened_to_its_beginning_and_end():
    text = show(["first " + "x" * 9000, "y" * 9000 + " last"], ["user", "assistant"])
    assert text.startswith("<|user|>first xxx") and text.endswith("yyy last<|end|>]]")
    head, middle, tail = text.split("\n")
    assert len(head) <= HEAD + 4 and len(tail) <= TAIL + 4 and tail.startswith("[[y") and "16," in middle
    lines = show(["\n" * 9000 + "a", "b"], ["user", "assistant"]).split("\n")
    assert len(lines) < (HEAD + TAIL) / LINE + 5


def test_a_mark_opened_before_the_cut_is_closed():
    head, _, tail = show(["q", "y" * 9000], ["user", "assistant"]).split("\n")
    assert head.count("[[") == head.count("]]") == 1 and tail.count("[[") == tail.count("]]") == 1


def test_a_tokenizer_that_strips_a_leading_blank_keeps_it_between_the_marks():
    class Sentences:
        """A tokenizer that drops the first blank of a text, as SentencePiece's do."""

        words = ("", "▁A", "▁cat", "▁sat")

        def decode(self, ids):
            return "".join(self.words[i] for i in ids).replace("▁", " ").removeprefix(" ")

    made = Prompt([1, 2, 3], [IGNORE, 2, 3], [])
    assert shown(Sentences(), made) == "A[[ cat sat]]"
