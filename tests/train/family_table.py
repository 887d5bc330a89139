"""The families whose prompts are compared with transformers; see `families.py`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerBase

from tests.train import shapes
from tests.train.families import (
    CROP,
    PINPOINTS,
    SIDE,
    SQUARE,
    Family,
    blip,
    chat,
    fuyu,
    idefics,
    kosmos,
    of_class,
    paligemma,
    tokenizer_of,
    with_bos,
)
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.preprocessing import OneTile

FAKE = "<fake_token_around_image>"
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA = functools.partial(tokenizer_of, "always", ["<unk>", "<s>", "</s>"], bos="<s>", adds_bos=True)


def qwen() -> PreTrainedTokenizerBase:
    """Return a tokenizer of Qwen2-VL's kind."""
    media = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    return tokenizer_of("bytes", [*CHATML, *media], eos="<|im_end|>")


def qwen_family(kind: str, vision: dict[str, Any], **parts: Any) -> Family:
    """Return a family of Qwen-VL. `kind` is the beginning of its class names."""

    def processor(tokenizer: Any, pil: bool) -> Any:
        images = of_class("Qwen2VL", pil, patch_size=4, merge_size=2, size={"shortest_edge": 128, "longest_edge": 1024})
        videos = getattr(transformers, f"{kind}VideoProcessor".replace("2_5_VL", "2VL"))()
        return getattr(transformers, f"{kind}Processor")(images, tokenizer, videos)

    encoder = {kind.lower().replace("vl", "_vl").replace("5__", "5_"): {"config": {**VISION, **vision}}}
    smart = {"smart_size": {"min_pixels": 128, "max_pixels": 1024}}
    return Family(qwen, processor, shapes.QWEN2, {"encoder": encoder, "preprocessing": smart, **parts})


VISION = {"depth": 4, "num_heads": 4, "patch_size": 4, "spatial_merge_size": 2}
DEEP = {"hidden_size": 32, "intermediate_size": 40, "num_position_embeddings": 36, "out_hidden_size": 32}


def idefics2(split: bool) -> Family:
    """Return the family of Idefics2, with whole images or with their quarters."""

    def processor(tokenizer: Any, pil: bool) -> Any:
        limits = {"shortest_edge": 27, "longest_edge": 70}
        return transformers.Idefics2Processor(
            of_class("Idefics2", pil, size=limits, do_image_splitting=split), tokenizer, image_seq_len=5
        )

    tower = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 70,
             "patch_size": 7}  # fmt: skip
    resampler = {"latents": 5, "layers": 1, "heads": 4, "key_heads": 2, "head_width": 6, "mlp_width": 48}
    return Family(
        functools.partial(
            tokenizer_of, "first", ["<unk>", FAKE, "<end_of_utterance>"], bos="<s>", adds_bos=True, image_token="<image>",
            image_boundary_token=FAKE,
        ),
        processor, chat(("User:", "<end_of_utterance>\n"), ("Assistant: ", "<end_of_utterance>\n"), generation="Assistant:"),
        {
            "encoder": {"siglip_navit": {"config": tower}}, "abstractor": {"gated_resampler": resampler},
            "preprocessing": {"edges": {"longest": 70, "shortest": 27, "split": split}},
            "writing": {"between": {"start": FAKE, "end": FAKE, "around": "tile", "blank": True}},
        }, with_bos,
    )  # fmt: skip


def idefics3(kind: str) -> Family:
    """Return the family of Idefics3 or SmolVLM. `kind` is the beginning of its class names."""
    special = [
        *CHATML[:2],
        FAKE,
        "<global-img>",
        *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    ]

    def processor(tokenizer: Any, pil: bool) -> Any:
        options = {"size": {"longest_edge": 4 * SIDE}, "max_image_size": {"longest_edge": SIDE}, "do_image_splitting": True}
        videos = [transformers.SmolVLMVideoProcessor()] if kind == "SmolVLM" else []
        return getattr(transformers, f"{kind}Processor")(of_class(kind, pil, **options), tokenizer, *videos, image_seq_len=4)

    return Family(
        functools.partial(tokenizer_of, "bytes", [*special, "<image>"], bos="<|im_start|>", eos="<end_of_utterance>"),
        processor, shapes.SMOL,
        {
            "preprocessing": {"square_tiles": {"longest": 4 * SIDE}}, "abstractor": {"pixel_shuffle": {"factor": 2}},
            "writing": "tile_grid",
        },
    )  # fmt: skip


def blip_family(kind: str, tokenizer: Callable[[], Any], **parts: Any) -> Family:
    """Return the family of BLIP-2 or InstructBLIP. `kind` is the beginning of its class names."""

    def processor(tokenizer: Any, pil: bool) -> Any:
        more = [tokenizer_of("bytes", [])] if kind == "InstructBlip" else []
        return getattr(transformers, f"{kind}Processor")(
            of_class("Blip", pil, size=SQUARE), tokenizer, *more, num_query_tokens=5
        )

    q_former = {"queries": 5, "width": 24, "layers": 2, "heads": 2, "mlp_width": 30}
    return Family(
        tokenizer, processor, chat(("", ""), (" Answer: ", "</s>"), generation=" Answer:"),
        {"abstractor": {"q_former": q_former}, "writing": {"plain": {"bos": "after_images"}}, **parts}, blip, (0, 1), True, 1,
    )  # fmt: skip


def pixtral(kind: str, square: int, **parts: Any) -> Family:
    """Return the family of Pixtral or Mistral 3, which merges squares of patches."""
    tower = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64,
             "patch_size": 8, "head_dim": 8}  # fmt: skip

    def processor(tokenizer: Any, pil: bool) -> Any:
        images = of_class("Pixtral", pil, size={"longest_edge": 64})
        return transformers.PixtralProcessor(images, tokenizer, patch_size=8, spatial_merge_size=square)

    special = ["<unk>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    return Family(
        functools.partial(tokenizer_of, "bytes", special, bos="<s>", adds_bos=True), processor,
        chat(("[INST]", "[/INST]"), ("", "</s>"), "[IMG]", lead="<s>"),
        {
            "encoder": {kind: {"config": tower}}, "preprocessing": {"longest_edge": {"longest": 64, "square": square}},
            "writing": {"rows": {"row_end": "[IMG_BREAK]", "last_row_end": "[IMG_END]"}}, **parts,
        },
    )  # fmt: skip


LLAMA3 = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>", "<|image|>"]


def mllama(tokenizer: Any, pil: bool) -> Any:
    """Return the processor of Llama 3.2 Vision."""
    return transformers.MllamaProcessor(of_class("Mllama", pil, size=SQUARE), tokenizer)


def deepseek(kind: str, **options: Any) -> Family:
    """Return the family of DeepSeek-VL. `kind` is the beginning of its class names."""

    def processor(tokenizer: Any, pil: bool) -> Any:
        images = of_class(kind, pil, size=SQUARE, **options)
        return getattr(transformers, f"{kind}Processor")(images, tokenizer, num_image_tokens=16)

    return Family(
        functools.partial(
            tokenizer_of, "bytes", [], bos="<begin>", eos="<end>", adds_bos=True, image_token="<image_placeholder>"
        ),
        processor,
        chat(
            ("User: ", "\n\n"), ("Assistant: ", "<end>"), "<image_placeholder>", lead="You help.\n\n",
            generation="Assistant:",
        ),
        {"preprocessing": "pad"}, with_bos,
    )  # fmt: skip


MOLMO = {"size": {"height": 48, "width": 48}, "patch_size": 4, "overlap_margins": [2, 2], "max_crops": 4}
MOLMO_TOKENS = ["<im_patch>", "<im_col>", "<im_start>", "<low_res_im_start>", "<im_end>", "<frame_start>", "<frame_end>",
                "<im_low>", "<|image|>", "<|video|>"]  # fmt: skip


@dataclass(frozen=True)
class MolmoGrids(OneTile):
    """The grids of Molmo 2's processor. It prepares no pixels."""

    def regions(self, width: int, height: int, facts: EncoderFacts, grid_of: Any) -> list[Region]:
        """Return the whole image and the grid of all crops."""
        images = transformers.Molmo2ImageProcessor(**MOLMO)
        rows, columns, all_rows, all_columns = images.get_image_grid_and_crops(height, width)[0]
        return [Region(Grid(rows, columns), is_overview=True), Region(Grid(all_rows, all_columns))]

    def prepare(self, image: Any, facts: EncoderFacts) -> Any:
        """Return one empty tile."""
        return torch.zeros(1, 3, facts.image_size, facts.image_size, dtype=torch.uint8)


def molmo(tokenizer: Any, pil: bool) -> Any:
    """Return the processor of Molmo 2, which has no Pillow backend."""
    videos = transformers.Molmo2VideoProcessor()
    images = transformers.Molmo2ImageProcessor(**MOLMO)
    return transformers.Molmo2Processor(images, videos, tokenizer, use_single_crop_col_tokens=False)


def gemma(tokenizer: Any, pil: bool) -> Any:
    """Return the processor of Gemma 3."""
    return transformers.Gemma3Processor(of_class("Gemma3", pil, size=SQUARE), tokenizer, image_seq_length=16)


GEMMA = functools.partial(
    tokenizer_of,
    "never",
    ["<start_of_turn>", "<end_of_turn>"],
    bos="<bos>",
    eos="<eos>",
    adds_bos=True,
    plain=["\n", "\n\n", "\n\n\n"],
)
FAMILIES = {
    "LLaVA 1.5": Family(
        functools.partial(LLAMA, image_token="<image>"),
        lambda tokenizer, pil: transformers.LlavaProcessor(
            of_class("CLIP", pil, **CROP), tokenizer, patch_size=8, vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        ),
        shapes.LLAVA, {"preprocessing": "centre_crop"}, with_bos,
    ),
    "LLaVA-NeXT": Family(
        functools.partial(LLAMA, image_token="<image>"),
        lambda tokenizer, pil: transformers.LlavaNextProcessor(
            of_class("LlavaNext", pil, **CROP, image_grid_pinpoints=PINPOINTS), tokenizer, patch_size=8,
            vision_feature_select_strategy="default", num_additional_image_tokens=1,
        ),
        chat(("[INST] ", " [/INST]"), (" ", "</s>"), images_first="\n", generation=""), {"preprocessing": "anyres"}, with_bos,
    ),
    "LLaVA-OneVision": Family(
        functools.partial(tokenizer_of, "bytes", [*CHATML, "<image>", "<video>"], eos="<|im_end|>"),
        lambda tokenizer, pil: transformers.LlavaOnevisionProcessor(
            of_class("LlavaOnevision", pil, size=SQUARE, image_grid_pinpoints=PINPOINTS), tokenizer,
            transformers.LlavaOnevisionVideoProcessor(), num_image_tokens=16, vision_feature_select_strategy="full",
            vision_aspect_ratio="anyres_max_2",
        ),
        chat(("<|im_start|>user ", "<|im_end|>"), ("<|im_start|>assistant\n", "<|im_end|>"), images_first="\n"),
        {"preprocessing": {"anyres": {"max_tiles": 2, "several": "pad"}}},
    ),
    "ViP-LLaVA": Family(
        functools.partial(LLAMA, image_token="<image>"),
        lambda tokenizer, pil: transformers.LlavaProcessor(
            of_class("CLIP", pil, **CROP), tokenizer, patch_size=8, vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        ),
        chat(("###Human: ", ""), ("###Assistant: ", ""), "<image>\n", lead="A chat.", generation="###Assistant:"),
        {"preprocessing": "centre_crop"}, with_bos,
    ),
    "Qwen2-VL": qwen_family("Qwen2VL", {"embed_dim": 32, "hidden_size": 32}, abstractor="patch_merger"),
    "Qwen2.5-VL": qwen_family(
        "Qwen2_5_VL",
        {"hidden_size": 32, "intermediate_size": 40, "out_hidden_size": 32, "window_size": 16, "fullatt_block_indexes": [1]},
        abstractor={"patch_merger": {"norm": "rms"}},
    ),
    "Qwen3-VL": qwen_family(
        "Qwen3VL", {**DEEP, "deepstack_visual_indexes": [0]}, abstractor="deep_merger", fusion="deep_tokens"
    ),
    "InternVL": Family(
        functools.partial(
            tokenizer_of, "bytes", CHATML, eos="<|im_end|>", start_image_token="<img>", end_image_token="</img>",
            context_image_token="<IMG_CONTEXT>", video_token="<video>",
        ),
        lambda tokenizer, pil: transformers.InternVLProcessor(
            of_class("GotOcr2", pil, size=SQUARE, crop_to_patches=True, max_patches=6), tokenizer,
            transformers.InternVLVideoProcessor(), image_seq_length=4,
        ),
        chat(("<|im_start|>user\n", "<|im_end|>\n"), ("<|im_start|>assistant\n", "<|im_end|>\n"), "<IMG_CONTEXT>\n"),
        {
            "preprocessing": {"dynamic_tiles": {"max_tiles": 6}}, "abstractor": {"pixel_shuffle": {"factor": 2}},
            "writing": {"between": {"start": "<img>", "end": "</img>"}},
        },
    ),
    "Idefics 1": Family(
        functools.partial(
            tokenizer_of, "first", ["<unk>", FAKE, "<image>", "<end_of_utterance>"], bos="<s>", adds_bos=True
        ),
        lambda tokenizer, pil: transformers.IdeficsProcessor(of_class("Idefics", pil, image_size=SIDE), tokenizer),
        chat(
            ("User:", "<end_of_utterance>\n"), ("Assistant: ", "<end_of_utterance>\n"), lead="<s>", generation="Assistant:"
        ),
        {
            "fusion": "cross_attention", "abstractor": {"perceiver": {"latents": 5, "layers": 1, "heads": 2, "head_width": 4}},
            "writing": {"between": {"start": FAKE, "end": FAKE}},
        },
        idefics, outer=False,
    ),
    "Idefics2": idefics2(split=False),
    "Idefics2, split": idefics2(split=True),
    "Idefics3": idefics3("Idefics3"),
    "SmolVLM": idefics3("SmolVLM"),
    "PaliGemma": Family(
        GEMMA,
        lambda tokenizer, pil: transformers.PaliGemmaProcessor(
            of_class("Siglip", pil, size=SQUARE, image_seq_length=16), tokenizer
        ),
        chat(("", "\n"), ("", "<eos>")), {"writing": {"plain": {"bos": "after_images"}}}, paligemma, (1, 2, 3), True, 1,
    ),
    "Pixtral": pixtral("pixtral", 1),
    "Mistral 3": pixtral("mistral3", 2, abstractor="normed_merger"),
    "BLIP-2": blip_family("Blip2", functools.partial(tokenizer_of, "bytes", ["<image>"], bos="</s>", adds_bos=True)),
    "InstructBLIP": blip_family(
        "InstructBlip", functools.partial(tokenizer_of, "first", ["<unk>", "<image>"], bos="<s>", adds_bos=True)
    ),
    "Kosmos-2": Family(
        functools.partial(
            tokenizer_of, "first", ["<unk>", "<feature>", "<image>", "</image>", "<grounding>"], bos="<s>", adds_bos=True,
            strips=["<image>", "</image>", "<grounding>"],
        ),
        lambda tokenizer, pil: transformers.Kosmos2Processor(of_class("CLIP", pil, **CROP), tokenizer),
        chat(("", ""), (" Answer: ", "</s>"), "<feature>", generation=" Answer:"),
        {
            "preprocessing": "centre_crop", "abstractor": {"kosmos_resampler": {"queries": 64, "head_width": 4}},
            "writing": {"between": {"start": "<image>", "end": "</image> ", "image_token": "<feature>"}},
        },
        kosmos, (1,), True, 1, outer=False,
    ),
    "Fuyu": Family(
        functools.partial(tokenizer_of, "fuyu", ["<s>"], bos="|ENDOFTEXT|", eos="|ENDOFTEXT|", adds_bos=True),
        lambda tokenizer, pil: transformers.FuyuProcessor(
            of_class("Fuyu", pil, size={"height": 80, "width": 120}, patch_size={"height": 10, "width": 10}), tokenizer
        ),
        chat(("", "<0x04>"), ("", "|ENDOFTEXT|"), "|SPEAKER|", generation=""),
        {
            "encoder": {"raw_patches": {"patch_size": 10}}, "preprocessing": {"native": {"max_height": 80, "max_width": 120}},
            "abstractor": "linear",
            "writing": {
                "rows": {"row_end": "|NEWLINE|", "image_token": "|SPEAKER|", "bos": "after_images", "bos_token": "<s>"}
            },
        },
        fuyu, (1,), True, 1, ends=False, pillow=False,
    ),
    "Llama 3.2 Vision": Family(
        functools.partial(tokenizer_of, "bytes", LLAMA3, bos="<|begin_of_text|>", eos="<|eot_id|>", adds_bos=True),
        mllama, shapes.LLAMA4.replace(" | trim", ""), {"fusion": "cross_attention", "preprocessing": "tiles_by_aspect"},
    ),
    "Llama 3.2 Vision, without a chat": Family(
        functools.partial(tokenizer_of, "bytes", LLAMA3, bos="<|begin_of_text|>", eos="<|eot_id|>", adds_bos=True),
        mllama, chat(("", ""), ("", "<|eot_id|>"), "<|image|>"),
        {"fusion": "cross_attention", "preprocessing": "tiles_by_aspect", "writing": {"plain": {"bos": "after_images"}}},
    ),
    "DeepSeek-VL": deepseek("DeepseekVL"),
    "DeepSeek-VL-Hybrid": deepseek("DeepseekVLHybrid", high_res_size={"height": 64, "width": 64}),
    "Molmo 2": Family(
        functools.partial(tokenizer_of, "bytes", [*CHATML, *MOLMO_TOKENS], bos="<|endoftext|>", eos="<|im_end|>"),
        molmo,
        chat(
            ("<|im_start|>user\n", "<|im_end|>\n"), ("<|im_start|>assistant\n", "<|im_end|>\n"), "<|image|>",
            lead="<|endoftext|>",
        ),
        {
            "preprocessing": {"tests.train.family_table.MolmoGrids": {}},
            "writing": {
                "rows": {
                    "row_end": "<im_col>", "start": "<im_start>", "overview_start": "<low_res_im_start>", "end": "<im_end>",
                    "image_token": "<im_patch>", "placeholder": "<|image|>", "ends_overview_rows": False,
                }
            },
        },
        least=30, pillow=False,
    ),
    "Gemma 3": Family(
        functools.partial(GEMMA, image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"),
        gemma,
        chat(
            ("<start_of_turn>user\n", "<end_of_turn>\n"), ("<start_of_turn>model\n", "<end_of_turn>\n"), "<start_of_image>",
            lead="<bos>",
        ),
        {
            "writing": {
                "between": {
                    "start": "\n\n<start_of_image>", "end": "<end_of_image>\n\n", "image_token": "<image_soft_token>",
                    "placeholder": "<start_of_image>",
                }
            }
        },
    ),
}  # fmt: skip
