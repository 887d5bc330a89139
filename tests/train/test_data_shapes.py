"""Every shape of tokenizer and chat template: ids are the template's own and those served later, answers alone have a loss."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessor, LlavaProcessor

from bench.inputs.tars import jpeg
from tests.train.shapes import SHAPES, tokenizer_of
from tests.train.shards import drawing
from vlmdata_train.documents import Document
from vlmdata_train.llava_save import served_template
from vlmdata_train.loss import IGNORE
from vlmdata_train.prompts import Prompt, Prompter
from vlmdata_train.tokens import image_token, image_token_id

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
    """Return a shape's Prompter; an image is four tokens."""
    tokenizer = tokenizer_of(name)
    return Prompter(tokenizer, image_token_id(tokenizer), lambda image: 4)


def document(talk: list[tuple[str, Any]]) -> Document:
    """Return a talk as a sample's document."""
    return Document([said for _, said in talk], [role for role, _ in talk])


def messages_of(name: str, talk: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Return a talk as a user of transformers would write it for this template."""
    messages = in_parts(talk)
    for message in messages:
        has_image = any(part["type"] == "image" for part in message["content"])
        if not (SHAPES[name].parts == "only" or (SHAPES[name].parts and has_image)):
            message["content"] = flat(message["content"])
    return messages


def flat(parts: list[dict[str, str]]) -> str:
    """Write parts as one text: images side by side, all else on a line of its own."""
    pieces = [part.get("text", "<image>") for part in parts]
    return "".join(piece if i == 0 or pieces[i - 1] == piece == "<image>" else f"\n{piece}" for i, piece in enumerate(pieces))


def own_ids(name: str, talk: list[tuple[str, Any]], **options: Any) -> list[int]:
    """Return what the tokenizer's own template gives, its first token written once and images as four tokens."""
    tokenizer, shape = tokenizer_of(name), SHAPES[name]
    ids = tokenizer.apply_chat_template(messages_of(name, talk), tokenize=True, return_dict=False, **options)
    if shape.writes_bos and ids[0] != tokenizer.bos_token_id:
        ids = [tokenizer.bos_token_id, *ids]
    image = image_token_id(tokenizer)
    return [number for i in ids for number in ([i] * 4 if i == image else [i])]


def learnt(prompter: Prompter, prompt: Prompt, text: str) -> list[str]:
    """Return the stretches of `text`, what the prompt was made of, whose tokens have a loss."""
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
    """Put four tokens for each image."""
    return [number for i in ids for number in ([i] * 4 if i == prompter.image_token_id else [i])]


@pytest.mark.parametrize("kind", TALKS)
@pytest.mark.parametrize("name", SHAPES)
def test_the_ids_are_the_templates_own_and_the_loss_is_on_answers_with_their_end(name: str, kind: str) -> None:
    prompter, shape, talk = prompter_of(name), SHAPES[name], TALKS[kind]
    if not shape.has_system and talk[0][0] == "system":
        with pytest.raises(ValueError, match="the chat template refuses it"):
            prompter.chat(document(talk))
        return
    prompt = prompter.chat(document(talk))
    assert prompt.input_ids == own_ids(name, talk)
    assert all(label in (number, IGNORE) for number, label in zip(prompt.input_ids, prompt.labels, strict=True))
    assert [prompt.input_ids[start : start + 4] for start in prompt.image_starts] == [[prompter.image_token_id] * 4] * len(
        prompt.images
    )
    text = prompter.tokenizer.apply_chat_template(messages_of(name, talk), tokenize=False)
    answers = [said if shape.keeps_outer else said.strip() for role, said in talk if role == "assistant"]
    found = learnt(prompter, prompt, text)
    assert [run.strip() for run in found] == [(answer + shape.end).strip() for answer in answers]


@pytest.mark.parametrize("kind", TALKS)
@pytest.mark.parametrize("name", SHAPES)
def test_the_processor_that_is_exported_gives_the_ids_that_training_saw(name: str, kind: str) -> None:
    prompter, talk = prompter_of(name), [pair for pair in TALKS[kind] if SHAPES[name].has_system or pair[0] != "system"][:-1]
    tokenizer = prompter.tokenizer
    size = {"height": 32, "width": 32}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size), tokenizer=tokenizer, patch_size=16,
        image_token=image_token(tokenizer), num_additional_image_tokens=1, vision_feature_select_strategy="default",
        chat_template=served_template(tokenizer),
    )  # fmt: skip
    pixels = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
    asked = [
        {**message, "content": [{**part, "image": pixels} if part["type"] == "image" else part for part in message["content"]]}
        for message in in_parts(talk)
    ]
    served = processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    ours = prompter.question(prompter.messages(document(talk)), [said for _, said in talk if said is PHOTO])
    assert ours.input_ids == (served[0] if isinstance(served[0], list) else served)
    full = prompter.chat(document([*talk, ("assistant", "It is red.")]))
    begin = [i for i, label in enumerate(full.labels) if label != IGNORE][-1]
    assert full.input_ids[:begin][: len(ours.input_ids) - 1] == ours.input_ids[:-1]  # the last one may join the answer's first


def in_parts(talk: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Return a talk as messages whose contents are lists of parts."""
    messages: list[dict[str, Any]] = []
    for role, said in talk:
        part = {"type": "text", "text": said} if isinstance(said, str) else {"type": "image"}
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"].append(part)
        else:
            messages.append({"role": role, "content": [part]})
    return messages


@pytest.mark.parametrize("name", SHAPES)
def test_a_text_that_spells_control_tokens_stays_text_and_all_else_of_it_as_it_was(name: str) -> None:
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
