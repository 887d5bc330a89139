"""The chat template, the tokenizer and the settings of generation with which an export gives the trainer's prompts."""

from __future__ import annotations

import copy
from typing import Any

from transformers import GenerationConfig

from vlmdata_train.data.marks import IMAGE_MARK
from vlmdata_train.data.prompts import written_before
from vlmdata_train.data.render import ANSWER, MORE, WORD, answer, user
from vlmdata_train.data.templates import ChatTemplate
from vlmdata_train.model.image_plan import ImagePlan
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.tokens import IMAGE

FILTERS = ("nearest", "lanczos", "bilinear", "bicubic")  # resampling filters, in the order of Pillow's numbers

VIDEO = "<video>"  # the token of videos in FLATTEN

# transformers' processors pass lists of parts to the template. A language model's template may accept texts only, or may write
# a text differently from a list of one text. This prefix joins the parts as the trainer does: without a separator between
# consecutive images and videos, and with a line end between all other parts.
FLATTEN = (
    "{%- set flat = namespace(turns=[]) -%}{%- for message in messages -%}"
    "{%- if message['content'] is not defined or message['content'] is string or message['content'] is none -%}"
    "{%- set flat.turns = flat.turns + [message] -%}{%- else -%}{%- set all = namespace(text='', media=false) -%}"
    "{%- for part in message['content'] -%}"
    "{%- set is_media = part['type'] in ('image', 'video') -%}"
    "{%- set media = '" + IMAGE + "' if part['type'] == 'image' else '" + VIDEO + "' -%}"
    "{%- set piece = media if is_media else part['text'] -%}"
    "{%- set glue = '' if loop.first or (all.media and is_media) else '\\n' -%}"
    "{%- set all.text = all.text + glue + piece -%}{%- set all.media = is_media -%}{%- endfor -%}"
    "{%- set flat.turns = flat.turns + [dict(message, content=all.text)] -%}{%- endif -%}"
    "{%- endfor -%}{%- set messages = flat.turns %}\n"  # a line end, because the template that follows may be indented
)
# kinds of conversations, with which chat templates are compared
CONVERSATIONS = (
    (user(WORD),),
    (user(f"{IMAGE_MARK}\n{WORD} "),),
    ({"role": "system", "content": MORE}, user(f"{WORD}\n{IMAGE_MARK}{IMAGE_MARK}")),
    (user(f"{IMAGE_MARK}\n{WORD}"), answer(ANSWER), user(f"{MORE}\n{IMAGE_MARK}"), answer(MORE)),
)
# FLATTEN_TEXTS is FLATTEN, except that a message with an image or a video keeps its list of parts.
FLATTEN_TEXTS = FLATTEN.replace(
    "is none -%}", "is none or message['content'] | selectattr('type', 'in', ['image', 'video']) | list -%}"
)


def generation_config(model: VisionLanguageModel) -> GenerationConfig:
    """Return transformers' settings that stop generation where the chat template ends a turn, and suppress media tokens."""
    config, tokenizer = model.language.generation_config, model.tokenizer
    own = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    stops = ChatTemplate(tokenizer, model.image_token).stop_ids
    config.eos_token_id = own if set(stops) <= set(own) else stops if len(stops) > 1 else stops[0]
    config.bos_token_id, config.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
    rows = model.language.get_input_embeddings().weight.shape[0]
    media = [model.image_token_id, *([] if model.video_token_id is None else [model.video_token_id])]
    config.suppress_tokens = [*media, *range(len(tokenizer), rows)]
    return config


def served_template(
    tokenizer: Any, image_token: str, video_token: str | None = None, *, image: str | None = None, video: str | None = None
) -> str | dict[str, str] | None:
    """Return a chat template with which a processor writes the same prompts as the trainer.

    In this template, the content of a message may be a list of texts, images and videos. If the tokenizer has several
    templates, return a dict of them. If it has no template, return None. Raise ValueError if the tokenizer's template cannot
    accept images. `video_token` is what the processor replaces by a video; None: `<video>`. If the tokenizer's template accepts
    texts only, `image` and `video` are written for an image and a video: the token alone (None), or with tokens around it that
    the processor does not write.
    """
    template = ChatTemplate(tokenizer, image_token)
    if template.form == "text_parts":
        raise ValueError(
            "chat_template: the template accepts a list of texts as the content of a message, but no images."
            " Set a different template"
        )
    own = FLATTEN.replace(IMAGE, image or image_token).replace(VIDEO, video or video_token or VIDEO)
    flatten = {"text": own, "both": FLATTEN_TEXTS}.get(template.form or "", "")
    if isinstance(template.source, dict):
        return {name: flatten + text.removeprefix(flatten) for name, text in template.source.items()}
    return template.source and flatten + template.source.removeprefix(flatten)


def writes_like(tokenizer: Any, template: str, image_token: str) -> bool:
    """Return whether a tokenizer's chat template writes CONVERSATIONS as `template` does."""
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    own = _written(ChatTemplate(tokenizer, image_token))
    return None not in own and own == _written(ChatTemplate(other, image_token))


def _written(template: ChatTemplate) -> list[str | None]:
    """Return CONVERSATIONS as a template writes them, with and without the beginning of an answer; None: it refuses one."""
    texts: list[str | None] = []
    for messages in CONVERSATIONS if template.source is not None else ():
        for is_open in (False, True):
            try:
                texts.append(template.render(messages, add_generation_prompt=is_open))
            except ValueError:
                texts.append(None)
    return texts or [None]


def served_tokenizer(tokenizer: Any, image_token: str) -> Any:
    """Return a tokenizer with which a processor does not write the first token of a text, such as `<s>`, twice.

    The tokenizer and the chat template may both write this token. A processor of transformers then removes the second copy only
    if the token is `bos_token`. If another token begins a text, return a copy of the tokenizer with that token as `bos_token`.
    """
    begin = tokenizer.convert_ids_to_tokens(written_before(tokenizer, image_token))
    if not begin or begin[0] == tokenizer.bos_token:
        return tokenizer
    if not ChatTemplate(tokenizer, image_token).header.startswith("".join(begin)):
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.bos_token = begin[0]
    return tokenizer


def with_named_tokens(tokenizer: Any, **names: str) -> Any:
    """Return a copy of a tokenizer that has these tokens as attributes, such as `image_token`, and saves them.

    Tokens that the vocabulary lacks are not added.
    """
    tokenizer = copy.deepcopy(tokenizer)
    missing = {name: token for name, token in names.items() if getattr(tokenizer, name, None) != token}
    tokenizer._set_model_specific_special_tokens(missing)
    return tokenizer


def square(side: int) -> dict[str, int]:
    """Return a square size in the form of image processors."""
    return {"height": side, "width": side}


def pixel_options(plan: ImagePlan) -> dict[str, Any]:
    """Return the options of an image processor for the normalisation and the filter of a plan."""
    return {
        "image_mean": list(plan.facts.mean), "image_std": list(plan.facts.std),
        "resample": FILTERS.index(plan.preprocessing.resample),
    }  # fmt: skip
