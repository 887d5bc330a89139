"""Measure the CPU seconds of a decoder's forward and backward pass with fusions that treat image tokens in their own way.

python -m bench.image_tokens [--rounds 5]

The decoder has width 512, an inner width of 1,408, 4 layers and 8 heads, and one row of 1,024 tokens: two packed samples with
384 image tokens each, in fp32 on one thread. All weights learn. The fusions run in turn in one process, and the median round of
each is printed, with its ratio to the fusion `tokens`. "Both for every token" is the earlier way of `visual_experts`: the
language model's layer and its expert process all tokens, and a mask selects the output of one of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vlmdata_train.languages.hf_causal import HfCausal
from vlmdata_train.model.attention import plan_attention
from vlmdata_train.model.parts import make_part

IMAGE, TEXT_TOKENS, IMAGE_TOKENS = 7, 128, 384  # the id of the image token, and the tokens of a sample
WIDTH = 512
CONFIG = {
    "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": 1408, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 8, "max_position_embeddings": 2048, "vocab_size": 320,
}  # fmt: skip
CASES: dict[str, Any] = {
    "tokens": "tokens",
    "visual_experts, both for every token": "visual_experts",
    "visual_experts": "visual_experts",
    "visual_experts, feed_forward": {"visual_experts": {"layers": "feed_forward"}},
    "mixture_of_depths, half": {"mixture_of_depths": {"capacity": 0.5}},
    "mixture_of_depths, a quarter": {"mixture_of_depths": {"capacity": 0.25}},
}


def process_every_token(experts: Any) -> None:
    """Change `visual_experts` so that both layers process every token, and a mask selects one of the outputs."""
    for originals in experts.originals:
        for _, owner, leaf in originals:
            layer = owner.get_submodule(leaf)
            route = next(iter(layer._forward_hooks.values())).__self__
            layer._forward_pre_hooks.clear()
            layer._forward_hooks.clear()

            def choose(module: nn.Module, args: tuple[Tensor], output: Tensor, route: Any = route) -> Tensor | None:
                rows = route.current.rows
                if rows is None:
                    return None
                marks = torch.zeros(len(rows.back), dtype=torch.bool).index_fill(0, rows.images, True)
                return torch.where(marks.view(output.shape[:-1])[..., None], route.experts[route.name](args[0]), output)

            layer.register_forward_hook(choose)


def decoder(name: str) -> Callable[[], None]:
    """Return a function that runs the forward and the backward pass of a case once."""
    torch.manual_seed(0)
    part = HfCausal(config=CONFIG)
    language: Any = part.build(part.load_tokenizer())
    fusion = make_part("fusion", CASES[name]).build(language, WIDTH, IMAGE)
    if name.endswith("both for every token"):
        process_every_token(fusion)
    ids = torch.tensor([[1] + [IMAGE] * IMAGE_TOKENS + [2] * (TEXT_TOKENS - 1)] * 2).view(1, -1)
    segments = torch.tensor([[1, 2]], dtype=torch.int32).repeat_interleave(TEXT_TOKENS + IMAGE_TOKENS, 1)
    places = torch.arange(TEXT_TOKENS + IMAGE_TOKENS).repeat(2)[None]
    features = torch.randn(2 * IMAGE_TOKENS, WIDTH)
    embeddings = language.get_input_embeddings()

    def step() -> None:
        packing = plan_attention(segments, backend="segments")
        embedded = fusion(ids, embeddings(ids), features, [IMAGE_TOKENS] * 2, segments, packing)
        out = language.base_model(inputs_embeds=embedded, position_ids=places, packing=packing, use_cache=False)
        out.last_hidden_state.square().mean().backward()

    return step


def main() -> None:
    """Measure all cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    steps = {name: decoder(name) for name in CASES}
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for number in range(rounds + 1):  # the first round warms up
        for name, step in steps.items():
            began = time.process_time()
            step()
            if number:
                seconds[name].append(time.process_time() - began)
    base = statistics.median(seconds["tokens"])
    for name, own in seconds.items():
        print(f"{name:40} {statistics.median(own):7.3f} s   {statistics.median(own) / base:5.2f} of tokens")


if __name__ == "__main__":
    main()
