"""The core alone builds, streams and exports a dataset of captions, and names the extra that a missing package needs."""

import re
import subprocess
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.engine.site import download, site
from tests.wheels import build, clean_environment, install

pytestmark = [pytest.mark.slow, pytest.mark.whole]

MOST_PACKAGES, MOST_BYTES = 12, 500_000_000
STEPS = [
    *("text_length", download(), {"resize": {"size": 48}}, {"image_size": {"min_side": 32}}, "dedupe_exact", "dedupe_phash"),
    *("pdq_hash", "dedupe_pdq", "dedupe_minhash", "image_detail", "split"),
]
READ = """
import vlmdata, webdataset
whole = [sample["__key__"] for sample in vlmdata.stream("OUT", seed=1)]
data = vlmdata.stream("OUT", seed=1)
begun = iter(data)
head = [next(begun)["__key__"] for _ in range(5)]
other = vlmdata.stream("OUT", seed=1)
other.load_state_dict(data.state_dict())
assert head + [sample["__key__"] for sample in other] == whole and len(set(whole)) == 12
stages = webdataset.decode("pil"), webdataset.to_tuple("__key__", "jpg", "txt"), webdataset.batched(4)
batches = list(webdataset.DataPipeline(vlmdata.stream("OUT", seed=1), *stages))
assert [key for batch in batches for key in batch[0]] == whole and batches[0][1][0].size == (48, 48)
area = vlmdata.Decode(size=32, filter="area")
assert next(iter(vlmdata.stream("OUT", seed=1, decode=area)))["jpg"].shape == (32, 32, 3)
"""
STEP, SOURCE = "{source: {type: url_list, path: urls.parquet}, steps: [%s]}", "{source: {type: %s}, steps: [text_length]}"
IMG2DATASET = "download: {engine: img2dataset, robots: false, tdm: false, host_connections: 0, host_requests_per_s: 0}"
CHECKED = {  # a recipe: the extra that it needs
    STEP % "clip_score": "clip",
    STEP % "imagededup_hash": "clip",
    STEP % "{nsfw_images: {model: a/b}}": "train",
    STEP % "language": "text",
    STEP % "document_language": "text",
    STEP % "document_quality": "text",
    STEP % "{perplexity: {model: none}}": "perplexity",
    STEP % f"{{{IMG2DATASET}}}": "img2dataset",
    SOURCE % "hf_dataset, path: a/b": "hf",
    SOURCE % "html, path: .": "pages",
    SOURCE % "warc, path: none.warc.gz": "pages",
    SOURCE % "url_list, path: s3://bucket/list.csv": "s3",
    SOURCE % "webdataset, path: https://example.org/0.tar": "s3",
}
NAMED = re.compile(r"^vlmdata.*: pip install 'vlmdata\[(.*?)\]'(?:, or leave the step out: --set \w+=off)?$", re.M)
COMMANDS = {  # a command: the extra that it needs
    "run recipe.yaml --out OUT2 --address auto": "ray",
    "run recipe.yaml --out s3://bucket/OUT": "s3",
    "train align tiny": "train",
    "demo": "train",
}


class Core(NamedTuple):
    """An environment with the core alone: its Python, the bytes that pip added, and a folder to work in."""

    python: Path
    added: int
    folder: Path

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.python), *words]
        return subprocess.run(command, cwd=self.folder, env=clean_environment(), capture_output=True, text=True)

    def vlmdata(self, line: str) -> subprocess.CompletedProcess[str]:
        return self.call("-m", "vlmdata", *line.split())


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Core:
    folder = tmp_path_factory.mktemp("core")
    (wheel,) = build(folder / "dist", "wheel")
    python, added = install(wheel, folder / "venv")
    made = Core(python, added, folder)
    steps = yaml.safe_load(yaml.safe_dump(STEPS))
    with site(folder, 16, steps=steps) as web:
        done = made.vlmdata(f"run {web.recipe} --out OUT --workers 1")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "Ray is not installed" in line] == done.stderr.splitlines()[:1]
    return made


def test_the_core_is_small_and_has_few_dependencies(core: Core) -> None:
    (info,) = core.python.parent.parent.glob("lib/python3*/site-packages/vlmdata-*.dist-info")
    needed = [one for one in PathDistribution(info).requires or [] if "extra ==" not in one]
    assert len(needed) <= MOST_PACKAGES
    assert core.added <= MOST_BYTES


def test_the_core_builds_streams_and_exports_captions(core: Core) -> None:
    assert "12 of 16 rows kept" in core.vlmdata("show OUT").stdout
    assert core.vlmdata("check OUT").stdout == "OUT: intact, counts and sizes checked\n"
    read = core.call("-c", READ)
    assert read.returncode == 0, read.stderr
    for form in ("parquet", "folder", "tars"):
        assert core.vlmdata(f"export OUT --to {form} {form}").stdout == f"{form}: 12 samples as {form}\n"
    key = next((core.folder / "folder").rglob("*.jpg")).name.split(".")[0]
    assert f"{key}  kept in 00000.tar" in core.vlmdata(f"why OUT {key}").stdout
    listed = core.vlmdata("steps")
    assert listed.returncode == 0 and "clip_score" in listed.stdout


def test_each_missing_extra_is_named_in_one_line(core: Core) -> None:
    commands = dict(COMMANDS)
    for number, (recipe, extra) in enumerate(CHECKED.items()):
        (core.folder / f"{number}.yaml").write_text(recipe)
        commands[f"check {number}.yaml"] = extra
    found = {line: core.vlmdata(line) for line in commands}
    named = {line: NAMED.findall(one.stderr) for line, one in found.items()}
    assert named == {line: [extra] for line, extra in commands.items()}
    assert {one.returncode for one in found.values()} == {2}


def test_the_core_runs_the_first_commands_of_the_readme(core: Core) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    section = readme.partition("## Your first dataset\n")[2].partition("\n- ")[0]
    check, run, *others = [line.partition("#")[0].strip() for line in section.splitlines() if line.startswith("    vlmdata ")]
    assert (check.split()[1], run.split()[1]) == ("check", "run")
    allowed = "--set download.allowed_hosts=[127.0.0.1]"  # the list of the tests has addresses of this machine
    for command in (
        f"{check} {allowed}",
        f"{run} {allowed} --local --workers 1",
        *(one for one in others if "train" not in one and "why" not in one),
    ):
        words = command.replace(" OUT", " FIRST").replace("--open", "").removeprefix("vlmdata ")
        done = core.vlmdata(words)
        assert done.returncode == 0, (words, done.stderr)
    assert "of 16 rows kept" in core.vlmdata("show FIRST").stdout
