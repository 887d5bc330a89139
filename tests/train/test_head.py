"""The output layer and its logit changes are found in the model itself and are the same in loss, evaluation and generation."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.train.tiny import LLAMA, TINY, pack, rows, sample, tiny_model
from vlmdata_train.data.templates import ChatTemplate
from vlmdata_train.loop.train_step import MicroBatch, ModelWithLoss
from vlmdata_train.model.decoding import Decoding
from vlmdata_train.model.freezing import apply_parts
from vlmdata_train.model.generate import generate
from vlmdata_train.model.head import Head, head_of
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import Lora, Part
from vlmdata_train.model.tokens import image_token

GEMMA_2 = {"model_type": "gemma2", "head_dim": 8, "sliding_window": 6, "attn_logit_softcapping": 3.0}
HEADS: dict[str, tuple[dict[str, Any], Head, bool]] = {
    "Phi-2": ({"model_type": "phi"}, Head(), True),
    "GPT-J": ({"model_type": "gptj", "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}, Head(), True),
    "Gemma 2": ({**GEMMA_2, "final_logit_softcapping": 3.0}, Head(cap=3.0), False),
    "Gemma 2, by default": (GEMMA_2, Head(cap=30.0), False),
    "Gemma 2 without a cap": ({**GEMMA_2, "final_logit_softcapping": None}, Head(), False),
    "Cohere": ({"model_type": "cohere", "logit_scale": 1.5}, Head(scale=1.5), False),
    "Granite divides": ({"model_type": "granite", "logits_scaling": 8.0}, Head(scale=1 / 8), False),
    "HyperCLOVA X multiplies": ({"model_type": "hyperclovax", "logits_scaling": 0.5}, Head(scale=0.5), False),
}  # fmt: skip


def model_of(config: dict[str, Any]) -> VisionLanguageModel:
    """Build the tiny model with another language model."""
    return tiny_model(replace(TINY, language={"hf_causal": {"config": {**LLAMA, **config}}}))


@pytest.mark.parametrize(("config", "head", "has_bias"), HEADS.values(), ids=HEADS)
def test_logits_and_loss_equal_those_of_transformers(config: dict[str, Any], head: Head, has_bias: bool) -> None:
    model = model_of(config)
    assert model.head == head and (model.lm_head.bias is not None) == has_bias
    batch = pack(model, [sample(model, 12, 1, 1)])
    answers = [(name, weight) for name, weight in model.named_parameters() if name.startswith("language")]
    summed, _ = ModelWithLoss(model, chunk=5, autocast=False)(MicroBatch.of(batch, torch.device("cpu")))
    got = torch.autograd.grad(summed, [weight for _, weight in answers])
    with torch.no_grad():
        ours, embedded = model.logits(batch), model.embed(batch, None)
    model.language.set_attn_implementation("eager")
    theirs = model.language(inputs_embeds=embedded).logits
    assert theirs.std() > 0.02 and (ours - theirs).abs().max() < 1e-5
    wanted = F.cross_entropy(theirs[0, :-1], batch.labels[0, 1:], reduction="sum")
    assert torch.allclose(summed, wanted, rtol=1e-5)
    for (name, weight), gradient in zip(answers, got, strict=True):
        (other,) = torch.autograd.grad(wanted, [weight], retain_graph=True, allow_unused=True)
        # the reference received embeddings instead of token ids
        if other is not None and "embed" not in name and "wte" not in name:
            torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    "config", [HEADS["Phi-2"][0], HEADS["Gemma 2"][0], HEADS["Cohere"][0]], ids=["Phi-2", "Gemma 2", "Cohere"]
)
def test_autocast_gives_the_rounded_fp32_loss_and_every_weight_a_gradient(config: dict[str, Any]) -> None:
    model = model_of(config)
    micro = MicroBatch.of(pack(model, [sample(model, 12, 1, 1), sample(model, 30, 0, 2)]), torch.device("cpu"))
    with torch.no_grad():
        exact, _ = ModelWithLoss(model, chunk=5, autocast=False)(micro)
    rounded, _ = ModelWithLoss(model, chunk=5, autocast=True)(micro)
    assert torch.allclose(rounded, exact, rtol=0.01)
    rounded.backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize("family", ["Phi-2", "Gemma 2", "Granite divides"])
def test_generation_equals_the_full_forward(family: str) -> None:
    model = model_of(HEADS[family][0])
    prompt, pixels = sample(model, 10, 1, 1)
    [new] = generate(model, pack(model, [(prompt, pixels)]), max_new_tokens=6, stop_ids=[])
    expected = list(prompt)
    for _ in range(6):
        with torch.no_grad():
            logits = model.logits(pack(model, [(expected, pixels)]))[0, -1, : len(model.tokenizer)]
        logits[model.fusion.image_token_id] = -torch.inf
        expected.append(int(logits.argmax()))
    assert new == expected[len(prompt) :]


def test_padded_prompts_of_a_model_with_capped_scores_are_continued_as_each_alone() -> None:
    model = model_of(HEADS["Gemma 2"][0])
    samples = [sample(model, length, 0, length) for length in (4, 30)]
    ids = [tokens + [0] * (30 - len(tokens)) for tokens, _ in samples]
    places = [list(range(len(tokens))) + [0] * (30 - len(tokens)) for tokens, _ in samples]
    segments = [[1] * len(tokens) + [0] * (30 - len(tokens)) for tokens, _ in samples]
    together = generate(model, rows(model, ids, places, segments, samples[0][1]), max_new_tokens=5, stop_ids=[])
    assert together == [generate(model, pack(model, [one]), max_new_tokens=5, stop_ids=[])[0] for one in samples]


def test_sampling_draws_from_the_capped_logits() -> None:
    """A cap of 0.01 makes all tokens almost equally likely, so that the likeliest is rarely drawn."""
    model = model_of({**GEMMA_2, "final_logit_softcapping": 0.01})
    batch = pack(model, [sample(model, 10, 1, 1)])
    [likeliest] = generate(model, batch, max_new_tokens=1, stop_ids=[])
    ways = [Decoding(temperature=1.0, seed=seed) for seed in range(20)]
    drawn = [generate(model, batch, max_new_tokens=1, stop_ids=[], decoding=way)[0] for way in ways]
    assert drawn.count(likeliest) < 3


def test_generation_without_an_end_token_fills_the_limit() -> None:
    model = model_of({})
    model.tokenizer.eos_token = None
    stop_ids = ChatTemplate(model.tokenizer, image_token(model.tokenizer)).stop_ids
    [new] = generate(model, pack(model, [sample(model, 10, 1, 1)]), max_new_tokens=5, stop_ids=stop_ids)
    assert len(new) == 5


def test_lora_does_not_change_the_output_layer_whatever_its_name() -> None:
    for config in (HEADS["Phi-2"][0], {"model_type": "biogpt"}):
        model = model_of(config)
        apply_parts(model.parts(), {"language": Part(lora=Lora(rank=2, alpha=4))})
        assert type(model.lm_head) is torch.nn.Linear and not model.lm_head.weight.requires_grad
        assert any("lora_" in name for name, _ in model.language.named_parameters())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "modernbert-decoder"}, "changes its last hidden states before the output layer"),
        ({"model_type": "llama4_text", "num_local_experts": 2}, "has no decoder separate from its output layer"),
    ],
)
def test_logit_changes_that_the_loss_cannot_compute_are_refused_by_name(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(replace(TINY, language={"hf_causal": {"config": {**LLAMA, **config}}}))


def test_a_model_whose_logit_changes_differ_from_its_configuration_is_refused() -> None:
    language = model_of(HEADS["Cohere"][0]).language
    language.config.logit_scale = 0.7  # the model read 1.5 when it was built
    with pytest.raises(ValueError, match=r"CohereForCausalLM changes its logits .*\(fields about logits: logit_scale"):
        head_of(language)


def test_an_output_layer_of_another_class_is_refused_by_name() -> None:
    class Twice(torch.nn.Linear):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(hidden)

    language = model_of({}).language
    language.lm_head = Twice(32, language.config.vocab_size)
    with pytest.raises(ValueError, match="LlamaForCausalLM has an output layer of type Twice"):
        head_of(language)
