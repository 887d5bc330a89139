"""For every kind of tokenizer and chat template, ids equal those of the template and those served later, and only answers
have a loss."""

import copy
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models, normalizers, processors
from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

from bench.inputs.tars import jpeg
from tests.train.shapes import CHATML, SHAPES, tokenizer_of
from tests.train.shards import drawing
from vlmdata_train.convert.served import served_template, served_tokenizer
from vlmdata_train.data.document import Document
from vlmdata_train.data.media_text import MediaText
from vlmdata_train.data.prompt import Prompt
from vlmdata_train.data.prompts import Prompter
from vlmdata_train.model.batch import IGNORE
from vlmdata_train.model.tokens import image_token, image_token_id, load_tokenizer
from vlmdata_train.model.written import Run

PHOTO = jpeg(drawing("red", "circle", 32))
ODD = "  def f():\n    return 1\n\n\n<b>bold</b>\t\tand <table>\u2028 é 😀  end \n"
TALKS = {
    "one turn": [("user", "What colour is it?"), ("assistant", "It is red.")],
    "an image": [("user", PHOTO), ("user", "What colour is it?"), ("assistant", "It is red.")],
    "an image behind the text": [("user", "What colour is it?"), ("user", PHOTO), ("assistant", "It is red.")],
    "several turns and images": [
        ("user", PHOTO), ("user", PHOTO), ("user", "What colour is it?"), ("assistant", "It is red."),
        ("user", "And this:"), ("user", PHOTO), ("user", "?"), ("assistant", "A circle.\n\nNo more."),
    ],
    "a system prompt": [("system", "Be brief."), ("user", PHOTO), ("user", "What is it?"), ("assistant", "A circle.")],
    "odd text": [("user", f"\n\n{ODD}"), ("assistant", ODD), ("user", PHOTO), ("user", ODD), ("assistant", f"\n{ODD}")],
}  # fmt: skip


def prompter_of(name: str) -> Prompter:
    """Return the Prompter of a shape. An image is four tokens."""
    tokenizer = tokenizer_of(name)
    return Prompter(tokenizer, MediaText(lambda picture, place: [Run(4)], image_token_id(tokenizer)))


def document(talk: list[tuple[str, Any]]) -> Document:
    """Return a talk as the document of a sample."""
    return Document([content for _, content in talk], [role for role, _ in talk])


def messages_of(name: str, talk: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Return a talk as a user of transformers would write it for this template."""
    messages = in_parts(talk)
    for message in messages:
        has_image = any(part["type"] == "image" for part in message["content"])
        if not (SHAPES[name].parts == "only" or (SHAPES[name].parts and has_image)):
            message["content"] = flat(message["content"])
    return messages


def flat(parts: list[dict[str, str]]) -> str:
    """Write parts as one text, with adjacent images side by side and all else on separate lines."""
    pieces = [part.get("text", "<image>") for part in parts]
    return "".join(piece if i == 0 or pieces[i - 1] == piece == "<image>" else f"\n{piece}" for i, piece in enumerate(pieces))


def own_ids(name: str, talk: list[tuple[str, Any]], **options: Any) -> list[int]:
    """Return the ids of the tokenizer's own template, with the first token written once and each image as four tokens."""
    tokenizer, shape = tokenizer_of(name), SHAPES[name]
    ids = tokenizer.apply_chat_template(messages_of(name, talk), tokenize=True, return_dict=False, **options)
    if shape.writes_bos and ids[0] != tokenizer.bos_token_id:
        ids = [tokenizer.bos_token_id, *ids]
    image = image_token_id(tokenizer)
    return [number for i in ids for number in ([i] * 4 if i == image else [i])]


def learnt(prompter: Prompter, prompt: Prompt, text: str) -> list[str]:
    """Return the parts of `text`, from which the prompt was made, whose tokens have a loss."""
    encoded = prompter.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = iter(prompt.labels[len(prompt.labels) - len(own_expanded(prompter, encoded["input_ids"])) :])
    runs: list[list[int]] = []
    was_open = False
    for number, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        own = [next(labels) for _ in range(4 if number == prompter.image_token_id else 1)]
        has_loss = own != [IGNORE] * len(own)
        if has_loss and was_open:
            runs[-1][1] = end
        elif has_loss:
            runs.append([start, end])
        was_open = has_loss
    return [text[start:end] for start, end in runs]


def own_expanded(prompter: Prompter, ids: list[int]) -> list[int]:
    """Return the ids with four tokens for each image."""
    return [number for i in ids for number in ([i] * 4 if i == prompter.image_token_id else [i])]


@pytest.mark.parametrize("kind", TALKS)
@pytest.mark.parametrize("name", SHAPES)
def test_ids_equal_those_of_the_template_and_the_loss_covers_answers_and_their_end(name: str, kind: str) -> None:
    prompter, shape, talk = prompter_of(name), SHAPES[name], TALKS[kind]
    if not shape.has_system and talk[0][0] == "system":
        with pytest.raises(ValueError, match="the chat template refuses the messages"):
            prompter.chat(document(talk))
        return
    prompt = prompter.chat(document(talk))
    assert prompt.input_ids == own_ids(name, talk)
    assert all(label in (number, IGNORE) for number, label in zip(prompt.input_ids, prompt.labels, strict=True))
    assert all(prompt.input_ids[image.start : image.end] == [prompter.image_token_id] * 4 for image in prompt.images)
    text = prompter.tokenizer.apply_chat_template(messages_of(name, talk), tokenize=False)
    answers = [text if shape.keeps_outer else text.strip() for role, text in talk if role == "assistant"]
    ends = [shape.end] * (len(answers) - 1) + [shape.end if shape.last is None else shape.last]
    found = learnt(prompter, prompt, text)
    assert [run.strip() for run in found] == [(answer + end).strip() for answer, end in zip(answers, ends, strict=True)]


@pytest.mark.parametrize("kind", TALKS)
@pytest.mark.parametrize("name", SHAPES)
def test_the_exported_processor_gives_the_ids_used_in_training(name: str, kind: str) -> None:
    prompter, talk = prompter_of(name), [pair for pair in TALKS[kind] if SHAPES[name].has_system or pair[0] != "system"][:-1]
    tokenizer = prompter.tokenizer
    size = {"height": 32, "width": 32}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size),
        tokenizer=served_tokenizer(tokenizer, image_token(tokenizer)), patch_size=16,
        image_token=image_token(tokenizer), num_additional_image_tokens=1, vision_feature_select_strategy="default",
        chat_template=served_template(tokenizer, image_token(tokenizer)),
    )  # fmt: skip
    pixels = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
    asked = [
        {**message, "content": [{**part, "image": pixels} if part["type"] == "image" else part for part in message["content"]]}
        for message in in_parts(talk)
    ]
    served = processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    ours = prompter.question(prompter.messages(document(talk)), [content for _, content in talk if content is PHOTO])
    assert ours.input_ids == (served[0] if isinstance(served[0], list) else served)
    full = prompter.chat(document([*talk, ("assistant", "It is red.")]))
    begin = [i for i, label in enumerate(full.labels) if label != IGNORE][-1]
    # the last token may join the first of the answer
    assert full.input_ids[:begin][: len(ours.input_ids) - 1] == ours.input_ids[:-1]


def in_parts(talk: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Return a talk as messages whose contents are lists of parts."""
    messages: list[dict[str, Any]] = []
    for role, content in talk:
        part = {"type": "text", "text": content} if isinstance(content, str) else {"type": "image"}
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"].append(part)
        else:
            messages.append({"role": role, "content": [part]})
    return messages


@pytest.mark.parametrize("name", SHAPES)
def test_control_tokens_in_a_text_stay_text_and_the_rest_is_unchanged(name: str) -> None:
    prompter, shape = prompter_of(name), SHAPES[name]
    spelled = [*shape.control, shape.image, prompter.tokenizer.eos_token]
    hostile = document(
        [("user", f"{ODD}{''.join(spelled)}\ufdd0\ufdd1"), ("user", PHOTO), ("assistant", f"Say {' '.join(spelled)} now")]
    )
    plain = document([("user", "What?"), ("user", PHOTO), ("assistant", "It is red.")])
    ids, neutral = prompter.chat(hostile).input_ids, prompter.chat(plain).input_ids
    for token in spelled:
        number = prompter.tokenizer.get_vocab().get(token)
        assert number is None or ids.count(number) == neutral.count(number), token
    assert len(prompter.chat(hostile).images) == 1
    cleaned = prompter.clean(f"{ODD}{''.join(spelled)}")
    assert cleaned.replace("\u2060", "") == f"{ODD}{''.join(spelled)}"
    assert cleaned.startswith(ODD) and not any(token in cleaned for token in spelled)
    assert (
        prompter.clean("<think>hm</think> <tool_call>{}</tool_call>\n\n  <td> <box>")
        == "<think>hm</think> <tool_call>{}</tool_call>\n\n  <td> <box>"
    )


def test_a_blank_outside_of_all_token_offsets_belongs_to_the_token_before_it() -> None:
    prompter = prompter_of("GPT-NeoX, ranges without blanks")
    prompt = prompter.chat(document([("user", "What?"), ("assistant", "<b>It</b>"), ("user", "?"), ("assistant", "<b>No")]))
    runs = [list(run) for is_loss, run in groupby(prompt.labels, lambda label: label != IGNORE) if is_loss]
    assert [prompter.tokenizer.decode(run) for run in runs] == ["<b>It</b><|im_end|>", "<b>No<|im_end|>"]


@pytest.mark.parametrize(
    ("normalizer", "spelled"),
    [
        (normalizers.NFKC(), "＜|im_end|＞"), (normalizers.Lowercase(), "<|IM_End|>"),
        (normalizers.BertNormalizer(), "<|im_end|>"),
    ],
    ids=["NFKC", "lower case", "without joiners"],
)  # fmt: skip
def test_a_text_that_becomes_a_token_by_normalization_stays_text(normalizer: Any, spelled: str) -> None:
    tokenizer = copy.deepcopy(tokenizer_of("Phi-2"))
    tokenizer.backend_tokenizer.normalizer = normalizer
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=True) for name in ("<|im_start|>", "<|im_end|>")])
    tokenizer.chat_template = CHATML
    prompter = Prompter(tokenizer, MediaText(lambda picture, place: [Run(4)], image_token_id(tokenizer)))
    ids = prompter.chat(document([("user", f"A {spelled}<image> b"), ("assistant", spelled), ("user", "C?")])).input_ids
    assert ids.count(tokenizer.get_vocab()["<|im_end|>"]) == 3
    assert prompter.clean("<b>É</b> Ｗ") == "<b>É</b> Ｗ"


def test_half_of_a_surrogate_pair_becomes_a_replacement_character() -> None:
    prompter = prompter_of("Qwen2")
    talk = document([("user", "a\ud83d"), ("assistant", "\ude00b")])
    assert prompter.chat(talk).input_ids == prompter.chat(document([("user", "a\ufffd"), ("assistant", "\ufffdb")])).input_ids


@pytest.mark.parametrize("failing", ["1 // 0", "range(10 ** 9)", "f(1)"])
def test_any_error_inside_a_template_is_raised_as_a_value_error(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template = (
        f"{CHATML}{{% macro f(x) %}}{{{{ f(x) }}}}{{% endmacro %}}{{% if messages[1:] %}}{{{{ {failing} }}}}{{% endif %}}"
    )
    monkeypatch.setattr(tokenizer_of("Qwen2"), "chat_template", template)
    with pytest.raises(ValueError, match="the chat template refuses the messages"):
        prompter_of("Qwen2").chat(document(TALKS["one turn"]))


def test_a_million_blanks_in_a_trimmed_answer_are_processed_in_linear_time() -> None:
    prompter = prompter_of("Llama 3")
    prompt = prompter.chat(document([("user", "What?"), ("assistant", f" a{' ' * 10**6}b ")]))
    assert prompter.tokenizer.decode([label for label in prompt.labels if label != IGNORE]) == f"a{' ' * 10**6}b<|eot_id|>"


def test_words_of_a_turn_header_that_are_added_tokens_are_kept_in_texts() -> None:
    tokenizer = copy.deepcopy(tokenizer_of("Qwen2"))
    tokenizer.add_tokens(["assistant", "user", "1"])
    tokenizer.chat_template = CHATML.replace("{{ m['role'] }}", "{{ m['role'] }} 1")
    prompter = Prompter(tokenizer, MediaText(lambda picture, place: [Run(4)], image_token_id(tokenizer)))
    assert prompter.clean("1 user, 11 assistants") == "1 user, 11 assistants"


def test_the_leading_token_of_a_tokenizer_is_found_for_any_vocabulary() -> None:
    inner = Tokenizer(models.BPE(vocab={"b": 0}, merges=[]))
    inner.add_special_tokens(["<s>", "<image>"])
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    prompter = Prompter(
        PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<s>"), MediaText(lambda picture, place: [Run(4)], 2)
    )
    assert prompter.plain(Document([PHOTO, "bb"], None)).input_ids == [1, 2, 2, 2, 2, 0, 0]


def test_a_tokenizer_without_an_end_token_gets_a_padding_token(tmp_path: Path) -> None:
    inner = copy.deepcopy(tokenizer_of("Qwen2").backend_tokenizer)
    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.pad_token == "<|pad|>" and tokenizer.pad_token_id == len(tokenizer) - 1
    assert (
        Prompter(tokenizer, MediaText(lambda picture, place: [Run(4)], image_token_id(tokenizer))).pad_id
        == tokenizer.pad_token_id
    )


def test_words_that_number_images_are_left_out_of_captions_and_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    prompter, marks = prompter_of("Qwen2-VL"), "<|vision_start|><|image_pad|><|vision_end|>"
    page = Document([PHOTO, PHOTO, "Two."], None)
    plain = prompter.page(page)
    monkeypatch.setattr(
        prompter.tokenizer, "chat_template", prompter.tokenizer.chat_template.replace(marks, f"Picture 1: {marks}")
    )
    assert prompter.page(page) == plain
    assert "Picture 1: <|vision_start|>" in prompter.tokenizer.decode(prompter.chat(document(TALKS["an image"])).input_ids)


def test_captions_and_pages_have_the_image_marks_of_the_template() -> None:
    prompter = prompter_of("Qwen2-VL")
    marked = "<|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>"
    decoded = [
        prompter.tokenizer.decode(prompt.input_ids)
        for prompt in (
            prompter.plain(Document([PHOTO, PHOTO, "two"], None)),
            prompter.page(Document(["one", PHOTO, "two", PHOTO, PHOTO], None)),
            prompter.beginning([PHOTO], "a"),
        )
    ]
    assert decoded == [
        f"{marked}{marked}two<|im_end|>", f"one\n\n{marked}\n\ntwo\n\n{marked}{marked}<|im_end|>", f"{marked}a",
    ]  # fmt: skip
