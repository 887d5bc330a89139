"""Tokenizers like those of published models, made here, each with a chat template of its family.

The templates are written for these tests after the formats that the models' cards describe.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

WORDS = ["USER: What colour is it? ASSISTANT: It is red.\n\n  def f():\n    return 1", "<b>bold</b> Be brief. A circle."] * 20

# Templates. {gen} is the text that opens an answer.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }} {% elif m['role'] == 'user' %}"
    "USER: {{ m['content'] }} {% else %}ASSISTANT: {{ m['content'] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set lead = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set lead = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (lead if loop.first else '') }}"
    "{{ m['content'] | trim + ' [/INST]' }}{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
GEMMA3 = (
    "{{ bos_token }}{% set ns = namespace(lead='') %}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{% set ns.lead = (m['content'] if m['content'] is string else m['content'][0]['text']) + '\n\n' %}{% else %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ ns.lead }}{% set ns.lead = '' %}"
    "{% if m['content'] is string %}{{ m['content'] | trim }}{% else %}{% for c in m['content'] %}"
    "{{ '<image_soft_token>' if c['type'] == 'image' else c['text'] | trim }}{% endfor %}{% endif %}<end_of_turn>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI2 = (
    "{% for m in messages %}"
    "{{ {'user': 'Instruct: ', 'assistant': 'Output: ', 'system': ''}[m['role']] + m['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}Output:{% endif %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
QWEN2 = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}"
    "{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (
    "{% if tools %}<|im_start|>system\n# Tools\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% set ns = namespace(last=-1) %}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% set content = m['content'] %}{% set thought = m['reasoning_content'] or '' %}"
    "{% if m['role'] == 'assistant' %}{% if '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}<|im_start|>assistant\n"
    "{% if loop.index0 > ns.last and (loop.last or thought) %}"
    "{{ '<think>\n' + thought.strip('\n') + '\n</think>\n\n' }}{% endif %}"
    "{{ content }}{% for call in m['tool_calls'] or [] %}{% if content or not loop.first %}{{ '\n' }}{% endif %}"
    '{{ \'<tool_call>\n{"name": "\' + call.function.name }}'
    "{{ '\", \"arguments\": ' + call.function.arguments | tojson + '}\n</tool_call>' }}"
    "{% endfor %}<|im_end|>\n{% elif m['role'] == 'tool' %}<|im_start|>user\n<tool_response>\n{{ content }}\n</tool_response>"
    "<|im_end|>\n{% else %}<|im_start|>{{ m['role'] }}\n{{ content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user and assistant') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
LLAVA = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ '<image>\n' }}{% endif %}{% endfor %}{% for c in m['content'] %}"
    "{% if c['type'] == 'text' %}{{ c['text'] + ' ' }}{% endif %}{% endfor %}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
SMOL = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}{{ ':' if m['content'][0]['type'] == 'image' else ': ' }}"
    "{% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
LLAMA4 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{{ '<|image|>' if c['type'] == 'image' else c['text'] | trim }}{% endfor %}{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}\n{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}"
)
INDENTED = (
    "  {% for m in messages %}\n    <|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n  {% endfor %}\n"
    "{% if add_generation_prompt %}    <|im_start|>assistant\n{% endif %}"
)
BLANKS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
ENDS_ONCE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{{ '<|assistant|>' if add_generation_prompt else eos_token }}"
)
PARTED = (
    "{% for m in messages %}{{ '' if loop.first else '<|sep|>' }}{{ m['role'] }}:{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|sep|>assistant:{% endif %}"
)
COMMAND = (
    "{{ bos_token }}{% for m in messages %}<|START|>"
    "{{ {'user': '<|USER|>', 'assistant': '<|BOT|>', 'system': '<|SYSTEM|>'}[m['role']] }}"
    "{{ '<|SAYS|>' + m['content'].strip() + '<|SAID|>' if m['role'] == 'assistant' else m['content'].strip() }}<|END|>"
    "{% endfor %}{% if add_generation_prompt %}<|START|><|BOT|>{% endif %}"
)
HARMONY = (
    "<|start|>system<|message|>You help.<|end|>{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{% if loop.last and m['reasoning_content'] %}{{ '<|start|>assistant<|channel|>analysis<|message|>' }}"
    "{{ m['reasoning_content'] + '<|end|>' }}{% endif %}<|start|>assistant<|channel|>final<|message|>{{ m['content'] }}"
    "{{ '<|return|>' if loop.last else '<|end|>' }}{% else %}<|start|>{{ m['role'] }}<|message|>{{ m['content'] }}<|end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """A tokenizer with its chat template."""

    template: str
    end: str  # the token that ends an assistant's turn
    special: Sequence[str] = ()
    plain: Sequence[str] = ()  # added tokens that are ordinary text
    kind: str = "bytes"  # kind of vocabulary: bytes, or Metaspace with its scheme (first, always, never, normalizer)
    bos: str | None = None
    eos: str = "<|endoftext|>"
    writes_bos: bool = False  # the tokenizer's post-processor puts `bos` before each text
    begins: Sequence[str] = ()  # the tokens that the post-processor puts before each text if there is no `bos`
    listed: Sequence[str] = ()  # registered as additional special tokens
    strips: Sequence[str] = ()  # special tokens that absorb the white space after them
    last: str | None = None  # the token that ends the last turn, if another
    trims: bool = False  # token offsets leave blanks out
    parts: str = ""  # contents as lists of parts: `only` for all turns, or `too` if only turns with images need them
    keeps_outer: bool = True  # keeps white space around an answer
    has_system: bool = True
    # strings that a hostile text might contain and that must become plain text
    control: Sequence[str] = field(default_factory=list)

    @property
    def image(self) -> str:
        """Return the token that stands for an image."""
        return next(
            (t for t in ("<|image_pad|>", "<image_soft_token>", "<|image|>") if t in self.special and t in self.template),
            "<image>",
        )


_IM = ["<|im_start|>", "<|im_end|>"]
_THINK = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
_SEEN = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|box_start|>", "<|box_end|>"]
_LLAMA = {"bos": "<s>", "eos": "</s>", "special": ["<unk>", "<s>", "</s>"], "control": ["</s>", "<s>"]}
_TURNS = ["<start_of_turn>", "<end_of_turn>"]
_GEMMA = {
    "plain": ["\n", "\n\n", "\n\n\n", "<table>", "<b>", "</b>", "  ", "    "], "bos": "<bos>", "eos": "<eos>",
    "writes_bos": True, "keeps_outer": False, "end": "<end_of_turn>", "control": ["<end_of_turn>", "<start_of_turn>"],
    "kind": "never",
}  # fmt: skip

_LLAMA3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
_MISTRAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"]
_PHI3 = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]

SHAPES = {
    **{
        f"Vicuna, Metaspace {kind}": Shape(VICUNA, "</s>", kind=kind, writes_bos=True, **_LLAMA)
        for kind in ("first", "always", "never", "normalizer")
    },
    "Llama 2": Shape(
        LLAMA2, " </s>", kind="first", writes_bos=True, keeps_outer=False,
        **{**_LLAMA, "control": ["</s>", "[/INST]", "[INST]", "<<SYS>>", "<</SYS>>"]},
    ),
    "LLaVA 1.5, parts": Shape(LLAVA, " </s>", kind="first", writes_bos=True, parts="only", **_LLAMA),
    "Llama 3": Shape(
        LLAMA3, "<|eot_id|>", _LLAMA3, bos="<|begin_of_text|>", eos="<|end_of_text|>", writes_bos=True, keeps_outer=False,
        control=["<|eot_id|>", "<|start_header_id|>"],
    ),
    "Gemma 2": Shape(GEMMA2, special=["<bos>", "<eos>", *_TURNS], has_system=False, **_GEMMA),
    "Gemma 3, parts": Shape(GEMMA3, special=["<bos>", "<eos>", *_TURNS, "<image_soft_token>"], parts="too", **_GEMMA),
    "Phi-2": Shape(PHI2, "\n", ["<|endoftext|>"], ["  ", "    ", "\t\t"], control=["<|endoftext|>"]),
    "GPT-NeoX": Shape(CHATML, "<|im_end|>", ["<|endoftext|>"], ["  ", "    ", *_IM], control=_IM),
    "Phi-3": Shape(
        PHI3, "<|end|>", ["<s>", "<|endoftext|>", *_PHI3], kind="first", bos="<s>", strips=_PHI3,
        control=["<|end|>", "<|user|>"],
    ),
    "Qwen2": Shape(CHATML, "<|im_end|>", ["<|endoftext|>", *_IM], eos="<|im_end|>", listed=_IM, control=_IM),
    "Qwen2.5, another end of text": Shape(QWEN2, "<|im_end|>", ["<|endoftext|>", *_IM], _THINK[2:], listed=_IM, control=_IM),
    "Qwen2-VL": Shape(
        QWEN2, "<|im_end|>", ["<|endoftext|>", *_IM, *_SEEN], eos="<|im_end|>", parts="too",
        control=[*_IM, "<|image_pad|>", "<|vision_start|>", "<|box_start|>"],
    ),
    "Qwen3": Shape(
        QWEN3, "<|im_end|>", ["<|endoftext|>", *_IM, *_SEEN], _THINK, eos="<|im_end|>", control=[*_IM, "<|box_end|>"],
    ),
    "Mistral, [INST] as text": Shape(
        MISTRAL, "</s>", kind="first", writes_bos=True, has_system=False, **{**_LLAMA, "control": ["</s>", "[/INST]"]},
    ),
    "Mistral, [INST] as tokens": Shape(
        MISTRAL, "</s>", _MISTRAL, kind="always", bos="<s>", eos="</s>", writes_bos=True,
        has_system=False, control=["</s>", "[/INST]"],
    ),
    "SmolLM": Shape(CHATML, "<|im_end|>", ["<|endoftext|>", *_IM], bos="<|im_start|>", eos="<|im_end|>", control=_IM),
    "SmolVLM, parts": Shape(
        SMOL, "<end_of_utterance>", ["<|endoftext|>", "<|im_start|>", "<end_of_utterance>"], bos="<|im_start|>",
        eos="<end_of_utterance>", parts="only", control=["<end_of_utterance>"],
    ),
    "OPT": Shape(VICUNA, "</s>", ["<pad>", "</s>"], bos="</s>", eos="</s>", writes_bos=True, control=["</s>"]),
    "ChatML with byte fallback": Shape(
        CHATML, "<|im_end|>", ["<unk>", "<s>", "</s>", *_IM], kind="always", bos="<s>", eos="<|im_end|>", writes_bos=True,
        control=_IM,
    ),
    "Llama 4, trims parts alone": Shape(
        LLAMA4, "<|eot_id|>", [*_LLAMA3, "<|image|>"], bos="<|begin_of_text|>", eos="<|eot_id|>", writes_bos=True, parts="too",
        control=["<|eot_id|>", "<|start_header_id|>"],
    ),
    "GLM-4": Shape(
        "[gMASK]<sop>" + ENDS_ONCE.replace("eos_token", "''"), "", ["[gMASK]", "<sop>", *_PHI3[:3]],
        begins=["[gMASK]", "<sop>"], control=["[gMASK]", "<|user|>", "<|assistant|>"],
    ),
    "Zephyr": Shape(
        ZEPHYR, "</s>", kind="first", writes_bos=True,
        **{**_LLAMA, "control": ["</s>", "<|user|>", "<|assistant|>", "<|system|>"]},
    ),
    "GPT-NeoX, ranges without blanks": Shape(
        BLANKS, "<|im_end|>", ["<|endoftext|>"], ["  ", "    ", "<b>", *_IM], trims=True, control=_IM,
    ),
    "a template that tells lengths": Shape(
        CHATML.replace("{{ m['role'] }}", "{{ m['role'] }} of {{ m['content'] | length }}"), "<|im_end|>",
        ["<|endoftext|>", *_IM], eos="<|im_end|>", control=_IM,
    ),
    "an indented template": Shape(INDENTED, "<|im_end|>", ["<|endoftext|>", *_IM], eos="<|im_end|>", control=_IM),
    "turns that nothing ends": Shape(ENDS_ONCE, "", _PHI3[:3], last="<|endoftext|>", control=["<|endoftext|>", "<|user|>"]),
    "turns with a token between them": Shape(PARTED, "<|sep|>", ["<|endoftext|>"], ["<|sep|>"], last="", control=["<|sep|>"]),
    "turns that two tokens end": Shape(
        COMMAND, "<|SAID|><|END|>", ["<bos>", "<|START|>", "<|USER|>", "<|BOT|>", "<|SYSTEM|>", "<|SAYS|>", "<|SAID|>"],
        bos="<bos>", eos="<|END|>", writes_bos=True, keeps_outer=False, control=["<|END|>", "<|START|>", "<|BOT|>"],
    ),
    "Harmony": Shape(
        HARMONY, "<|end|>", ["<|endoftext|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>"], eos="<|return|>",
        last="<|return|>", control=["<|end|>", "<|start|>", "<|channel|>", "<|return|>"],
    ),
}  # fmt: skip


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """Make the tokenizer of a shape, with an image token."""
    shape = SHAPES[name]
    inner = of_bytes() if shape.kind == "bytes" else of_pieces(shape.kind)
    inner.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False, rstrip=token in shape.strips)
            for token in [*shape.special, shape.eos]
        ]
    )
    inner.add_tokens([AddedToken(token, special=False, normalized=False) for token in shape.plain])
    if shape.trims:
        inner.post_processor = processors.ByteLevel(trim_offsets=True)
    begin = list(shape.begins) or [shape.bos] * (shape.writes_bos and shape.bos is not None)
    if begin:
        rule = {"single": f"{' '.join(begin)} $A", "pair": f"{' '.join(begin)} $A $B"}
        inner.post_processor = processors.TemplateProcessing(
            **rule, special_tokens=[(name, inner.token_to_id(name)) for name in begin]
        )
    names = {"eos_token": shape.eos, "pad_token": shape.eos} | ({"bos_token": shape.bos} if shape.bos else {})
    if shape.listed:
        names["additional_special_tokens"] = list(shape.listed)  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False, **names)
    tokenizer.add_tokens([AddedToken(shape.image, special=True, normalized=False)])
    tokenizer.chat_template = shape.template
    return tokenizer


def of_bytes() -> Tokenizer:
    """Return a tokenizer of bytes and a few longer pieces."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(WORDS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    return inner


def of_pieces(kind: str) -> Tokenizer:
    """Return a tokenizer with pieces like SentencePiece's, where unknown characters become bytes."""
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement="▁", prepend_scheme="never", split=True
    )  # no piece spans two words
    learned.train_from_iterator(WORDS, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    facts = json.loads(learned.to_str())["model"]
    names = ["<unk>", *(f"<0x{number:02X}>" for number in range(256)), *facts["vocab"]]
    vocabulary = {name: number for number, name in enumerate(names)}
    merges = [tuple(pair) for pair in facts["merges"]]
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>"))
    if kind == "normalizer":  # as the first conversions of LLaMA's tokenizer wrote it
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=kind, split=False)
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return inner
