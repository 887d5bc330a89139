"""The ids of a prompt equal those of each family's processor in transformers, with any number of images at any place.

Properties of processors that the trainer does not copy:
- PaliGemma's processor puts BOS after the last image of a prompt, and the trainer after the images that begin a prompt.
- Idefics 1's processor removes blanks next to images.
- Kosmos-2's processor writes ordinary tokens where features belong; the test replaces them.
- LLaVA-OneVision's processor treats a flat list of images as single images, so the test gives it one list for each sample.
- Llama 3.2 Vision's processor writes BOS twice for a text without BOS, unless `add_special_tokens` is False, as here.
- Fuyu's processor fails with its image processor of the Pillow backend, so only the torchvision backend is compared.
"""

import random

import numpy as np
import pytest
from PIL import Image

from tests.train.families import Family
from tests.train.family_table import FAMILIES
from vlmdata_train.data.document import Document
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.model.batch import IGNORE
from vlmdata_train.model.model import build_model
from vlmdata_train.model.model_recipe import ModelRecipe

PROMPTS = 40
TEXTS = ["What is it?", "Ünïcode é", "two  blanks", "one\ntwo", "<b>bold</b>", "x < y", "is the circle red"]
OUTER = [" begins with a blank", "ends with one ", "\nbegins a line", "ends it\n"]


def talk(rng: random.Random, family: Family) -> list[tuple[str, list]]:
    """Draw a conversation: the role and the texts and sizes (width, height) of images of each message, in order."""
    texts = [*TEXTS, *(OUTER if family.outer else [])]
    sizes = [(rng.randint(family.least, 150), rng.randint(family.least, 150)) for _ in range(rng.choice(family.counts))]
    questions: list[list] = [[rng.choice(texts)] for _ in range(rng.randint(1, family.turns))]
    for size in sizes:
        own = questions[0 if family.images_first else rng.randrange(len(questions))]
        place = 0 if family.images_first else rng.randint(0, len(own))
        is_within = 0 < place < len(own) and not isinstance(own[place - 1], str)
        own[place:place] = [size] if is_within or rng.random() < 0.6 or family.images_first else [size, rng.choice(texts)]
    messages = []
    for question in questions:
        kept = [
            item
            for n, item in enumerate(question)
            if n == 0 or not (isinstance(item, str) and isinstance(question[n - 1], str))
        ]
        messages += [("user", kept), ("assistant", [rng.choice(TEXTS[:3])])]
    return messages


def parts(item) -> dict:
    """Return an item of a message in the form of chat templates."""
    return {"type": "text", "text": item} if isinstance(item, str) else {"type": "image"}


def document(messages: list[tuple[str, list]]) -> Document:
    """Return a conversation in the form of the trainer."""
    return Document([item for _, items in messages for item in items], [role for role, items in messages for _ in items])


def picture(width: int, height: int) -> Image.Image:
    """Return an image of one colour."""
    return Image.fromarray(np.full((height, width, 3), 90, np.uint8))


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_equal_those_of_the_familys_processor(name, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", str)  # only for videos; not installed
    family, rng = FAMILIES[name], random.Random(0)
    tokenizer = family.tokenizer()
    tokenizer.save_pretrained(tmp_path)
    model = build_model(ModelRecipe(**family.recipe(str(tmp_path))))
    prompter = prompter_of(model)
    processors = [family.processor(family.tokenizer(), pil) for pil in (False, True)[: 1 + family.pillow]]
    seen = set()
    for _ in range(PROMPTS):
        messages = talk(rng, family)
        pictures = [picture(*item) for _, items in messages for item in items if not isinstance(item, str)]
        asked = [{"role": role, "content": [parts(item) for item in items]} for role, items in messages]
        question = tokenizer.apply_chat_template(
            asked[:-1], chat_template=family.template, tokenize=False, add_generation_prompt=True
        )
        processor = rng.choice(processors)
        assert prompter.before_answer(document(messages))[0].input_ids == family.ids(processor, question, pictures)
        if family.ends:
            whole = tokenizer.apply_chat_template(asked, chat_template=family.template, tokenize=False)
            prompt = prompter.chat(document(messages))
            assert prompt.input_ids == family.ids(processor, whole, pictures)
            assert sum(label != IGNORE for label in prompt.labels) > 0
        seen.add(len(pictures))
    assert seen == set(family.counts)
