"""Images are written in prompts with the literal tokens of each writing, which have no loss."""

import pickle
from dataclasses import replace

import pytest

from bench.inputs.tars import document_sample
from tests.train.shards import caption_samples
from tests.train.tiny import LLAMA, TINY
from vlmdata.step import RecipeError
from vlmdata_train.data.document import Document
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.data.prompt import truncate
from vlmdata_train.data.reading import Reading
from vlmdata_train.model.batch import IGNORE
from vlmdata_train.model.encoder_facts import Grid, Region
from vlmdata_train.model.model import build_model, image_plan
from vlmdata_train.model.parts import find_part, make_part, part_names
from vlmdata_train.model.tokens import byte_tokenizer
from vlmdata_train.model.written import Place, Run

HERE = Place(0, "", "")
TILES = [Region(Grid(2, 2), 0, 0), Region(Grid(2, 2), 0, 1), Region(Grid(2, 2), is_overview=True)]
FAKE = "<fake_token_around_image>"
ROWS = {"rows": {"row_end": "[IMG_BREAK]", "last_row_end": "[IMG_END]"}}
WRITTEN = "<image>[IMG_BREAK]" * 3 + "<image>[IMG_END]"  # an image of 4 x 4 tokens, as `text_of` returns it


def write(entry, regions, place=HERE):
    """Return the pieces of an image, with the number of tokens instead of each run."""
    pieces = make_part("writing", entry).write(regions, place)
    return [piece.tokens if isinstance(piece, Run) else piece for piece in pieces]


def text_of(model, prompt):
    """Return a prompt as text, with one `<image>` for each run of image tokens."""
    text = model.tokenizer.decode(prompt.input_ids)
    while "<image><image>" in text:
        text = text.replace("<image><image>", "<image>")
    return text


def learnt(model, prompt):
    """Return the text of the tokens that have a loss."""
    return model.tokenizer.decode([number for number in prompt.labels if number != IGNORE])


def model_with(**parts):
    return build_model(replace(TINY, **parts))


def test_plain_writes_all_tiles_as_one_run():
    assert write("plain", TILES) == [12]


def test_between_writes_a_token_only_if_the_text_does_not_have_it():
    entry = {"between": {"start": "<img>", "end": "</img>"}}
    assert write(entry, TILES) == ["<img>", 12, "</img>"]
    assert write(entry, TILES, Place(0, "user\n<img>", "</img>\n")) == [12]


def test_neighbours_share_the_token_between_them_if_start_and_end_are_equal():
    entry = {"between": {"start": FAKE, "end": FAKE, "around": "tile"}}
    assert write(entry, TILES) == [FAKE, 4, FAKE, 4, FAKE, 4, FAKE]
    assert write(entry, TILES[2:], Place(1, "text" + FAKE, "")) == [4, FAKE]


def test_rows_end_with_a_token_and_the_last_row_with_another():
    assert write(ROWS, [Region(Grid(3, 2))]) == [2, "[IMG_BREAK]", 2, "[IMG_BREAK]", 2, "[IMG_END]"]
    assert write({"rows": {"row_end": "|NEWLINE|"}}, [Region(Grid(2, 3))]) == [3, "|NEWLINE|", 3, "|NEWLINE|"]


def test_rows_may_begin_and_end_each_region_with_a_token():
    entry = {"rows": {"row_end": "<c>", "start": "<im>", "overview_start": "<low>", "end": "</im>"}}
    regions = [Region(Grid(1, 2), is_overview=True), Region(Grid(1, 3))]
    assert write(entry, regions) == ["<low>", 2, "<c>", "</im>", "<im>", 3, "<c>", "</im>"]


@pytest.mark.parametrize("region", [Region(Grid(0, 0, extra=64)), Region(Grid(2, 2, extra=1)), Region(Grid(2, 2), added=2)])
def test_rows_of_features_that_are_not_in_rows_raise_an_error(region):
    with pytest.raises(ValueError, match="`rows` needs features in rows and columns"):
        write({"rows": {"row_end": "[IMG_BREAK]"}}, [region])


def test_tiles_are_named_by_row_and_column_and_the_whole_image_comes_last():
    below = [replace(tile, row=1) for tile in TILES[:2]]
    first, second = f"{FAKE}<row_1_col_1>", f"{FAKE}<row_1_col_2>"
    third, fourth = first.replace("row_1", "row_2"), second.replace("row_1", "row_2")
    whole = ["\n\n", f"{FAKE}<global-img>", 4, FAKE]
    assert write("tile_grid", [*TILES[:2], *below, TILES[2]]) == [first, 4, second, 4, "\n", third, 4, fourth, 4, *whole]
    assert write("tile_grid", TILES[2:]) == whole[1:]


def test_the_literal_tokens_of_a_writing_are_in_the_vocabulary_and_in_the_embeddings():
    model = model_with(writing={"rows": {**ROWS["rows"], "image_token": "[IMG]"}})
    ids = [model.tokenizer(name)["input_ids"] for name in ("[IMG]", "[IMG_BREAK]", "[IMG_END]")]
    assert all(len(one) == 1 and one[0] < model.language.get_input_embeddings().num_embeddings for one in ids)
    assert model.image_token == "[IMG]" and [model.image_token_id] == ids[0]


def test_literal_tokens_have_no_loss_and_answers_keep_theirs():
    model = model_with(writing=ROWS)
    prompter = prompter_of(model)
    talk = Document(
        [(32, 32), "What?", "A cat.", (32, 32), "Why?", "Fur."], ["user", "user", "assistant", "user", "user", "assistant"]
    )
    prompt = prompter.chat(talk)
    assert learnt(model, prompt) == "A cat.<|end|>Fur.<|end|>"
    assert text_of(model, prompt) == (
        f"<|user|>{WRITTEN}\nWhat?<|end|><|assistant|>A cat.<|end|><|user|>{WRITTEN}\nWhy?<|end|><|assistant|>Fur.<|end|>"
    )


def test_the_stage_align_reads_a_caption_after_the_literal_tokens_of_its_image():
    model = model_with(writing=ROWS)
    (sample,) = caption_samples(1)
    prompt = Reading(prompter_of(model), model.plan, "align", 4096).prompt(sample)
    caption = sample["txt"].decode() + "<|end|>"
    assert text_of(model, prompt) == WRITTEN + caption
    assert learnt(model, prompt) == caption


def test_a_page_is_read_with_the_literal_tokens_of_its_images_at_their_places():
    model = model_with(writing=ROWS)
    photo = caption_samples(1)[0]["jpg"]
    page = document_sample("p", ["One.", photo, photo, "Two.", photo])
    prompt = Reading(prompter_of(model), model.plan, "instruct", 4096).prompt(page)
    assert text_of(model, prompt) == f"One.\n\n{WRITTEN}{WRITTEN}\n\nTwo.\n\n{WRITTEN}<|end|>"
    assert learnt(model, prompt) == "One.\n\n\n\nTwo.\n\n<|end|>"


def test_a_placeholder_in_the_template_is_replaced_and_a_text_cannot_contain_it():
    model = model_with(writing={"between": {"start": "<img>", "end": "</img>", "image_token": "<ctx>", "placeholder": "<pic>"}})
    prompter = prompter_of(model)
    written = "<img>" + "<ctx>" * 16 + "</img>"
    template = model.tokenizer.chat_template
    parts = (
        "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}"
        "{{ '<pic>' if c['type'] == 'image' else c['text'] }}{% endfor %}{{ eos_token }}{% endfor %}"
    )
    talk = Document([(32, 32), "Is this <pic> or <ctx>?", "Yes."], ["user", "user", "assistant"])
    safe = "Is this <\u2060pic> or <\u2060ctx>?"
    assert model.tokenizer.decode(prompter.chat(talk).input_ids) == (
        f"<|user|>{written}\n{safe}<|end|><|assistant|>Yes.<|end|>"
    )
    assert model.tokenizer.decode(prompter.plain(Document([(32, 32), "A cat."], None)).input_ids) == f"{written}A cat.<|end|>"
    model.tokenizer.chat_template = parts
    assert model.tokenizer.decode(prompter.chat(talk).input_ids) == f"user: {written}{safe}<|end|>assistant: Yes.<|end|>"
    assert prompter.template.image_text == "<pic>"
    model.tokenizer.chat_template = template


def test_a_text_cannot_contain_ordinary_tokens_that_are_written_around_images(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<img>", "</img>"])
    tokenizer.save_pretrained(tmp_path)
    language = {"hf_causal": {"config": LLAMA, "tokenizer": str(tmp_path)}}
    model = model_with(writing={"between": {"start": "<img>", "end": "</img>"}}, language=language)
    prompt = prompter_of(model).plain(Document([(32, 32), "an <img> tag"], None))
    assert text_of(model, prompt) == "<img><image></img>an <\u2060img> tag<|end|>"


def test_a_blank_follows_an_image_only_before_a_word():
    entry = {"between": {"start": FAKE, "end": FAKE, "blank": True}}
    after = ["word", " word", "\nword", "<b>word", "", "éclair"]
    ends = [write(entry, TILES[2:], Place(0, "", text))[-1] for text in after]
    assert ends == [" ", FAKE, FAKE, FAKE, FAKE, " "]


def test_white_space_around_a_literal_token_is_not_part_of_the_token():
    between = make_part("writing", {"between": {"start": "\n\n<start_of_image>", "end": "<end_of_image>\n\n"}})
    assert between.tokens() == ["<start_of_image>", "<end_of_image>"]


def test_a_prompt_is_never_cut_within_the_tokens_of_an_image():
    model = model_with(writing={"between": {"start": "<img>", "end": "</img>"}})
    prompt = prompter_of(model).page(Document(["One.", (32, 32), "Two."], None))
    (image,) = prompt.images
    assert (image.tokens, image.end - image.start) == (16, 18)
    for length in range(1, len(prompt.input_ids) + 1):
        cut = truncate(prompt, length)
        written = model.tokenizer.decode(cut.input_ids)
        assert written.count("<image>") == 16 * len(cut.images)
        assert written.count("<img>") == written.count("</img>") == len(cut.images)


def test_bos_follows_the_images_that_begin_a_text_if_the_writing_says_so():
    model = model_with(writing={"plain": {"bos": "after_images"}})
    model.tokenizer.add_bos_token = True
    prompter = prompter_of(model)
    caption = prompter.plain(Document([(32, 32), (32, 32), "A cat."], None))
    assert text_of(model, caption) == "<image><|begin|>A cat.<|end|>"
    assert text_of(model, prompter.page(Document(["One.", (32, 32)], None))).startswith("<|begin|>One.")


def test_bos_after_images_may_be_another_token_than_the_tokenizers():
    model = model_with(writing={"plain": {"bos": "after_images", "bos_token": "<s>"}})
    model.tokenizer.add_bos_token = True
    caption = prompter_of(model).plain(Document([(32, 32), "A cat."], None))
    assert text_of(model, caption) == "<image><s>A cat.<|end|>"
    assert caption.input_ids.count(model.tokenizer.convert_tokens_to_ids("<s>")) == 1
    with pytest.raises(RecipeError, match=r"bos_token needs `bos: after_images`"):
        make_part("writing", {"plain": {"bos_token": "<s>"}})


def test_a_fusion_with_one_token_for_each_image_is_written_between_its_tokens():
    plan = image_plan(replace(TINY, fusion="cross_attention", writing={"between": {"start": FAKE, "end": FAKE}}))
    assert plan.write(32, 32, HERE) == [FAKE, Run(1), FAKE]


@pytest.mark.parametrize("name", part_names("writing"))
def test_every_writing_can_be_pickled_and_writes_every_feature(name):
    needed = {"between": {"start": "<a>", "end": "</a>"}, "rows": {"row_end": "<r>"}}
    part = pickle.loads(pickle.dumps(make_part("writing", {name: needed.get(name, {})})))
    assert isinstance(part, find_part("writing", name))
    assert sum(piece.tokens for piece in part.write(TILES, HERE) if isinstance(piece, Run)) == 12


def test_an_unknown_writing_is_named_with_the_nearest():
    with pytest.raises(RecipeError, match=r"writing: there is no 'betwen'\. Did you mean 'between'\?"):
        make_part("writing", "betwen")
