"""Run a tokenizer's chat template on messages, in the form that the template accepts.

The code does not depend on a model's name. It renders small conversations to find out what a template accepts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from vlmdata.step import RecipeError
from vlmdata_train.data.marks import IMAGE_MARK, MEDIA, VIDEO_MARK, split_at_media
from vlmdata_train.data.tool_calls import shown_call, with_short_ids

WORD, ANSWER, MORE = "Qxq", "Axa", "Mxm"  # the texts in the small conversations
CALL_ID = "c00000000"  # nine letters and digits, as in `with_short_ids`

Message = Mapping[str, Any]  # `role`, `content` (text with marks of images and videos), and other keys of transformers


class Renderer:
    """Renders messages with the chat template of a tokenizer. The tokenizer may lack a template.

    A video is written as an image if there is no `video_token`, or if the template does not write this token.
    """

    def __init__(self, tokenizer: Any, image_token: str, video_token: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.image_token, self.video_token = image_token, video_token
        self.source = tokenizer.chat_template

    @cached_property
    def _texts(self) -> Collection[str]:
        """The sources of the tokenizer's templates."""
        return [self.source] if isinstance(self.source, str) else list((self.source or {}).values())

    def mentions(self, *names: str) -> bool:
        """Return whether the template's source contains one of these words."""
        return any(name in text for text in self._texts for name in names)

    def render(self, messages: Sequence[Message], *, tools: list[Any] | None = None, add_generation_prompt: bool) -> str:
        """Return what the template writes for these messages.

        Raises ValueError if the template refuses the messages, usually because of the order of their roles. Raises RecipeError
        if there is no template, or if the template does not write the content of messages.
        """
        if self.source is None:
            raise RecipeError(self.named("has no chat template. Set `chat_template` in the recipe."))
        if any(message.get("tool_calls") for message in messages) and self._wants_short_ids:
            messages = with_short_ids(messages)
        text = self._run([self._shown(message) for message in messages], tools, add_generation_prompt)
        if self.form is None:
            raise RecipeError(
                self.named("has a chat template that shows no message. Set a different `chat_template` in the recipe.")
            )
        return text

    def probe(self, *messages: Message, add_generation_prompt: bool = False) -> str:
        """Return what the template writes for a small conversation, or "" if the template refuses the conversation."""
        if self.form is None:
            return ""
        try:
            return self.run_as_is([self._shown(message) for message in messages], add_generation_prompt)
        except ValueError:
            return ""

    def run_as_is(self, shown: list[dict[str, Any]], add_generation_prompt: bool = False) -> str:
        """Pass the messages to the template unchanged, and return its output, or "" if it refuses the messages."""
        try:
            return self._run(shown, None, add_generation_prompt)
        except ValueError:
            return ""

    def named(self, says: str) -> str:
        """Return a sentence about the tokenizer: its name, followed by the words `says`."""
        return f"the tokenizer {self.tokenizer.name_or_path or type(self.tokenizer).__name__} {says}"

    @cached_property
    def form(self) -> str | None:
        """The form in which the template accepts the content of a message, or None if the template shows no content.

        `text` is a string that contains the image tokens. `parts` is a list of texts and images. `both` means that the template
        accepts `text` and `parts`. `text_parts` is a list of one text that contains the image tokens.
        """
        if self.source is None:
            return None
        takes_text = WORD in self.run_as_is([user(WORD)])
        with_image = self.run_as_is([user([{"type": "image"}, {"type": "text", "text": WORD}])])
        takes_parts = WORD in with_image and with_image.count(self.image_token) == 1
        if takes_text or takes_parts:
            return "both" if takes_text and takes_parts else "text" if takes_text else "parts"
        return "text_parts" if WORD in self.run_as_is([user([{"type": "text", "text": WORD}])]) else None

    @cached_property
    def _takes_videos(self) -> bool:
        """Whether the template accepts a list with a video, and writes the video token for it."""
        shown = self.run_as_is([user([{"type": "video"}, {"type": "text", "text": WORD}])])
        return self.video_token is not None and shown.count(self.video_token) == 1

    @cached_property
    def _shows_thoughts(self) -> bool:
        """Whether the template writes the reasoning that an answer has in the field `reasoning_content`."""
        shown = {**answer(self._content(ANSWER)), "reasoning_content": MORE}
        return self.form is not None and MORE in self.run_as_is([user(self._content(WORD)), shown])

    @cached_property
    def _wants_text(self) -> bool:
        """Whether the template accepts the arguments of a tool call only as a JSON string."""
        return not self._takes_call({}) and self._takes_call("{}")

    @cached_property
    def _wants_short_ids(self) -> bool:
        """Whether the template accepts the id of a tool call only if the id has exactly nine letters and digits."""
        arguments = "{}" if self._wants_text else {}
        return not self._takes_call(arguments, "call_1") and self._takes_call(arguments)

    def _takes_call(self, arguments: Any, call_id: str = CALL_ID) -> bool:
        """Return whether the template shows a tool call with these arguments and this id."""
        calls = [shown_call({"id": call_id, "name": MORE, "arguments": arguments})]
        return MORE in self.run_as_is([user(self._content(WORD)), {**answer(self._content("")), "tool_calls": calls}])

    def _run(self, shown: list[dict[str, Any]], tools: list[Any] | None, add_generation_prompt: bool) -> str:
        """Return what the template writes. Raises ValueError if the template fails in any way."""
        try:
            return self.tokenizer.apply_chat_template(
                shown, tools=tools, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except (TemplateError, TypeError, LookupError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
            # the template is untrusted code, which may raise any of these errors
            raise ValueError(f"the chat template refuses the messages: {error}") from None

    def _shown(self, message: Message) -> dict[str, Any]:
        """Return a message in the form that this template accepts. Raises ValueError if the template cannot write it."""
        shown = {name: value for name, value in message.items() if name not in ("train", "reasoning_content", "tool_calls")}
        content, reasoning, calls = message["content"], message.get("reasoning_content"), message.get("tool_calls")
        if reasoning and self._shows_thoughts:
            shown["reasoning_content"] = reasoning
        elif reasoning:  # the usual form for models without a field for reasoning
            content = f"<think>\n{reasoning}\n</think>\n\n{content}"
        if calls:
            if not self.mentions("tool_calls"):
                raise ValueError("the chat template does not support tool calls")
            shown["tool_calls"] = [shown_call(call, as_text=self._wants_text) for call in calls]
        if message["role"] == "tool" and self.mentions("observation") and not self.mentions("'tool'", '"tool"'):
            shown["role"] = "observation"
        shown["content"] = self._content(content)
        return shown

    def _content(self, content: str) -> str | list[dict[str, str]]:
        """Return the content of a message in the form that the template accepts."""
        if self.form == "parts" or (self.form == "both" and MEDIA.search(content)):
            return _parts(content if self._takes_videos else content.replace(VIDEO_MARK, IMAGE_MARK))
        text = content.replace(IMAGE_MARK, self.image_token).replace(VIDEO_MARK, self.video_token or self.image_token)
        return [{"type": "text", "text": text}] if self.form == "text_parts" else text


def user(content: Any) -> dict[str, Any]:
    """Return a message of the user."""
    return {"role": "user", "content": content}


def answer(content: Any) -> dict[str, Any]:
    """Return a message of the assistant."""
    return {"role": "assistant", "content": content}


def _parts(content: str) -> list[dict[str, str]]:
    """Return the content of a message as image, video and text parts, without the line ends between texts and images."""
    parts: list[dict[str, str]] = []
    media = MEDIA.findall(content)
    for number, (_, text, _) in enumerate(split_at_media(content)):
        if number > 0:
            parts.append({"type": "video" if media[number - 1] == VIDEO_MARK else "image"})
        if text:
            parts.append({"type": "text", "text": text})
    return parts or [{"type": "text", "text": ""}]
