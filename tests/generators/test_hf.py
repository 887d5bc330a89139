"""A model of transformers answers a batch as it answers each prompt alone."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from tests.generators.written_models import (
    GREEDY,
    IMAGE_MODELS,
    TEXT_MODELS,
    answers,
    photo,
    prompts_for,
    texts_by_transformers,
    write_model,
)
from tests.train.published import write_published
from vlmdata.generator import Prompt, Sampling
from vlmdata.models.draw_tokens import TokenDraw, most_probable
from vlmdata.models.text_writer import TextWriter

DRAWN = Sampling(max_tokens=12, temperature=1.0, top_p=0.9)


@pytest.mark.parametrize("name", [*TEXT_MODELS, *IMAGE_MODELS])
def test_answers_are_those_of_transformers_for_each_prompt_alone(name, tmp_path):
    folder, prompts = write_model(name, tmp_path / "model"), prompts_for(name)
    found = answers(TextWriter(str(folder), "fp32", 4), prompts)
    expected = texts_by_transformers(folder, name, prompts, GREEDY.max_tokens)
    assert [(one.text, one.tokens, one.prompt_tokens) for one in found] == expected
    assert len({one.text for one in found}) > 2 and all(one.finish == "length" and one.seconds > 0 for one in found)


@pytest.mark.parametrize("name", ["Llama", "Qwen2.5-VL"])
def test_answers_end_at_any_end_token_of_the_generation_config(name, tmp_path):
    folder, prompts = write_model(name, tmp_path / "model"), prompts_for(name)
    before = answers(TextWriter(str(folder), "fp32", 4), prompts)
    tokenizer = TextWriter(str(folder), "fp32").inputs.tokenizer
    often = next(letter for letter, _ in Counter("".join(one.text for one in before)).most_common() if " " < letter < "~")
    file = folder / "generation_config.json"
    config = json.loads(file.read_text())
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(often)]
    file.write_text(json.dumps({**config, "eos_token_id": ends, "do_sample": True, "temperature": 5.0, "top_k": 3}))
    found = answers(TextWriter(str(folder), "fp32", 4), prompts)
    assert {one.finish for one in found} == {"stop", "length"}
    for one, uncut in zip(found, before, strict=True):
        assert one.text == uncut.text.split(often)[0]
        assert one.finish == ("stop" if often in uncut.text else "length")
        assert (one.tokens < GREEDY.max_tokens) == (one.finish == "stop")


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("name", ["Llama", "Qwen2-VL", "Idefics3"])
def test_an_answer_does_not_depend_on_its_neighbours(name, sampling, tmp_path):
    folder, prompts = write_model(name, tmp_path / "model"), prompts_for(name)
    alone = answers(TextWriter(str(folder), "fp32", 1), prompts, sampling)
    writer = TextWriter(str(folder), "fp32", 8)
    plain = [replace(one, seconds=0.0) for one in alone]
    assert [replace(one, seconds=0.0) for one in answers(writer, prompts, sampling)] == plain
    assert [replace(one, seconds=0.0) for one in answers(writer, prompts[3:5], sampling)] == plain[3:5]


def test_a_model_that_reads_padding_answers_one_prompt_at_a_time(tmp_path):
    folder = write_published("Kosmos-2", tmp_path)
    prompts = [Prompt("what is this? " * (number % 5) + str(number), (photo(number),)) for number in range(1, 8)]
    writer = TextWriter(str(folder), "fp32", 4)
    alone = [answers(writer, [prompt])[0].text for prompt in prompts]
    assert [one.text for one in answers(writer, prompts)] == alone


def test_the_seed_changes_a_drawn_answer_and_not_a_greedy_one(tmp_path):
    writer = TextWriter(str(write_model("Llama", tmp_path)), "fp32", 4)
    prompts = [Prompt("the same text", seed=seed) for seed in (0, 1, 2, 1)]
    drawn = [one.text for one in answers(writer, prompts, DRAWN)]
    assert len(set(drawn)) == 3 and drawn[1] == drawn[3]
    assert len({one.text for one in answers(writer, prompts, GREEDY)}) == 1


def test_draws_have_the_probabilities_of_the_scores():
    scores = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(4000, 4)
    for temperature, top_p, expected in [
        (1.0, 1.0, [0.5, 0.3, 0.15, 0.05]),
        (0.5, 1.0, [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
        (1.0, 0.8, [0.625, 0.375, 0, 0]),
    ]:
        draw = TokenDraw(Sampling(1, temperature, top_p), range(4000), 0, torch.device("cpu"))
        counts = torch.bincount(draw(torch.zeros(4000, 1), scores).argmax(-1), minlength=4) / 4000
        assert torch.allclose(counts, torch.tensor(expected), atol=0.025), (temperature, top_p, counts)


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, 1), (0.51, 2), (0.8, 2), (0.81, 3), (1.0, 4), (1e-9, 1)])
def test_top_p_keeps_the_fewest_tokens_that_add_up_to_it(top_p, kept):
    scores = torch.tensor([[0.15, 0.5, 0.05, 0.3]], dtype=torch.float64).log()
    assert torch.isfinite(most_probable(scores, top_p)).sum() == kept
