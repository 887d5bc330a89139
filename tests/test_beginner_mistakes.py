"""What a beginner does wrong: every command line below ends with the exit code and the words that name the place and the fix.

Nothing is built, and no mistake changes a file. tests/train/test_mistakes_early.py has the trainer's mistakes.
"""

import json
import os
import shlex
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import vlmdata
from tests.fixtures import fixture
from vlmdata.cli import main
from vlmdata_train.__main__ import main as train

SOURCE = "source: {type: url_list, path: urls.csv}\n"
FILES = {
    "urls.csv": "url,caption\nhttp://example.org/a.jpg,a cat on a mat\n",
    "ok.yaml": f"{SOURCE}steps:\n  - text_length\n  - download\n  - resize\n",
    "talks.json": json.dumps([{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]),
    "semicolons.csv": "url;caption\nhttp://example.org/a.jpg;a cat on a mat\n",
    "headless.csv": "http://example.org/a.jpg,a cat on a mat\nhttp://example.org/b.jpg,a cat on a hat\n",
    "notes/diary.md": "mine",
    "half/work/plan.json": "{}",
    "list.json": '{"url": "http://example.org/a.jpg",',
}

RECIPES: dict[str, tuple[str, list[str]]] = {  # name of the mistake: the recipe's text, and words of the message
    "a tab": ("source:\n\ttype: url_list\n", ["r.yaml, line 2, column 1: a tab", "replace each tab by two spaces"]),
    "a step too far right": (
        f"{SOURCE}steps:\n  - download\n   - resize\n",
        ["r.yaml, step 1: 'download - resize' is read as one step", "the same column"],
    ),
    "a step too far left": (
        f"{SOURCE}steps:\n  - text_length\n - download\n",
        ["r.yaml, line 4, column 2", "Check the indentation"],
    ),
    "parameters not indented": (
        f"{SOURCE}steps:\n  - text_length:\n    min_words: 3\n",
        ["r.yaml, step 1: indent min_words further than text_length"],
    ),
    "a key twice": (
        f"{SOURCE}steps: [download]\nsteps: [resize]\n",
        ["r.yaml, line 3", "'steps' is already in line 2"],
    ),
    "a parameter twice": (
        f"{SOURCE}steps:\n  - text_length:\n      min_words: 3\n      min_words: 4\n",
        ["r.yaml, line 5", "'min_words' is already in line 4"],
    ),
    "a colon in a text": (
        "source: {type: url_list, path: urls.csv, url: a: b}\n",
        ["r.yaml, line 1, column 48", "Put quotes around a text"],
    ),
    "two recipes in a file": (f"{SOURCE}---\n{SOURCE}", ["r.yaml, line 2, column 1: a second document begins here"]),
    "a tag": ("source: !file urls.csv\n", ["r.yaml, line 1, column 9: the tag '!file' is not allowed. Remove it"]),
    "lists in lists": (f"source: {'[' * 5000}\n", ["r.yaml is not a recipe, because its values are nested too deeply"]),
    "a bracket that stays open": (f"{SOURCE}steps: [download\n", ["r.yaml, line 3", "expected ',' or ']'"]),
    "a source as a list": (
        "source:\n  - type: url_list\n  - path: urls.csv\n",
        ["r.yaml, source: a source is a mapping, not a list", "without dashes"],
    ),
    "no source": ("steps: [download]\n", ["r.yaml, source: set `type` to one of box_list, coco, energon, files"]),
    "a source without its type": ("source: {path: urls.csv}\n", ["r.yaml, source: set `type` to one of", "url_list"]),
    "a source without its path": ("source: {type: url_list}\n", ["r.yaml, source: UrlList needs the parameter 'path'"]),
    "an empty recipe": ("", ["r.yaml: a recipe must be a mapping with the keys source, steps and shards"]),
    "a list instead of a recipe": ("- download\n", ["r.yaml: a recipe must be a mapping"]),
    "a wrong key": (f"{SOURCE}step: [download]\n", ["r.yaml: a recipe has no key 'step'", "Did you mean 'steps'?"]),
    "an unknown step": (f"{SOURCE}steps: [downlod]\n", ["r.yaml, step 1", "no step 'downlod'", "Did you mean 'download'?"]),
    "an unknown source": ("source: {type: urls, path: urls.csv}\n", ["r.yaml, source", "Did you mean 'url_list'?"]),
    "an unknown parameter": (
        f"{SOURCE}steps: [{{image_size: {{minside: 3}}}}]\n",
        ["r.yaml, step 1: ImageSize has no parameter 'minside'. Did you mean 'min_side'?"],
    ),
    "a word for a number": (
        f"{SOURCE}steps: [{{image_size: {{min_side: big}}}}]\n",
        ["r.yaml, step 1: ImageSize.min_side = 'big': must be a whole number"],
    ),
    "a list for parameters": (
        f"{SOURCE}steps: [{{image_size: [200]}}]\n",
        ["r.yaml, step 1: the parameters of image_size must be a mapping, not [200]"],
    ),
    "a size of 0": (
        f"{SOURCE}steps: [{{resize: {{size: 0}}}}]\n",
        ["step 1", "size must be 1 to 16383 pixels", "not 0"],
    ),
    "a quality of 101": (f"{SOURCE}steps: [{{resize: {{quality: 101}}}}]\n", ["quality must be 1 to 100, not 101"]),
    "an unknown choice": (f"{SOURCE}steps: [{{resize: {{mode: crop}}}}]\n", ["Resize.mode = 'crop'", "'center_crop'"]),
    "empty tars": (f"{SOURCE}shards: {{samples: 0}}\n", ["r.yaml, shards", "samples must be 1 or more, not 0"]),
    "an unknown layout": (f"{SOURCE}shards: {{layout: pairs}}\n", ["Shards.layout = 'pairs'", "'captions' or 'documents'"]),
    "partitions of no number": (f"{SOURCE}part_rows: ten\n", ["part_rows must be an integer of at least 1, not 'ten'"]),
    "a step twice": (f"{SOURCE}steps: [text_length, text_length]\n", ["r.yaml, step 2", "Give this step a `label`"]),
    "a score before its step": (
        f"{SOURCE}steps: [{{top_fraction: {{score: clip_score, fraction: 0.3}}}}, clip_score]\n",
        ["r.yaml, step 1: top_fraction reads the column 'clip_score', which no step before it measures"],
    ),
    "a weight of an unknown score": (
        f"{SOURCE}steps: [{{clip_score: {{label: a}}}}, {{weighted_score: {{weights: {{b: 1}}}}}}]\n",
        ["r.yaml, step 2: weighted_score reads the column 'b'"],
    ),
    "percent for a fraction": (
        f"{SOURCE}steps: [{{source_score: {{label: s, of: x}}}}, {{top_fraction: {{score: s, fraction: 30}}}}]\n",
        ["top_fraction.fraction must lie in (0, 1], such as 0.3, not 30"],
    ),
    "shares above 1": (
        f"{SOURCE}steps: [{{split: {{shares: {{train: 0.9, val: 0.3}}}}}}]\n",
        ["split.shares must be 0 or more and add up to 1"],
    ),
    "percent for a threshold": (
        f"{SOURCE}steps: [{{dedupe_minhash: {{threshold: 80}}}}]\n",
        ["dedupe_minhash: threshold must lie in (0, 1]"],
    ),
    "the name of a language": (
        f"{SOURCE}steps: [{{language: {{keep: [english]}}}}]\n",
        ["language.keep: 'english' is not a language", " en "],
    ),
    "weights with a wrong tag": (
        f"{SOURCE}steps: [download, resize, {{clip_score: {{model: ViT-B-32, pretrained: nobody}}}}]\n",
        ["clip_score.pretrained must be a file or a weights tag that open_clip has for ViT-B-32, not 'nobody'"],
    ),
    "a wrong model": (
        f"{SOURCE}steps: [download, resize, {{clip_score: {{model: ViT-B-33, pretrained: openai}}}}]\n",
        ["clip_score.model: open_clip has no model 'ViT-B-33'. Did you mean 'ViT-B-32'?"],
    ),
    "a model without its dashes": (
        f"{SOURCE}steps: [download, resize, {{clip_score: {{model: vitb32, pretrained: openai}}}}]\n",
        ["clip_score.model: open_clip has no model 'vitb32'. Did you mean 'ViT-B-32'?"],
    ),
    "a model of another library": (
        f"{SOURCE}steps: [download, resize, {{clip_score: {{model: x, pretrained: openai}}}}]\n",
        ["clip_score.model: open_clip has no model 'x'. Known names: EVA01-g-14, ", " more"],
    ),
    "the name of a class": (f"{SOURCE}steps: [TextLength]\n", ["no step 'TextLength'. Did you mean 'text_length'?"]),
    "a number for a contact": (
        f"{SOURCE}steps: [{{download: {{contact: 5}}}}]\n",
        ["r.yaml, step 1: Download.contact = 5: must be a text", "quote it: 'no'"],
    ),
    "one host instead of a list": (
        f"{SOURCE}steps: [{{download: {{allowed_hosts: example.org}}}}]\n",
        ["r.yaml, step 1: Download.allowed_hosts = 'example.org'"],
    ),
    "a word for a rate": (
        f"{SOURCE}steps: [{{download: {{host_rates: {{example.org: fast}}}}}}]\n",
        ["Download.host_rates.example.org = 'fast': must be a number"],
    ),
    "a number with an exponent": (
        f"{SOURCE}steps: [{{text_length: {{min_words: 1e5}}}}]\n",
        ["TextLength.min_words = '1e5': must be a whole number. Write it without an exponent"],
    ),
    "a negative time": (f"{SOURCE}steps: [{{download: {{timeout_s: -1}}}}]\n", ["timeout_s must be above 0, not -1"]),
    "an absent block list": (f"{SOURCE}steps: [{{block_list: {{domains: [gone.txt]}}}}]\n", ["cannot read the list gone.txt"]),
    "a module that is not installed": (
        f"{SOURCE}steps: [mymodule.MyStep]\n",
        ["r.yaml, step 1: cannot import the step 'mymodule.MyStep'", "No module named 'mymodule'"],
    ),
    "chats in pairs": (
        "source: {type: llava_json, path: talks.json}\nsteps: [resize]\n",
        ["llava_json gives conversations", "Set shards.layout to documents"],
    ),
}

COMMANDS: list[tuple[str, list[str]]] = [  # a command line that ends with the exit code 2, and words of the message
    ("runn ok.yaml", ["No such verb 'runn'. Did you mean 'run'?"]),
    ("check gone.yaml", ["there is no file gone.yaml", "`vlmdata new` lists the names"]),
    ("check caption", ["there is no recipe 'caption'", "Did you mean 'captions'?"]),
    ("run urls.csv --out X", ["urls.csv is data, not a recipe. Name a recipe", "--set source.path=urls.csv"]),
    ("check captions/00000.tar", ["captions/00000.tar is data, not a recipe", "`vlmdata new` lists the recipes"]),
    ("check utf16.yaml", ["utf16.yaml is not a text in UTF-8", "It is in UTF-16: save it as UTF-8"]),
    ("check picture.yaml", ["picture.yaml is not a text in UTF-8. Name a YAML file"]),
    ("new caption", ["Did you mean 'captions'?"]),
    ("new captions ok.yaml", ["ok.yaml already exists", "vlmdata new captions other.yaml"]),
    ("new captions nowhere/r.yaml", ["cannot write nowhere/r.yaml", "Name another file"]),
    ("steps downlod", ["there is no step, source or generator 'downlod'. Did you mean 'download'?"]),
    ("check ok.yaml --set source.path=zzz", ["zzz: there is no such file or folder", "Set source.path to"]),
    ("check ok.yaml --set source.path=url.csv", ["url.csv", "Did you mean 'urls.csv'?"]),
    ("check ok.yaml --set source.path=photo.jpg", ["photo.jpg", "Set `format:` to one of csv, json"]),
    ("check ok.yaml --set source.path=nothing", ["nothing: the folder holds no file that ends in .parquet"]),
    ("check ok.yaml --set 'source.path=*.json5'", ["*.json5 matches no file", "Set source.path to a pattern"]),
    ("check ok.yaml --set source.url=link", ["urls.csv: there is no column 'link'", "url, caption"]),
    ("check ok.yaml --set source.path=semicolons.csv", ["only column is 'url;caption'", '`delimiter: ";"`']),
    ("check ok.yaml --set source.path=headless.csv", ["no column 'url'", "no header", "`columns: [url, caption]`"]),
    ("check ok.yaml --set source.path=memory://gone/a.csv", ["memory://gone/a.csv: there is no such file or folder"]),
    (f"check ok.yaml --set source.path={'[' * 5000}", ["--set source.path=[[[", "the value is not YAML"]),
    ("check ok.yaml --set source.caption=captoin", ["there is no column 'captoin'. Did you mean 'caption'?"]),
    ("check ok.yaml --set source.path=", ["ok.yaml, source: UrlList.path = None: must be a text or a list of texts"]),
    ("check captions_folder --set source.path=nothing", ["nothing: the folder holds no file that ends in .jpg"]),
    ("check captions_folder --set source.path=urls.csv", ["urls.csv is not an image", "set source.table=urls.csv"]),
    ("check chats --set source.path=urls.csv", ["urls.csv is csv. This source reads json, jsonl, parquet"]),
    ("check chats --set source.path=talks.json", ["images: there is no such file or folder"]),
    ("check pages_html --set source.path=nothing", ["nothing: the folder holds no file that ends in ", ".html"]),
    ("check captions_hf --set source.path=./nowhere", ["nowhere: there is no such file or folder", "Set source.path"]),
    ("check ok.yaml --set source", ["--set source: write a setting as name=value", "--set source.path=urls.parquet"]),
    ("check ok.yaml --set 'source.path={'", ["the value is not YAML. Put quotes"]),
    ("check ok.yaml --set txt.min=3", ["ok.yaml has no step 'txt'", "text_length, download, resize"]),
    ("check ok.yaml --set text_length=3", ["--set text_length", "must name a parameter, as in --set source.path"]),
    ("check ok.yaml --set text_length.min_words=few", ["TextLength.min_words = 'few': must be a whole number"]),
    ("check ok.yaml --set source.path=pipe.csv", ["pipe.csv is a pipe, not a file or folder. Set source.path"]),
    ("check ok.yaml --set source.path=/dev/null", ["/dev/null is a device, not a file or folder"]),
    ("check ok.yaml --set source.path=lost.csv", ["lost.csv is a link to gone.csv, which does not exist. Set source.path"]),
    ("check chats --set source.path=talks.json --set source.images=pipe.csv", ["is a pipe", "Set source.images"]),
    ("check captions_folder --set source.path=nothing --set source.table=gone.csv", ["gone.csv", "Set source.table to"]),
    (
        "check captions_folder --set source.path=notes --set source.table=notes/diary.md",
        ["source.table is relative to source.path, so it cannot be notes/diary.md. Set source.table=diary.md"],
    ),
    (
        "check captions_folder --set source.path=nothing --set source.table=urls.csv",
        ["source.table is relative to source.path, so it cannot be urls.csv. Put the table into nothing"],
    ),
    ("check ok.yaml --set resize.mode=no", ["Resize.mode = False: must be 'no', 'border'", "quote it: 'no'"]),
    ("check ok.yaml --set download.contact=2024-01-31", ["must be a text", "quote it"]),
    ("check ok.yaml --set download.contact=~", ["Download.contact = None: must be a text", "quote it"]),
    ("check ok.yaml --set source.caption=no", ["must be a text or a list of texts, such as [a, b]", "quote it"]),
    ("check ok.yaml --set source.columns=url", ["UrlList.columns = 'url': must be a list of texts, such as [a, b]"]),
    ("check ok.yaml --set download.allowed_hosts=[1]", ["Download.allowed_hosts.0 = 1: must be a text"]),
    ("check ok.yaml --set download.host_rates=fast", ["must be a mapping of texts to numbers, such as {a: 1}"]),
    ("check ok.yaml --set text_length.min_words=yes", ["TextLength.min_words = True: must be a whole number"]),
    ("check ok.yaml --set shards.samples=no", ["Shards.samples = False: must be a whole number"]),
    ("check ok.yaml --set part_rows=yes", ["part_rows must be an integer of at least 1, not True"]),
    ("run ok.yaml", ["Missing option '--out'"]),
    ("run ok.yaml --out ''", ["out must be a path or an address, not ''"]),
    ("run ok.yaml --out X --workers 0", ["workers must be an integer of at least 1, not 0"]),
    ("run ok.yaml --out X --workers -1", ["workers must be an integer of at least 1, not -1"]),
    ("run ok.yaml --out X --workers x", ["Invalid value for '--workers'", "'x' is not a valid integer"]),
    ("run ok.yaml --out X --limit -1", ["limit must be an integer of at least 0, not -1"]),
    ("run ok.yaml --out X --limit 1.5", ["Invalid value for '--limit'"]),
    ("run ok.yaml --out X --adress auto", ["No such option '--adress'. Did you mean '--address'?"]),
    ("run ok.yaml urls.csv --out X", ["Got unexpected extra argument (urls.csv)"]),
    ("run ok.yaml --out captions --local", ["captions was built from another source", "Give another --out"]),
    ("run ok.yaml --out foo://x/y --local", ["foo://x/y", "Protocol not known: foo"]),
    (
        "check ok.yaml --out https://127.0.0.1:9/x",
        ["no file can be written over HTTP. Give a folder, or a store such as s3://"],
    ),
    ("show oss://b/x", ["oss://b/x: a package for oss:// is missing. Install it: pip install ossfs"]),
    ("why captions", ["Missing argument 'WORD'"]),
    ("why captions x --limit 0", ["limit must be an integer of at least 1, not 0"]),
    ("why nothing x", ["nothing is not a finished dataset", "no manifest.json", "Name the folder that `vlmdata run` wrote"]),
    ("show captons", ["captons is not a finished dataset, because it does not exist", "Did you mean 'captions'?"]),
    ("show zzz", ["zzz is not a finished dataset", "Name the folder that `vlmdata run` wrote"]),
    ("show urls.csv", ["urls.csv is not a finished dataset, because it is a file"]),
    ("show half", ["half is not a finished dataset", "Run its build command again"]),
    ("show captions --samples -1", ["--samples must be an integer of at least 0, not -1"]),
    ("diff captions zzz", ["zzz is not a finished dataset"]),
    ("diff captions", ["Missing argument 'B'"]),
    ("forget captions", ["there is no sample to forget. Give an address, a domain, a key"]),
    ("forget nothing --key 0123456789abcdef01234567", ["nothing is not a finished dataset"]),
    ("forget captions --key @gone.txt", ["cannot read the list gone.txt"]),
    ("forget captions --like gone.jpg", ["cannot read gone.jpg as an image", "No such file"]),
    ("forget captions --like urls.csv", ["cannot read urls.csv as an image"]),
    ("forget captions --key a --bits x", ["Invalid value for '--bits'"]),
    ("retry half", ["half is not a finished dataset", "Run its build command again"]),
    ("retry captions --only tiemout", ["no row of captions failed with tiemout", "The reasons that occur are: http_404"]),
    ("export captions nothing", ["nothing already exists. Name a new folder"]),
    ("export captions new --to csv", ["'csv' is not one of 'energon', 'folder'", "'parquet'"]),
    (
        "export captions new --to messages",
        ["captions holds captions", "Formats for captions are", "set a question: --set prompt="],
    ),
    ("export captions s3://bucket/new", ["export writes to a folder on this machine"]),
    ("export zzz new", ["zzz is not a finished dataset, because it does not exist"]),
    ("clean half", ["half is not a finished dataset"]),
    ("clean s3://bucket/set", ["s3://bucket/set is not on this machine"]),
    ("index nothing", ["there are no tars in nothing"]),
    ("index zzz", ["zzz does not exist"]),
    ("index urls.csv", ["urls.csv is not a tar. Name a dataset"]),
    ("check half", ["half is not a finished dataset"]),
    ("completion tcsh", ["'tcsh' is not one of 'bash', 'zsh', 'fish'"]),
    ("demo --out notes", ["notes holds files that are not from an earlier demo", "Name another folder with --out"]),
    ("train algn tiny", ["No such verb 'algn'. Did you mean 'align'?"]),
    ("train align tinny", ["there is no training recipe 'tinny'. Did you mean 'tiny'?"]),
    ("train align tiny --set data=zzz", ["data: zzz does not exist"]),
    ("train align tiny --set data=captions --set lrr=1", ["no parameter 'lrr'. Did you mean 'lr'?"]),
    ("train align tiny --set data=captions --set steps=many", ["steps", "many"]),
    ("train align tiny --set data=captions --set out=urls.csv/run", ["out: urls.csv is a file", "Choose another `out`"]),
    ("train align tiny --set data=captions --set out=captions", ["out: captions is a dataset. Choose another `out`"]),
    ("train align twice.yaml --set data=captions", ["twice.yaml, line 2", "the key 'lr' is already in line 1"]),
    ("train chat zzz photo.jpg", ["zzz is not a checkpoint, because it does not exist"]),
    ("train evaluate captions captions", ["captions", "recipe.json"]),
]

CALLS: dict[str, tuple[Callable[[], object], list[str]]] = {  # name of the mistake: a call, and words of its error
    "a stream of an absent folder": (lambda: vlmdata.stream("zzz", seed=0), ["zzz does not exist"]),
    "a stream of an empty folder": (lambda: vlmdata.stream("nothing", seed=0), ["no tars in nothing"]),
    "a stream without a path": (lambda: vlmdata.stream("", seed=0), ["a path"]),
    "a seed of letters": (lambda: vlmdata.stream("captions", seed="first"), ["seed must be an integer", "'first'"]),  # type: ignore[arg-type]
    "a blend as a list": (lambda: vlmdata.stream([("captions", 0.5)], seed=0), ["a path", "captions"]),  # type: ignore[list-item]
    "workers as a text": (
        lambda: vlmdata.run("ok.yaml", "X", workers="2"),  # type: ignore[arg-type]
        ["workers must be an integer of at least 1, not '2'"],
    ),
    "overrides as a text": (
        lambda: vlmdata.run("ok.yaml", "X", overrides="a=b"),  # type: ignore[arg-type]
        ["overrides must be a mapping such as {'source.path': 'urls.parquet'}"],
    ),
    "a step that is off as a text": (
        lambda: vlmdata.run("ok.yaml", "X", overrides={"resize": "off"}),
        ["To leave the step out, write --set resize=off, or in Python {'resize': False}"],
    ),
    "no recipe": (lambda: vlmdata.run(None, "X"), ["recipe must be a file, the name of a shipped recipe"]),  # type: ignore[arg-type]
    "an unknown format": (lambda: vlmdata.export("captions", "new", to="jpg"), ["to must be one of", "parquet", "'jpg'"]),
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two datasets, an unfinished one, and files of a beginner."""
    folder = tmp_path_factory.mktemp("desk")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "twice.yaml").write_text("lr: 1\nlr: 2\n")
    (folder / "nothing").mkdir()
    os.mkfifo(folder / "pipe.csv")
    (folder / "lost.csv").symlink_to("gone.csv")
    shutil.copy(next(fixture("A_captioned/coco_free_licence").glob("*.jpg")), folder / "photo.jpg")
    shutil.copy(folder / "photo.jpg", folder / "picture.yaml")
    (folder / "utf16.yaml").write_text(FILES["ok.yaml"], encoding="utf-16")
    with tarfile.open(fixture("H_built_before") / "built.tar.gz") as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture(autouse=True)
def unchanged(desk: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the test in the folder, and check that it leaves the names of all files as they were."""
    monkeypatch.chdir(desk)
    before = names(desk)
    yield
    assert names(desk) == before


def names(folder: Path) -> set[str]:
    return {os.path.join(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files)}


def says(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command line that ends with the exit code 2, and return its message."""
    assert (train(command[1:]) if command[0] == "train" else main(command)) == 2
    message = capsys.readouterr().err
    lines = [line for line in message.splitlines() if not line.startswith("Usage: ")]
    assert "Traceback" not in message and lines and all(line.startswith(("vlmdata", "note: ")) for line in lines)
    return message


@pytest.mark.parametrize("mistake", RECIPES)
def test_a_mistake_in_a_recipe_names_place_and_fix(mistake, tmp_path, capsys):
    text, words = RECIPES[mistake]
    (tmp_path / "r.yaml").write_text(text)
    message = says(["check", str(tmp_path / "r.yaml")], capsys)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize(("line", "words"), COMMANDS, ids=[line[:100] for line, _ in COMMANDS])
def test_a_mistake_in_a_command_names_place_and_fix(line, words, capsys):
    message = says(shlex.split(line), capsys)
    assert [word for word in words if word not in message] == [], message


def test_a_row_that_does_not_exist_is_no_usage_error(capsys):
    assert main(["why", "captions", "no-such-row"]) == 1
    assert capsys.readouterr().err.startswith(
        "captions: no row found for no-such-row. Rows were dropped by download: http_404, "
    )
    assert main(["why", "captions", "https://no.example/row.jpg"]) == 1
    assert capsys.readouterr().err == "captions: no row found for https://no.example/row.jpg\n"


@pytest.mark.parametrize("mistake", CALLS)
def test_a_mistake_in_a_call_names_the_argument(mistake):
    call, words = CALLS[mistake]
    with pytest.raises(vlmdata.Error) as caught:
        call()
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    assert "\n" not in str(caught.value)
