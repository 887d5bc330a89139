"""Packed samples cannot see each other in any attention backend."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from tests.train.tiny import LLAMA, TINY, pack, sample, tiny_model
from vlmdata_train.model.attention import plan_attention, segment_block_mask
from vlmdata_train.model.model import build_model
from vlmdata_train.model.model_recipe import ModelRecipe

pytestmark = pytest.mark.whole

MISTRAL = {**LLAMA, "model_type": "mistral", "sliding_window": 6}
GEMMA_2 = {  # its layers alternate between a window and full attention; scores are scaled by another width and then capped
    **LLAMA, "model_type": "gemma2", "head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 5,
    "attn_logit_softcapping": 0.7, "final_logit_softcapping": 5.0,
}  # fmt: skip


@pytest.mark.parametrize("backend", ["segments", "flex"])
@pytest.mark.parametrize("config", [LLAMA, MISTRAL, GEMMA_2], ids=["llama", "mistral, window 6", "gemma 2, window 6"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_packed_samples_equal_separate_ones_and_naive_concatenation_does_not(backend: str, config: dict[str, object]) -> None:
    model = tiny_model(replace(TINY, language={"hf_causal": {"config": config}}))
    model.attention = backend
    samples = [sample(model, 10, 1, 1), sample(model, 7, 2, 2), sample(model, 140, 0, 3), sample(model, 12, 1, 4)]
    packed = pack(model, samples, padding=9)
    naive = pack(model, samples)
    naive.segment_ids.fill_(1)
    naive.position_ids = torch.arange(naive.input_ids.shape[1])[None]
    start = 0
    with torch.no_grad():
        together, concatenated = model.logits(packed)[0], model.logits(naive)[0]
        for one in samples:
            alone = model.logits(pack(model, [one]))[0]
            end = start + len(alone)
            assert (together[start:end] - alone).abs().max() < 1e-5
            assert start == 0 or (concatenated[start:end] - alone).abs().max() > 0.01
            start = end


@pytest.mark.parametrize("config", [LLAMA, GEMMA_2], ids=["llama", "gemma 2"])
def test_gradients_of_packed_samples_equal_those_of_separate_ones(config: dict[str, Any]) -> None:
    model = tiny_model(replace(TINY, language={"hf_causal": {"config": config}}))
    samples = [sample(model, 10, 1, 1), sample(model, 7, 2, 2)]
    model(pack(model, samples)).square().sum().backward()
    together = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    for one in samples:
        model(pack(model, [one])).square().sum().backward()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(together[name], weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [None, 1, 100, 128, 300])
@pytest.mark.parametrize("length", [128, 384, 500])
def test_block_masks_hold_exactly_the_visible_pairs(window: int | None, length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    ids = torch.sort(torch.randint(0, 5, (2, length), generator=generator)).values
    ids[1, -40:] = 0
    mask = segment_block_mask(ids, window)
    place = torch.arange(length)
    gap = place[:, None] - place
    expected = (ids[:, :, None] == ids[:, None]) & (gap >= 0)
    if window is not None:
        expected &= gap < window
    tested, full = torch.zeros(2, 2, length, length, dtype=torch.bool).unbind(1)
    for row in range(2):
        for query in range(-(-length // 128)):
            for chosen, count, index in (
                (tested, mask.kv_num_blocks, mask.kv_indices), (full, mask.full_kv_num_blocks, mask.full_kv_indices),
            ):  # fmt: skip
                for block in index[row, 0, query, : count[row, 0, query]].tolist():
                    chosen[row, query * 128 : query * 128 + 128, block * 128 : block * 128 + 128] = True
    assert not (full & ~expected).any(), "a full block must need no test"
    assert torch.equal((tested & expected) | full, expected)


LANGUAGES: dict[str, dict[str, Any]] = {
    "qwen2": {}, "qwen3": {"head_dim": 8}, "phi3": {}, "gemma": {"head_dim": 8}, "olmo2": {}, "smollm3": {}, "opt": {},
    "gpt_neox": {}, "mixtral": {"num_local_experts": 4}, "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "gemma3_text": {"head_dim": 8, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    "gemma2": GEMMA_2, "phi": {}, "cohere": {"logit_scale": 1.5}, "cohere2": {"logit_scale": 1.5, "sliding_window": 6},
    "granite": {"logits_scaling": 0.5, "attention_multiplier": 0.9}, "starcoder2": {},
    "vaultgemma": {"head_dim": 8, "sliding_window": 6, "attn_logit_softcapping": 0.7},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4},
}  # fmt: skip


def language(family: str, **more: Any) -> ModelRecipe:
    """Return the tiny recipe with another language model."""
    config = {**LLAMA, "model_type": family, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **more}
    return replace(TINY, language={"hf_causal": {"config": config}})


@pytest.mark.parametrize("family", sorted(LANGUAGES))
def test_any_language_model_can_pack_and_else_equals_transformers(family: str) -> None:
    model = tiny_model(language(family, **LANGUAGES[family]))
    samples = [sample(model, 10, 1, 1), sample(model, 17, 1, 2)]
    with torch.no_grad():
        together = model.logits(pack(model, samples))[0].split([len(ids) for ids, _ in samples])
        embedded = [model.embed(pack(model, [one]), None) for one in samples]
        model.language.set_attn_implementation("eager")
        for packed, alone in zip(together, embedded, strict=True):
            assert (packed - model.language(inputs_embeds=alone).logits[0]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("mamba", "lets samples in one row see each other"),
        ("bloom", "does not allow a replacement of its attention implementation"),
        ("stablelm", "does not receive `packing`"),
        ("gpt_oss", "GptOssAttention has attention sinks"),
    ],
)
def test_a_language_model_that_cannot_be_packed_is_refused_when_it_is_built(family: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(language(family))


def test_the_backend_varlen_refuses_a_prefix() -> None:
    ids = torch.ones(1, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="which the backend `varlen` does not support"):
        plan_attention(ids, backend="varlen", two_way=ids > 0)


def test_attention_dropout_is_refused_only_in_training() -> None:
    model = tiny_model(language("gpt2", **LANGUAGES["gpt2"]))
    batch = pack(model, [sample(model, 5, 0, 1)])
    model.logits(batch)
    with pytest.raises(ValueError, match=r"GPT2Attention has attention dropout \(0.1; set it to 0 in `config`\)"):
        model.train().logits(batch)
    free = tiny_model(language("gpt2", **LANGUAGES["gpt2"], attn_pdrop=0.0)).train()
    free.logits(batch).sum().backward()


def test_varlen_is_refused_for_a_model_that_caps_its_scores() -> None:
    capped, free = (language("gemma2", **{**GEMMA_2, "attn_logit_softcapping": cap}) for cap in (0.7, None))
    model, other = tiny_model(capped), tiny_model(free)
    batch = pack(model, [sample(model, 10, 1, 1)])
    with torch.no_grad():
        assert (model.logits(batch) - other.logits(batch)).abs().max() > 0.01
        model.attention = "varlen"
        with pytest.raises(ValueError, match="caps its scores, which `varlen` does not support"):
            model.logits(batch)


def test_an_unknown_backend_raises_an_error() -> None:
    with pytest.raises(ValueError, match="The backends are auto, segments, varlen, flex"):
        plan_attention(torch.ones(1, 4, dtype=torch.int32), backend="flash")


@pytest.mark.parametrize(("fusion", "family"), [("tokens", LLAMA), ("cross_attention", LLAMA), ("tokens", GEMMA_2)])
def test_compiled_blocks_have_no_graph_break_and_no_recompilation_for_new_segments(fusion: str, family: dict[str, Any]) -> None:
    config = {**family, "num_hidden_layers": 4}
    abstractor = "mlp" if fusion == "tokens" else {"perceiver": {"latents": 4, "layers": 1, "heads": 1, "head_width": 8}}
    entry = fusion if fusion == "tokens" else {fusion: {"every": 2}}
    model = tiny_model(replace(TINY, language={"hf_causal": {"config": config}}, fusion=entry, abstractor=abstractor))
    batches = [pack(model, [sample(model, 200 - 9 * n, 1, n), sample(model, 20 + 9 * n, 1, 5)]) for n in range(3)]
    torch._dynamo.reset()
    compiled = CompileCounterWithBackend("eager")
    with torch.no_grad():
        model.attention = "segments"
        expected = [model.logits(batch) for batch in batches]
        for block in model.language.model.layers:
            block.compile(backend=compiled, fullgraph=True)
        model.attention = "flex"
        assert (model.logits(batches[0]) - expected[0]).abs().max() < 1e-5
        frames = compiled.frame_count
        for batch, wanted in zip(batches[1:], expected[1:], strict=True):
            assert (model.logits(batch) - wanted).abs().max() < 1e-5
    assert compiled.frame_count == frames <= 2, "plain blocks, and those with a layer hooked in or another window"


@pytest.mark.parametrize("backend", ["segments", "varlen"])  # FlexAttention has a backward pass only on a GPU
@pytest.mark.parametrize("config", [LLAMA, MISTRAL], ids=["llama", "mistral, window 6"])
def test_each_backend_that_can_train_without_a_gpu_takes_a_step(config: dict[str, Any], backend: str) -> None:
    """Varlen's kernels need a GPU, but on the meta device torch checks every argument and shape in both passes."""
    language = tiny_model(replace(TINY, language={"hf_causal": {"config": config}})).language.to(torch.bfloat16)
    segments = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 0]])
    places = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0]])
    embedded = torch.randn(1, 8, LLAMA["hidden_size"], dtype=torch.bfloat16)
    packing = plan_attention(segments, backend=backend)
    if packing.bounds is not None:
        assert packing.bounds.tolist() == [0, 3, 7, 8] and packing.longest == 4
        language, places, embedded = language.to("meta"), places.to("meta"), embedded.to("meta")
        packing.bounds = packing.bounds.to("meta")
    logits = language(inputs_embeds=embedded, position_ids=places, packing=packing, use_cache=False).logits
    logits.square().sum().backward()
    torch.optim.SGD(language.parameters(), 0.1).step()
    attention = language.model.layers[0].self_attn
    assert logits.shape[:2] == (1, 8)
    assert (attention.q_proj.weight.grad.shape, attention.k_proj.weight.grad.shape) == ((32, 32), (16, 32))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fusion", ["tokens", "cross_attention"])
def test_kernels_on_a_gpu_agree_with_attention_by_segment(fusion: str) -> None:
    model = tiny_model(replace(TINY, fusion=fusion, language={"hf_causal": {"config": {**LLAMA, "hidden_size": 128}}}))
    model.cuda().to(torch.bfloat16)
    batch = pack(model, [sample(model, 300, 1, 1), sample(model, 90, 2, 2)], padding=50)
    for name in ("input_ids", "position_ids", "segment_ids", "pixels"):
        setattr(batch, name, getattr(batch, name).cuda())
    real, found, gradients = batch.segment_ids[0] > 0, {}, {}
    for backend in ("segments", "flex", "varlen"):
        model.attention = backend
        model.zero_grad()
        found[backend] = model(batch)[0][real].float()
        found[backend].square().sum().backward()
        gradients[backend] = model.language.model.layers[0].self_attn.q_proj.weight.grad.float().clone()
    for backend in ("flex", "varlen"):
        assert (found[backend] - found["segments"]).abs().max() < 0.05 * found["segments"].abs().max()
        assert (gradients[backend] - gradients["segments"]).norm() < 0.05 * gradients["segments"].norm()
