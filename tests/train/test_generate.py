"""Generated tokens are those of transformers, and the cache gives the logits of the full forward pass for every fusion."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from bench.inputs.tars import jpeg
from tests.train.parity import IMAGE_ID, of_own_shapes
from tests.train.shards import drawing
from tests.train.test_cross_attention import FLAMINGO
from tests.train.test_llava_io import CLIP_COLOURS, LLAVA
from tests.train.test_mixture_of_depths import depths
from tests.train.test_parity_mllama import RECIPE as LLAMA_VISION
from tests.train.test_parity_prefix import PREFIX
from tests.train.test_parity_qwen import RECIPE as QWEN_2
from tests.train.test_parity_qwen import RECIPE_3 as QWEN_3
from tests.train.test_visual_experts import COGVLM
from tests.train.tiny import LLAMA, TINY, of_images, pack, sample, tiny_model
from vlmdata_train.convert.save_published import save_published
from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.document import Video
from vlmdata_train.data.marks import IMAGE_MARK, VIDEO_MARK
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.model.batch import IGNORE, Batch
from vlmdata_train.model.continuation import Continuation
from vlmdata_train.model.decoding import Decoding
from vlmdata_train.model.generate import generate, one_by_one, processors
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.pixels import normalise

pytestmark = pytest.mark.whole

STOPS = [12, 77, 130, 201]  # tokens that end some of the answers below early
TOKENS = 12


def in_rows(samples: Sequence[Batch]) -> Batch:
    """Return batches of one sample as the padded rows of one batch."""
    longest = max(one.input_ids.shape[1] for one in samples)

    def padded(name: str, filler: int) -> Tensor:
        values = [getattr(one, name) for one in samples]
        return torch.cat([nn.functional.pad(each, (0, longest - each.shape[1]), value=filler) for each in values])

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(one, name) for one in samples])

    return Batch(
        input_ids=padded("input_ids", 0), labels=padded("labels", IGNORE), position_ids=padded("position_ids", 0),
        segment_ids=padded("segment_ids", 0), pixels=[tile for one in samples for tile in one.pixels],
        of_sample=torch.tensor([number for number, one in enumerate(samples) for _ in one.tile_counts], dtype=torch.int64),
        questions=torch.zeros(len(samples), 0, dtype=torch.int64), sources=[], keys=[],
        **{name: joined(name) for name in (
            "image_token_counts", "grids", "intervals", "tile_counts", "image_sizes", "is_video", "times",
        )},
    )  # fmt: skip


def of_text(ids: list[int]) -> Batch:
    """Return a batch of one sample without images."""
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(
        input_ids=torch.tensor([ids]), labels=torch.tensor([ids]), position_ids=torch.arange(len(ids))[None],
        segment_ids=torch.ones(1, len(ids), dtype=torch.int32), pixels=[], image_token_counts=none, grids=none.view(0, 3),
        tile_counts=none, image_sizes=none.view(0, 2), sources=[], keys=[], **of_images([], 0),
    )  # fmt: skip


class Recomputed:
    """A continuation without a cache: each logit is that of a full forward pass of one text."""

    def __init__(self, model: VisionLanguageModel, samples: Sequence[Batch], copies: int = 1) -> None:
        self.model, self.samples = model, [one for one in samples for _ in range(copies)]
        longest = max(one.input_ids.shape[1] for one in samples)
        prompts = [one.input_ids[0].tolist() for one in self.samples]
        self.ids = torch.tensor([ids + ids[:1] * (longest - len(ids)) for ids in prompts])
        self.new = torch.zeros(len(self.samples), 0, dtype=torch.int64)
        self.compute()

    def append(self, tokens: Tensor, texts: Tensor | None = None) -> None:
        """Append a token to each text, after the texts are reordered."""
        if texts is not None:
            self.ids, self.new = self.ids[texts], self.new[texts]
        self.ids, self.new = (torch.cat([ids, tokens[:, None]], 1) for ids in (self.ids, self.new))
        self.compute()

    def compute(self) -> None:
        """Compute the logits after each text."""
        rows = []
        for one, new in zip(self.samples, self.new, strict=True):
            ids = torch.cat([one.input_ids, new[None]], 1)
            labels = torch.cat([torch.full_like(one.input_ids, IGNORE), new[None]], 1)  # the prompt is the prefix
            count = torch.arange(ids.shape[1])[None]
            segments = torch.ones_like(ids, dtype=torch.int32)
            batch = replace(one, input_ids=ids, labels=labels, position_ids=count, segment_ids=segments)
            rows.append(self.model.logits(batch)[0, -1])
        self.logits = torch.stack(rows)


def with_videos(model: VisionLanguageModel) -> list[Batch]:
    """Make samples with a video, with an image and two videos, and with text alone."""
    frames = [jpeg(drawing(colour, "circle", 32)) for colour in ("red", "green", "blue")]
    long, short = Video(tuple(frames), (0.0, 1.0, 2.0)), Video(tuple(frames[:2]), (0.0, 0.5))
    asked = [("What happens?", [long]), ("Which is longer?", [frames[0], short, long]), ("Why?", [])]
    prompter, samples = prompter_of(model), []
    for text, media in asked:
        marks = "".join(VIDEO_MARK if isinstance(item, Video) else IMAGE_MARK for item in media)
        prompt = prompter.question([{"role": "user", "content": f"{marks}\n{text}"}], media)
        samples.append(build_batch([Ready(prompt, "", "")], model.plan, 0, packed_tokens=None, broken=Counter()))
    return samples


def with_images(model: VisionLanguageModel) -> list[Batch]:
    """Make samples with no, one and two images of different sizes."""
    return [of_text([5, 6, 7]), of_own_shapes(model, [(30, 70)], 1), of_own_shapes(model, [(20, 25), (40, 22)], 2)]


MISTRAL = {**LLAMA, "model_type": "mistral", "sliding_window": 6}
KOSMOS_2 = {"embed_dim": 64, "layers": 3, "ffn_dim": 80, "attention_heads": 4, "max_position_embeddings": 257}
DESIGNS = {
    "tokens": TINY,
    "tokens, sliding window": replace(TINY, language={"hf_causal": {"config": MISTRAL}}),
    "tokens, Kosmos-2's decoder": replace(TINY, language={"kosmos2": {"config": KOSMOS_2}}),
    "tokens, prefix": PREFIX,
    "tokens, prefix of images": replace(TINY, fusion={"tokens": {"prefix": "images"}}),
    "added_tokens, two ways": replace(TINY, fusion={"added_tokens": {"two_way": True}}),
    "tokens, mrope": QWEN_2,
    "deep_tokens, interleaved_mrope": QWEN_3,
    "cross_attention": FLAMINGO,
    "cross_attention of Llama 3.2": LLAMA_VISION,
    "visual_experts, shared": COGVLM,
    "mixture_of_depths": depths(capacity=0.4),
    "tokens, video": replace(TINY, video="frames"),
}


@pytest.mark.parametrize("design", DESIGNS)
def test_cached_logits_equal_the_full_forward_whatever_beams_are_kept(design: str) -> None:
    model = tiny_model(DESIGNS[design])
    samples = with_videos(model) if DESIGNS[design].video else with_images(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        cached, full = Continuation(model, in_rows(samples), copies=3), Recomputed(model, samples, copies=3)
        blank = Continuation(model, replace(in_rows(samples), pixels=[0 * t for s in samples for t in s.pixels]), copies=3)
        for _ in range(4):
            assert torch.equal(cached.ids, full.ids)
            assert (cached.logits - full.logits).abs().max() < 1e-5 * full.logits.abs().max()
            assert (blank.logits - full.logits).abs().max() > 0.01
            tokens = torch.randint(3, 200, (9,), generator=generator)
            texts = (torch.randint(0, 3, (3, 3), generator=generator) + torch.tensor([[0], [3], [6]])).flatten()
            for text in (cached, full, blank):
                text.append(tokens, texts)


def test_keys_and_values_of_images_are_computed_once_while_generating() -> None:
    model = tiny_model(LLAMA_VISION)
    calls: list[int] = []
    model.fusion.layers[0].key.register_forward_hook(lambda *_: calls.append(1))
    [new] = generate(model, of_own_shapes(model, [(30, 70)]), max_new_tokens=8, stop_ids=[])
    assert len(new) == 8 and len(calls) == 2  # for the prompt, and for all generated tokens


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionLanguageModel, Any]:
    """Make a model with random weights, and its export as transformers loads it."""
    model, folder = tiny_model(LLAVA), tmp_path_factory.mktemp("llava")
    save_published(model, folder)
    return model, LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def three_prompts(model: VisionLanguageModel) -> Batch:
    """Make prompts of different lengths with no, one and two images."""
    return in_rows([pack(model, [sample(model, length, images, images)]) for length, images in ((4, 0), (9, 1), (6, 2))])


def theirs(served: Any, batch: Batch, decoding: Decoding, stops: list[int], **options: Any) -> Any:
    """Return what transformers generates for a batch. It pads prompts on the left."""
    lengths = (batch.segment_ids > 0).sum(1)
    ids = torch.stack([row.roll(-int(n)) for row, n in zip(batch.input_ids, lengths, strict=True)])
    mask = torch.arange(ids.shape[1]) >= ids.shape[1] - lengths[:, None]
    more: dict[str, Any] = {"length_penalty": decoding.length_penalty} if decoding.beams > 1 else {}
    if decoding.temperature:
        more |= {"temperature": decoding.temperature, "top_k": decoding.top_k or 0, "top_p": decoding.top_p}
    if decoding.seed is not None:
        torch.manual_seed(decoding.seed)
    return served.generate(
        input_ids=ids, attention_mask=mask.long(), max_new_tokens=TOKENS, eos_token_id=stops, pad_token_id=0,
        pixel_values=normalise(torch.stack(list(batch.pixels)), CLIP_COLOURS["mean"], CLIP_COLOURS["std"], torch.float32),
        do_sample=decoding.temperature > 0, num_beams=decoding.beams, repetition_penalty=decoding.repetition_penalty,
        **more, **options,
    )  # fmt: skip


def until_stop(ids: list[int], stops: list[int]) -> list[int]:
    """Return the ids before the first stop token."""
    return ids[: next((place for place, number in enumerate(ids) if number in stops), len(ids))]


DRAWN = {
    "sampling": Decoding(temperature=0.7, seed=3),
    "top-k": Decoding(temperature=1.0, top_k=5, seed=4),
    "top-p": Decoding(temperature=1.5, top_p=0.6, seed=5),
    "all": Decoding(temperature=1.3, top_k=40, top_p=0.8, repetition_penalty=1.3, seed=6),
}
DRAWN_BEAMS = {
    "drawn beams": Decoding(beams=3, temperature=0.8, seed=7),
    "drawn beams, top-k": Decoding(beams=2, top_k=2, seed=8),
    "drawn beams, top-p": Decoding(beams=4, top_p=0.9, length_penalty=0.5, seed=9),
    "drawn beams, all": Decoding(beams=3, temperature=1.5, top_k=9, top_p=0.7, repetition_penalty=1.2, seed=10),
}
WAYS = {
    "greedy": Decoding(),
    "repetition penalty": Decoding(repetition_penalty=1.3),
    **{f"{beams} beams": Decoding(beams=beams) for beams in (2, 4)},
    **{f"length penalty {number}": Decoding(beams=4, length_penalty=number) for number in (-1.0, 0.0, 0.5, 3.0)},
    "beams and repetition penalty": Decoding(beams=3, repetition_penalty=1.3),
    **DRAWN,
    **DRAWN_BEAMS,
}


@pytest.mark.parametrize("stops", [STOPS, list(range(0, 256, 7)), [IMAGE_ID]], ids=["some", "many", "none"])
@pytest.mark.parametrize("way", WAYS)
def test_generated_ids_equal_those_of_transformers(both: tuple[VisionLanguageModel, Any], way: str, stops: list[int]) -> None:
    model, served = both
    batch = three_prompts(model)
    ours = generate(model, batch, max_new_tokens=TOKENS, stop_ids=stops, decoding=WAYS[way])
    rows = theirs(served, batch, WAYS[way], stops)[:, batch.input_ids.shape[1] :].tolist()
    assert ours == [until_stop(row, stops) for row in rows]
    assert len({number for row in ours for number in row}) > 6 or len(stops) > 9, "a constant text proves little"


@pytest.mark.parametrize("way", DRAWN)
def test_the_probabilities_of_drawn_tokens_equal_those_of_transformers(both: tuple[VisionLanguageModel, Any], way: str) -> None:
    model, served = both
    batch, process, seen = three_prompts(model), processors(both[0], DRAWN[way], 1), []
    out = theirs(served, batch, DRAWN[way], [IMAGE_ID], output_scores=True, return_dict_in_generate=True)
    drawn = iter(out.sequences[:, batch.input_ids.shape[1] :].T)

    def follow(ids: Tensor, logits: Tensor) -> Tensor:
        seen.append(process(ids, logits))
        return next(drawn)

    with torch.no_grad():
        one_by_one(Continuation(model, batch), follow, torch.tensor([IMAGE_ID]), TOKENS, bool)
    ours, expected = torch.stack(seen), torch.stack(out.scores)
    assert torch.equal(ours.isinf(), expected.isinf())
    assert (ours.softmax(-1) - expected.softmax(-1)).abs().max() < 1e-5


def test_a_beam_finds_a_more_likely_text_than_the_most_likely_tokens(both: tuple[VisionLanguageModel, Any]) -> None:
    model = both[0]
    prompts = [pack(model, [sample(model, 6, 1, seed)]) for seed in range(8)]
    process = processors(model, Decoding(), 0)

    def log_probability(prompt: Batch, new: list[int]) -> float:
        text, total = Continuation(model, prompt), 0.0
        for number in new:
            scores = process(text.ids, text.logits.log_softmax(-1))
            total += float(scores[0, number])
            text.append(torch.tensor([number]))
        return total

    with torch.no_grad():
        greedy, beams = (
            [log_probability(one, *generate(model, one, max_new_tokens=5, stop_ids=[], decoding=way)) for one in prompts]
            for way in (Decoding(), Decoding(beams=8))
        )
    assert sum(beams) > sum(greedy) + 1


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(beams=3)], ids=["greedy", "beams"])
def test_generation_goes_on_until_all_ranks_have_ended(both: tuple[VisionLanguageModel, Any], decoding: Decoding) -> None:
    model, stops, heard = both[0], list(range(0, 256, 2)), []
    batch = three_prompts(model)

    def never(is_done: bool) -> bool:
        heard.append(is_done)
        return False

    waiting = generate(model, batch, max_new_tokens=TOKENS, stop_ids=stops, decoding=decoding, is_over=never)
    assert waiting == generate(model, batch, max_new_tokens=TOKENS, stop_ids=stops, decoding=decoding)
    assert len(heard) == TOKENS - 1 and heard[-1] and not heard[0]


def test_padding_adds_no_token_that_a_repetition_penalty_changes() -> None:
    model, way = tiny_model(), Decoding(repetition_penalty=1.3)
    samples = [of_text([5, 6, 7]), of_own_shapes(model, [(20, 25)])]
    together = generate(model, in_rows(samples), max_new_tokens=TOKENS, stop_ids=[], decoding=way)
    assert together == [generate(model, one, max_new_tokens=TOKENS, stop_ids=[], decoding=way)[0] for one in samples]
    process = processors(model, way, 0)
    scores = process(Continuation(model, in_rows(samples)).ids, torch.ones(2, model.lm_head.out_features))
    assert scores[0, 0] == 1 and torch.allclose(scores[0, [5, 6, 7]], torch.tensor(1 / 1.3))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.001, "repetition_penalty": 0.01},
        {"temperature": 1000, "repetition_penalty": 100},
        {"temperature": 0.001, "top_k": 2**63 - 1, "top_p": 1e-45},
        {"temperature": 0.001, "beams": 64},
        {"beams": 64, "length_penalty": -50, "repetition_penalty": 0.01},
    ],
)
def test_numbers_at_the_limits_generate_tokens(options: dict[str, Any]) -> None:
    model = tiny_model()
    way = Decoding(**options, seed=0)
    (answer,) = generate(model, in_rows([of_text([5, 6, 7])]), max_new_tokens=2, stop_ids=[], decoding=way)
    assert len(answer) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must be 0, or from 0.001 to 1000, not -0.1"),
        ({"temperature": float("nan")}, "temperature must be 0, or from 0.001 to 1000, not nan"),
        ({"temperature": 1e-45}, "temperature must be 0, or from 0.001 to 1000, not 1e-45"),
        ({"temperature": 1e39}, "temperature must be 0, or from 0.001 to 1000, not 1e\\+39"),
        ({"temperature": 1.0, "top_k": 0}, "top_k must be 1 or more, not 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p must be more than 0 and at most 1, not 0.0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p must be more than 0 and at most 1, not 1.5"),
        ({"temperature": 1.0, "top_k": 2**63}, "top_k must be 1 or more and less than 9223372036854775808, not"),
        ({"temperature": 1.0, "top_p": float("nan")}, "top_p must be more than 0 and at most 1, not nan"),
        ({"beams": 0}, "beams must be from 1 to 64, not 0"),
        ({"beams": 65}, "beams must be from 1 to 64, not 65"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be from 0.01 to 100, not 0.0"),
        ({"repetition_penalty": 1e39}, "repetition_penalty must be from 0.01 to 100, not 1e\\+39"),
        ({"length_penalty": float("inf"), "beams": 2}, "length_penalty must be from -50 to 50, not inf"),
        ({"length_penalty": 1000.0, "beams": 2}, "length_penalty must be from -50 to 50, not 1000.0"),
        ({"seed": 2**64}, "seed must be 0 or more and less than 18446744073709551616, not 18446744073709551616"),
        ({"seed": -1}, "seed must be 0 or more and less than 18446744073709551616, not -1"),
        ({"length_penalty": 2.0}, "length_penalty needs 2 beams or more"),
        ({"top_k": 5, "temperature": 0.0}, "top_k needs a temperature above 0"),
        ({"top_p": 0.9, "temperature": 0.0}, "top_p needs a temperature above 0"),
    ],
)
def test_options_that_are_out_of_range_or_exclude_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoding(**options)
