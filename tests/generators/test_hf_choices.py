"""The generator `hf` gives the probabilities of words as the first token of the model has them, in one forward pass."""

import io
import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
)

from tests.generators.test_hf_failures import room_for
from tests.generators.written_models import (
    GREEDY,
    IMAGE_MODELS,
    TEXT_MODELS,
    answers,
    photo,
    prompts_for,
    write_model,
    write_text_model,
)
from tests.train.made import VISION, special_ids, tokenizer_with
from tests.train.published import write_published
from tests.train.tiny import randomise
from vlmdata.errors import GeneratorStopped
from vlmdata.generator import Answer, Prompt, Sampling
from vlmdata.models.first_token import choice_of
from vlmdata.models.text_writer import TextWriter
from vlmdata.models.word_tokens import WordTokens

GRADES = ("1", "2", "3", "4", "5")
YES_NO = ("yes", "no")
LETTERS = {"yes": "yY", "no": "nN"}  # tokens that count for a word in a vocabulary of single letters


def chosen(prompts: list[Prompt]) -> list[Prompt]:
    """Return the prompts with choices: yes and no for every second one, grades for the others."""
    return [replace(prompt, choices=GRADES if number % 2 else YES_NO) for number, prompt in enumerate(prompts)]


def by_transformers(folder: Path, name: str, prompts: list[Prompt]) -> list[list[float]]:
    """Return the probabilities by one forward pass of transformers for each prompt alone."""
    sees = name in IMAGE_MODELS
    writer = AutoProcessor.from_pretrained(folder) if sees else AutoTokenizer.from_pretrained(folder)
    model = (AutoModelForImageTextToText if sees else AutoModelForCausalLM).from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = writer.tokenizer if sees else writer
    found = []
    for prompt in prompts:
        pictures = [{"type": "image", "image": Image.open(io.BytesIO(body)).convert("RGB")} for body in prompt.images]
        content = [*pictures, {"type": "text", "text": prompt.text}] if sees else prompt.text
        messages = [{"role": "user", "content": content}]
        options = {"tokenize": True, "add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        with torch.no_grad():
            shares = model(**writer.apply_chat_template(messages, **options)).logits[0, -1].softmax(-1)
        letters = [LETTERS.get(choice, choice) for choice in prompt.choices]
        found.append([sum(shares[tokenizer.convert_tokens_to_ids(one)].item() for one in some) for some in letters])
    return found


def close(found: list[Answer], expected: list[list[float]], within: float = 1e-5) -> bool:
    return len(found) == len(expected) and all(
        torch.allclose(torch.tensor(one.probabilities), torch.tensor(shares), rtol=0, atol=within)
        for one, shares in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("name", [*TEXT_MODELS, *IMAGE_MODELS])
def test_probabilities_are_those_of_one_forward_pass_of_transformers(name, tmp_path):
    folder, prompts = write_model(name, tmp_path / "model"), chosen(prompts_for(name))
    found = answers(TextWriter(str(folder), "fp32", 4), prompts)
    expected = by_transformers(folder, name, prompts)
    assert close(found, expected) and len({one.probabilities for one in found}) == len(prompts)
    for one, prompt, shares in zip(found, prompts, expected, strict=True):
        assert one.text == prompt.choices[shares.index(max(shares))]
        assert (one.finish, one.failure, one.tokens) == ("stop", None, 1) and one.prompt_tokens > 0 and one.seconds > 0


def write_encoder_decoder(folder: Path) -> Path:
    """Write a BLIP-2 over a T5, which reads the prompt with an encoder."""
    tokenizer = tokenizer_with(template=None)
    images = BlipImageProcessor(size={"height": 16, "width": 16})
    processor = Blip2Processor(images, tokenizer, num_query_tokens=5)
    text = {"model_type": "t5", "d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 2, "num_heads": 4, "vocab_size": 320}
    q_former = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 30}
    config = Blip2Config(
        vision_config={**VISION, "image_size": 16, "patch_size": 4},
        qformer_config=q_former,
        text_config={**text, **special_ids(tokenizer), "decoder_start_token_id": tokenizer.pad_token_id},
        num_query_tokens=5,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = Blip2ForConditionalGeneration(config).eval()
    randomise(model, seed=1, scale=0.25)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["a T5", "BLIP-2", "InstructBLIP", "PaliGemma", "Kosmos-2"])
def test_encoders_prefixes_and_models_that_read_padding_give_those_of_transformers(name, tmp_path):
    folder = write_encoder_decoder(tmp_path) if name == "a T5" else write_published(name, tmp_path)
    asked = chosen([Prompt("what is this? " * (number % 3) + str(number), (photo(number),)) for number in range(1, 6)])
    writer = TextWriter(str(folder), "fp32", 2)
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    expected = []
    for prompt in asked:
        picture = Image.open(io.BytesIO(prompt.images[0])).convert("RGB")
        inputs = processor(text=writer.inputs.form.text(prompt), images=picture, return_tensors="pt")
        more = {"decoder_input_ids": torch.tensor([[processor.tokenizer.pad_token_id]])} if name == "a T5" else {}
        with torch.no_grad():
            shares = model(**inputs, **more).logits[0, -1].softmax(-1)
        sums = [0.0] * len(prompt.choices)
        for token, share in enumerate(shares[: len(processor.tokenizer)].tolist()):
            number = choice_of(processor.tokenizer.decode([token], skip_special_tokens=True), prompt.choices)
            if number is not None:
                sums[number] += share
        expected.append(sums)
    assert close(answers(writer, asked), expected) and all(max(shares) > 1e-4 for shares in expected)


@pytest.mark.parametrize("name", ["GPT-2", "Qwen2-VL", "Idefics3"])
def test_probabilities_do_not_depend_on_the_batch(name, tmp_path):
    folder, prompts = write_model(name, tmp_path), chosen(prompts_for(name))
    alone = [list(one.probabilities) for one in answers(TextWriter(str(folder), "fp32", 1), prompts)]
    for batch in (2, 3, 16):
        writer = TextWriter(str(folder), "fp32", batch)
        assert close(answers(writer, prompts), alone) and close(answers(writer, prompts[4:7]), alone[4:7])


def test_prompts_with_and_without_choices_have_batches_of_their_own(tmp_path):
    """The texts are those of a call without choices, and each batch with choices takes one pass."""
    writer = TextWriter(str(write_model("Llama", tmp_path)), "fp32", 4)
    plain = prompts_for("Llama", 8)
    texts = [replace(one, seconds=0.0) for one in answers(writer, plain)]
    shares = [one.probabilities for one in answers(writer, chosen(plain))]
    passes = []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: passes.append(1) if type(module).__name__ == "LlamaForCausalLM" else None
    )
    try:
        mixed = answers(writer, list(itertools.chain(*zip(plain, chosen(plain), strict=True))))
    finally:
        hook.remove()
    assert [replace(one, seconds=0.0) for one in mixed[::2]] == texts
    assert [one.probabilities for one in mixed[1::2]] == shares
    assert len(passes) == 2 * GREEDY.max_tokens + 2


def test_the_share_of_drawn_first_tokens_agrees_with_the_probability(tmp_path):
    folder, draws, letters = write_model("Llama", tmp_path), 3000, tuple("abcdefghijklmnopqrstuvwxyz")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] *= 10  # the probabilities of tokens differ much
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    writer = TextWriter(str(folder), "fp32", 100)
    drawn = answers(writer, [Prompt("what is this?", seed=seed) for seed in range(draws)], Sampling(1, 1.0))
    (answer,) = answers(writer, [Prompt("what is this?", choices=letters)])
    assert max(answer.probabilities) > 0.03
    counts = Counter(choice_of(one.text, letters) for one in drawn)
    for number, share in enumerate(answer.probabilities):
        assert abs(counts[number] / draws - share) <= 4 * (share * (1 - share) / draws) ** 0.5 + 1e-3


def test_a_prompt_with_choices_needs_room_for_one_token(tmp_path):
    writer = TextWriter(str(write_text_model("GPT-2", tmp_path, template=False)), "fp32", 4)  # the context has 96 tokens
    found = answers(writer, chosen([Prompt("a" * 95), Prompt("a" * 96), Prompt(""), Prompt("a", (photo(0),))]))
    assert [one.failure for one in found] == [None, "too_long", "bad_prompt", "no_images"]
    assert found[0].prompt_tokens == 95 and all(one.probabilities is None for one in found[1:])


def test_broken_weights_give_no_probabilities_and_stop_without_a_stored_failure(tmp_path):
    folder = write_model("Llama", tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    found: dict[int, Answer] = {}
    asked = chosen([Prompt("what is this?")] * 3)
    assert {one.failure for one in answers(TextWriter(str(folder), "fp32", 4), asked)} == {"not_finite"}
    with pytest.raises(GeneratorStopped, match=r"^hf: .* gives probabilities that are not finite\. Use precision: fp32"):
        TextWriter(str(folder), "fp32", 4).answer(iter(asked * 9), GREEDY, found.__setitem__)
    assert not found


def test_a_batch_with_choices_that_does_not_fit_is_halved_until_it_fits(tmp_path):
    folder, prompts = write_model("Llama", tmp_path), chosen(prompts_for("Llama"))
    expected = [list(one.probabilities) for one in answers(TextWriter(str(folder), "fp32", 8), prompts)]
    writer = TextWriter(str(folder), "fp32", 8)
    with room_for(3):
        assert close(answers(writer, prompts), expected)
    assert writer.batch == 2


def test_tokens_count_for_a_word_as_the_rule_says_and_special_ones_for_none(tmp_path):
    tokenizer = tokenizer_with("[no]", "[5]", template=None)  # special
    tokenizer.add_tokens([" Yes", "YES.", "\nye", " maybe", "None", "no", "nicht"])
    words = WordTokens(tokenizer)
    special = set(tokenizer.all_special_ids) | {tokenizer.convert_tokens_to_ids(one) for one in ("[no]", "[5]")}
    for choices in (YES_NO, GRADES, ("no", "not"), ("ja", "nein", "vielleicht")):
        expected = [[] for _ in choices]
        for token in set(range(len(tokenizer))) - special:
            number = choice_of(tokenizer.decode([token]), choices)
            if number is not None:
                expected[number].append(token)
        assert words.of(choices) == [sorted(tokens) for tokens in expected] and any(expected)
    assert [len(tokens) for tokens in words.of(YES_NO)] == [5, 3]


def test_tokens_that_the_model_does_not_have_are_left_out(tmp_path):
    folder = write_model("Llama", tmp_path)
    expected = answers(TextWriter(str(folder), "fp32", 1), [Prompt("what?", choices=YES_NO)])[0].probabilities
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"word {number}" for number in range(99)] + [" Yes"])
    tokenizer.save_pretrained(folder)
    writer = TextWriter(str(folder), "fp32", 1)
    assert len(writer.inputs.tokenizer) > 320
    assert answers(writer, [Prompt("what?", choices=YES_NO)])[0].probabilities == expected
