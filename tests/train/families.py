"""Published families of models for tests: a tokenizer, the processor of transformers, a chat template, and our parts.

The tokenizers are made here. The templates are written for these tests after the formats that the models' cards describe.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import transformers
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models, normalizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tests.train import shapes
from tests.train.tiny import LLAMA, TOWER
from vlmdata_train.preprocessing.anyres import Anyres

SIDE = TOWER["image_size"]  # with patches of 8 pixels, a tile has 16 tokens
SQUARE, SHORT = {"height": SIDE, "width": SIDE}, {"shortest_edge": SIDE}
CROP = {"size": SHORT, "crop_size": SQUARE}
PINPOINTS = [[rows * SIDE, columns * SIDE] for rows, columns in Anyres().tiles]


def tokenizer_of(
    kind: str, special: Sequence[str], *, bos: str | None = None, eos: str = "</s>", adds_bos: bool = False,
    strips: Sequence[str] = (), plain: Sequence[str] = (), **named: str,
) -> PreTrainedTokenizerBase:  # fmt: skip
    """Make a tokenizer of bytes, of pieces like SentencePiece's (`kind` is a scheme of Metaspace), or of Fuyu's kind.

    `strips` are special tokens that absorb the white space before them. `named` are special tokens with a name of their own.
    """
    inner = fuyu_pieces() if kind == "fuyu" else shapes.of_bytes() if kind == "bytes" else shapes.of_pieces(kind)
    names = dict.fromkeys([*special, eos, *([bos] if bos else []), *named.values()])
    inner.add_special_tokens([AddedToken(one, special=True, normalized=False, lstrip=one in strips) for one in names])
    inner.add_tokens([AddedToken(one, special=False, normalized=False) for one in plain])
    if adds_bos:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, inner.token_to_id(bos))]
        )
    begin = {"bos_token": bos} if bos else {}
    unknown = {"unk_token": "<unk>"} if inner.token_to_id("<unk>") is not None else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=eos, pad_token=eos, **begin, **unknown, extra_special_tokens=named or None
    )


def fuyu_pieces() -> Tokenizer:
    """Return a tokenizer that has the tokens of images as ordinary pieces, and that begins each text with a blank."""
    letters = [chr(number) for number in range(33, 127)] + list("▁é\n")
    names = ["<unk>", *(f"<0x{number:02X}>" for number in range(256)), "|NEWLINE|", "|SPEAKER|", "▁is", "▁the", "at"]
    scores = [(name, 0.0) for name in names] + [(letter, -5.0) for letter in letters if letter not in names]
    inner = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return inner


def chat(
    user: tuple[str, str], assistant: tuple[str, str], image: str = "<image>", *, lead: str = "",
    images_first: str | None = None, generation: str | None = None,
) -> str:  # fmt: skip
    """Return a chat template with these texts before and after each user's and each assistant's content.

    `images_first` is written after each image, if the template writes all images of a message first. `generation` opens an
    answer that is to be generated; by default it is the text before the assistant's content.
    """
    said = json.dumps  # as strings of Jinja
    if images_first is None:
        parts = f"{{% for c in m['content'] %}}{{{{ {said(image)} if c['type'] == 'image' else c['text'] }}}}{{% endfor %}}"
    else:
        images = "{% for c in m['content'] if c['type'] == 'image' %}{{ " + said(image + images_first) + " }}{% endfor %}"
        parts = images + "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}"
    content = "{% if m['content'] is string %}{{ m['content'] }}{% else %}" + parts + "{% endif %}"
    sides = ["{{ " + said(before) + " }}" + content + "{{ " + said(after) + " }}" for before, after in (user, assistant)]
    opened = assistant[0] if generation is None else generation
    return (
        "{{ " + said(lead) + " }}{% for m in messages %}{% if m['role'] == 'user' %}" + sides[0] + "{% else %}" + sides[1]
        + "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ " + said(opened) + " }}{% endif %}"
    )  # fmt: skip


def of_class(name: str, pil: bool, **options: Any) -> Any:
    """Make an image processor of transformers by name, of its Pillow or its torchvision backend."""
    return getattr(transformers, f"{name}ImageProcessor{'Pil' if pil else ''}")(**options)


def as_rendered(processor: Any, text: str, images: list[Image.Image]) -> list[int]:
    """Return the ids that a processor gives for a prompt that a chat template wrote, which has a BOS if the model needs one."""
    return ids_of(processor(text=[text], images=[images] if images else None, add_special_tokens=False))


def with_bos(processor: Any, text: str, images: list[Image.Image]) -> list[int]:
    """Return the ids that a processor gives for a text without a BOS."""
    return ids_of(processor(text=[text], images=[images] if images else None))


def ids_of(found: Any) -> list[int]:
    """Return the ids of a batch of one text as a list."""
    ids = found["input_ids"][0]
    return ids if isinstance(ids, list) else ids.tolist()


def idefics(processor: Any, text: str, images: list[Image.Image]) -> list[int]:
    """Return the ids of Idefics 1."""
    return ids_of(processor(text=[texts_and_images(text.removeprefix("<s>"), images)], add_end_of_utterance_token=False))


def texts_and_images(text: str, images: list[Image.Image]) -> list[Any]:
    """Return the texts and images of a prompt without BOS in order, as Idefics 1's processor takes them."""
    first, *others = text.split("<image>")
    pieces = [first, *(item for pair in zip(images, others, strict=True) for item in pair)]
    return [piece for piece in pieces if piece != ""]


def paligemma(processor: Any, text: str, images: list[Image.Image]) -> list[int]:
    """Return the ids of PaliGemma. Its processor writes BOS, the line end after the prompt, and the end of an answer."""
    prompt, _, answer = text.rpartition("\n")
    suffix = {"suffix": [answer.removesuffix("<eos>")]} if answer else {}
    return ids_of(processor(text=[prompt], images=[images], **suffix))


def blip(processor: Any, text: str, images: list[Image.Image]) -> list[int]:
    """Return the ids of BLIP-2. Its processor writes the image before the text."""
    return ids_of(processor(text=[text.removeprefix("<image>")], images=images or None))


def kosmos(processor: Any, text: str, images: list[Image.Image]) -> list[int]:
    """Return the ids of Kosmos-2, with `<feature>` at the places of features, where its processor has ordinary tokens."""
    found = processor(text=text.removeprefix("<feature>"), images=images[0])
    feature = processor.tokenizer.convert_tokens_to_ids("<feature>")
    pairs = zip(found["input_ids"], found["image_embeds_position_mask"], strict=True)
    return [feature if is_feature else number for number, is_feature in pairs]


def fuyu(processor: Any, text: str, images: list[Image.Image]) -> list[int]:
    """Return the ids of Fuyu. Its processor writes the image before the text, and `<0x04>` after it."""
    text = text.removeprefix("|SPEAKER|").removesuffix("<0x04>")
    return ids_of(processor(text=text, images=images[0], return_legacy_image_output=False))


Ids = Callable[[Any, str, list[Image.Image]], list[int]]


@dataclass(frozen=True)
class Family:
    """A family of models."""

    tokenizer: Callable[[], PreTrainedTokenizerBase]
    processor: Callable[[Any, bool], Any]  # makes the processor from a tokenizer; True: with the Pillow backend
    template: str
    parts: dict[str, Any] = field(default_factory=dict)  # of our recipe, besides a tower of tiles and an mlp
    ids: Ids = as_rendered  # of a prompt that the template wrote, and its images
    counts: tuple[int, ...] = (0, 1, 2, 3)  # of images in a prompt
    images_first: bool = False  # images only at the beginning of a prompt
    turns: int = 2  # most questions in a prompt
    ends: bool = True  # whether the processor accepts a prompt with its answer
    outer: bool = True  # whether texts may begin or end with blanks
    least: int = 5  # least side of an image in pixels
    pillow: bool = True  # whether the processor works with an image processor of the Pillow backend

    def recipe(self, folder: str) -> dict[str, Any]:
        """Return the parts of our model. `folder` has the tokenizer."""
        language = {"hf_causal": {"config": LLAMA, "tokenizer": folder, "chat_template": self.template}}
        return {"encoder": {"open_clip": {"config": TOWER}}, "language": language, **self.parts}
