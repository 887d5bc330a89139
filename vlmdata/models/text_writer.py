"""Answer prompts in batches with a model of transformers. B prompts in a batch, T tokens of the longest one."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PretrainedConfig,
)

from vlmdata.errors import GeneratorStopped
from vlmdata.generator import Answer, Prompt, Sampling
from vlmdata.models.draw_tokens import FirstToken, TokenDraw
from vlmdata.models.first_token import ONE_TOKEN, with_probabilities
from vlmdata.models.loaded_weights import choose_precision, weights_hash
from vlmdata.models.prompt_inputs import Prepared, inputs_of
from vlmdata.models.weights_identity import unusable_weights
from vlmdata.models.word_tokens import WordTokens
from vlmdata.process.shortage import is_short_of_memory
from vlmdata.untrusted import Failed, errors_as, one_line

BATCH = {"cuda": 32, "cpu": 8}  # prompts at a time
AHEAD = 4  # batches of prompts that are held in memory and sorted by length
ALONE = ("kosmos-2",)  # types of models whose answers change with padding (transformers 5.24); one prompt at a time
MOST_BROKEN = 8  # prompts that fail one after the other because of the model or the GPU, before the model counts as unusable
BROKEN = {  # failure: what is said if the model counts as unusable
    "not_finite": "gives probabilities that are not finite. Use precision: fp32, or weights that are not damaged",
    "no_memory": "has too little memory on the GPU for one prompt. Use precision: bf16, smaller images or a smaller model",
}

NOT_FINITE = Answer(failure="not_finite")
FIT = "Check that its config.json and the files of its processor and tokenizer belong together"
MOST_SAID = 300  # characters of another library's error that are shown


@dataclass(frozen=True)
class _Asked:
    number: int  # of the prompt, as `answer` counts
    prompt: Prompt
    text: str  # the prompt in the model's form


@dataclass
class _Call:
    """One call of `answer`. `held` are failures that are held back, because the model or the GPU may have caused them."""

    sampling: Sampling
    done: Callable[[int, Answer], None]
    held: list[tuple[int, Answer]] = field(default_factory=list)

    def store(self, number: int, answer: Answer) -> None:
        """Store an answer, which shows that the model works, after the failures that were held back."""
        self.release()
        self.done(number, answer)

    def release(self) -> None:
        while self.held:
            self.done(*self.held.pop(0))


class TextWriter:
    """A model with its tokenizer or processor. It is thread-safe: a lock lets one thread compute at a time."""

    def __init__(self, model: str, precision: str, batch: int = 0):
        """Load the model. `batch` is the number of prompts at a time, 0 for BATCH. Raises RecipeError if loading fails."""
        self.name = model
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.kind = choose_precision(precision, self.device)
        self.inputs, config = inputs_of(model)
        self.batch = 1 if config.model_type in ALONE else batch or BATCH[self.device.type]
        self.context = _context(config)
        loader = AutoModelForImageTextToText if self.inputs.sees_images else AutoModelForCausalLM
        with errors_as(lambda error: unusable_weights(model, error), passes=(MemoryError, OSError)):
            net: Any = loader.from_pretrained(model, dtype=self.kind, trust_remote_code=False)
        self.facts: Mapping[str, Any] = {
            "model": model,
            "weights_sha256": weights_hash(net),
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "computed": f"{str(self.kind).removeprefix('torch.')} on {_device_name(self.device)}",
        }
        self.ends = _ends(net.generation_config, self.inputs.tokenizer)
        # only the sampling of the recipe counts, not the one in the model's own generation_config.json
        net.generation_config = GenerationConfig(
            eos_token_id=self.ends or None,
            pad_token_id=self.inputs.pad,
            bos_token_id=net.generation_config.bos_token_id,
            decoder_start_token_id=net.generation_config.decoder_start_token_id,
        )
        self._net = net.to(self.device).eval()
        self._words = WordTokens(self.inputs.tokenizer)
        self._broken = 0  # prompts that failed one after the other because of the model or the GPU
        self._computing = threading.Lock()

    def answer(self, prompts: Iterator[Prompt], sampling: Sampling, done: Callable[[int, Answer], None]) -> None:
        """Answer all prompts, as OpenGenerator says.

        Prompts with the same number of images share batches, longest first. Prompts with choices have batches of their own. A
        failure that the model or the GPU may have caused is stored after another prompt was answered, or at the end.
        """
        call = _Call(sampling, done)
        numbered = enumerate(prompts)
        while pulled := list(itertools.islice(numbered, AHEAD * self.batch)):
            asked = [one for number, prompt in pulled if (one := self._asked(number, prompt, done)) is not None]
            asked.sort(key=lambda one: (_kind(one.prompt), len(one.text)), reverse=True)
            for _, same in itertools.groupby(asked, key=lambda one: _kind(one.prompt)):
                left = list(same)
                while left:
                    with self._computing:
                        size = self.batch  # a batch that does not fit into the GPU's memory halves it
                        left = [*self._answer_batch(left[:size], call), *left[size:]]
        call.release()

    def close(self) -> None:
        self._net = None

    def _asked(self, number: int, prompt: Prompt, done: Callable[[int, Answer], None]) -> _Asked | None:
        """Return a prompt in the model's form, or None if it has failed."""
        if prompt.images and not self.inputs.sees_images:
            done(number, Answer(failure="no_images"))
            return None
        try:
            return _Asked(number, prompt, self.inputs.form.text(prompt))
        except Failed:
            done(number, Answer(failure="bad_prompt"))
            return None

    def _answer_batch(self, asked: list[_Asked], call: _Call) -> list[_Asked]:
        """Answer the prompts. Return those that still have no answer, because the batch was halved."""
        start = time.perf_counter()
        sampling = ONE_TOKEN if asked[0].prompt.choices else call.sampling
        used, prepared = self._usable(asked, sampling.max_tokens, call.done)
        if prepared is None:
            return []
        try:
            answers = self._answers(prepared, [one.prompt for one in used], sampling)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if self.batch > 1:
                self.batch //= 2
                return used
            answers = [Answer(failure="no_memory")]
        seconds = (time.perf_counter() - start) / len(used)
        for one, answer in zip(used, answers, strict=True):
            if answer.failure is None:
                self._broken = 0
                call.store(one.number, replace(answer, seconds=seconds))
            else:
                self._broken += 1
                call.held.append((one.number, answer))
        if self._broken >= MOST_BROKEN:  # since the last answer
            raise GeneratorStopped(f"hf: {self.name} {BROKEN[str(answers[-1].failure)]}")
        return []

    def _usable(
        self, asked: list[_Asked], max_tokens: int, done: Callable[[int, Answer], None]
    ) -> tuple[list[_Asked], Prepared | None]:
        """Return the prompts that the model can read, with its inputs for a full batch of them. The others have failed.

        The inputs are None if no prompt is left.
        """
        used = asked
        while used:
            prepared, failures = self.inputs.prepared([(one.text, one.prompt.images) for one in used], self.batch)
            if prepared is not None and self.context is not None:
                most = self.context - max_tokens
                failures = {place: "too_long" for place, length in enumerate(prepared.lengths) if length > most}
            if not failures:
                return used, prepared
            for place, failure in failures.items():
                done(used[place].number, Answer(failure=failure))
            used = [one for place, one in enumerate(used) if place not in failures]
        return [], None

    def _answers(self, prepared: Prepared, prompts: list[Prompt], sampling: Sampling) -> list[Answer]:
        """Return the answer to each prompt of the batch, or its failure. All prompts have choices, or none has."""
        if prompts[0].choices:
            first = FirstToken()
            self._generate(prepared, first, sampling.max_tokens)
            rows = zip(first.probabilities, prompts, prepared.lengths, strict=False)  # without the copies
            return [self._chosen(row, prompt.choices, length) for row, prompt, length in rows]
        seeds = [prompt.seed for prompt in prompts]
        seeds += seeds[-1:] * (self.batch - len(seeds))
        draw = TokenDraw(sampling, seeds, self.ends[0] if self.ends else 0, self.device)
        tokens = self._generate(prepared, draw, sampling.max_tokens)[:, -draw.steps :].tolist()
        found = zip(tokens, prepared.lengths, draw.broken.tolist(), strict=False)
        return [NOT_FINITE if is_broken else self._read(row, length) for row, length, is_broken in found]

    @torch.inference_mode()
    def _generate(self, prepared: Prepared, changes: LogitsProcessor, max_tokens: int) -> Tensor:
        """Return the tokens of each prompt of the batch with its answer and padding, (B, T). `changes` changes the scores.

        One token takes one forward pass. It is also asked from `generate`, which knows each model's way to count the
        positions of padded prompts and to begin the answer of a decoder.
        """
        inputs = {
            name: tensor.to(self.device, self.kind if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in prepared.tensors.items()
        }
        config = GenerationConfig(max_new_tokens=max_tokens, do_sample=False)  # TokenDraw draws
        try:
            return self._net.generate(**inputs, generation_config=config, logits_processor=LogitsProcessorList([changes]))
        except (IndexError, RuntimeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError) or is_short_of_memory(error):
                raise
            said = one_line(error)[:MOST_SAID].rstrip(". ")
            raise GeneratorStopped(f"hf: {self.name} fails on its own processor's inputs: {said}. {FIT}") from error

    def _chosen(self, probabilities: Tensor, choices: tuple[str, ...], length: int) -> Answer:
        """Return the answer with the probability of each choice. `probabilities` are those of the first token, (V,)."""
        if not torch.isfinite(probabilities[0]):
            return NOT_FINITE
        known = len(probabilities)  # a tokenizer may have more tokens than its model
        sums = [float(probabilities[[one for one in tokens if one < known]].sum()) for tokens in self._words.of(choices)]
        return with_probabilities(sums, choices, Answer(prompt_tokens=length, tokens=1))

    def _read(self, row: list[int], length: int) -> Answer:
        """Return the answer in a row of new tokens. The token that ends an answer is not counted."""
        end = next((place for place, token in enumerate(row) if token in self.ends), None)
        tokens = row[:end]
        text = self.inputs.tokenizer.decode(tokens, skip_special_tokens=True)
        return Answer(text, "length" if end is None else "stop", None, length, len(tokens))


def _kind(prompt: Prompt) -> tuple[bool, int]:
    """Return what the prompts of a batch have in common: whether they have choices, and the number of images."""
    return bool(prompt.choices), len(prompt.images)


def _context(config: PretrainedConfig) -> int | None:
    """Return how many tokens a prompt and its answer may have together, or None if the model does not limit it."""
    most = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return most if isinstance(most, int) and most > 0 else None


def _ends(config: GenerationConfig, tokenizer: Any) -> list[int]:
    """Return the tokens that end an answer: those of the model's generation configuration, or the tokenizer's."""
    ends = config.eos_token_id if config.eos_token_id is not None else tokenizer.eos_token_id
    return [end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int)]


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
