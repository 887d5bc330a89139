"""If hardly any rows are kept, `run` and the report say which steps took them, and which setting would have kept them."""

import html
import json
import re
import shlex

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.engine.site import download, manifest, picture, site
from vlmdata import run, why
from vlmdata.cli import main
from vlmdata.columns import LEDGER
from vlmdata.engine.store.open_store import open_store
from vlmdata.recipe import parse
from vlmdata.report.loss_lines import keeping, loss_lines
from vlmdata.report.losses import are_hardly_any, find_losses
from vlmdata.steps.clip_score import ClipScore
from vlmdata.steps.dedupe_phash import DedupePhash
from vlmdata.steps.language import Language
from vlmdata.steps.min_scores import MinScores

HEADING = "Nothing was kept. The steps that took most:"
RESIZE = {"resize": {"size": 48}}


def printed_by(arguments, capsys):
    """Run a command that succeeds, and return the lines of its output."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


def suggested(lines):
    """Return the `--set` option that the lines suggest, as arguments."""
    (line,) = (line for line in lines if "--set" in line)
    return shlex.split(line[line.index("--set") :])


@pytest.mark.parametrize(
    ("kept", "rows", "expected"),
    [
        *[(0, 1, True), (0, 0, False), (9, 10, False), (1, 10, False), (1, 11, True), (9, 90, False), (9, 91, True)],
        *[(10, 1000, False), (10, 1001, True), (99, 10_000, True), (100, 10_000, False)],
    ],
)
def test_hardly_any_is_none_or_one_percent_or_few_of_many(kept, rows, expected):
    assert are_hardly_any(kept, rows) is expected


@pytest.mark.parametrize(
    ("sign", "values", "is_whole", "expected"),
    [
        ("<", [0.297, 0.19712, 0.2], False, 0.197),
        ("<", [0.19699999690055847], False, 0.196),
        ("<=", [4.0, 6.0], True, 3),
        ("<=", [0.0], True, -1),
        ("<", [64.0, 180.0], True, 64),
        (">", [0.4501, 0.31], False, 0.451),
        (">", [4097.0], True, 4097),
        (">=", [12.0], True, 13),
        (">=", [0.5], False, 0.501),
        ("<", [-0.123456], False, -0.124),
        ("<", [0.0], False, 0.0),
    ],
)
def test_the_suggested_threshold_keeps_every_value_and_is_near(sign, values, is_whole, expected):
    found = keeping(sign, values, is_whole=is_whole)
    assert found == expected
    rejects = {"<": float.__lt__, "<=": float.__le__, ">": float.__gt__, ">=": float.__ge__}[sign]
    assert not any(rejects(value, float(found)) for value in values)


def test_steps_state_the_comparison_behind_each_reason():
    assert ClipScore.limit("min_score") == ("<", "min_score", "")
    assert DedupePhash.limit("same_picture") == ("<=", "distance", "")
    assert Language.limit("language_de") == ("not in", "keep", "de")
    assert MinScores.limit("min_clip_score") == ("<", "scores", "clip_score")
    assert Language.limit("another") is None


@pytest.mark.whole
def test_a_threshold_is_named_with_the_nearest_rows_and_the_setting_that_keeps_them(tmp_path, capsys):
    steps = ["text_length", download(), RESIZE, {"image_size": {"min_side": 200}}]
    with site(tmp_path, 40, steps=steps) as web:
        command = ["run", web.recipe, "--out", tmp_path / "out", "--local", "--workers", 1]
        lines = printed_by(command, capsys)
        explained = lines[lines.index(HEADING) :]
        assert explained[1:3] == [
            "image_size took 34 of the 34 rows that reached it",
            "  min_side: 34 rows; required: at least 200. The nearest:",
        ]
        near = [line.split() for line in explained[3:6]]
        assert all(value == "64" and url.startswith(web.server.url("/good/")) for value, url in near)
        assert explained[6] == "    this keeps them: --set image_size.min_side=64"
        assert explained[7] == "resize took 4 of the 38 rows that reached it"
        assert "  not_an_image: 2 rows; the bytes are a web page, text, an SVG drawing, or of an unknown format" in explained
        assert printed_by(["show", tmp_path / "out"], capsys)[-len(explained) :] == explained
        in_report = report_lines(tmp_path / "out")
        assert in_report == [line.replace(str(tmp_path / "out"), "OUT") for line in explained]
        again = printed_by([*command, *suggested(explained)], capsys)
    assert again[0].startswith(f"{tmp_path / 'out'}: 32 of 40 rows kept") and HEADING not in again
    assert "reused: all stored fetches and measurements; only the decisions and the tars are new" in again
    assert 'id="losses"' not in (tmp_path / "out" / "report.html").read_text()


def report_lines(out):
    page = (out / "report.html").read_text()
    section = re.search(r'<section id="losses">\s*<h2>(.*?)</h2>\s*<pre tabindex="0">(.*?)\n</pre>', page, re.DOTALL)
    assert section and page.index('id="losses"') < page.index('id="funnel"')
    return [html.unescape(line) for line in [section[1], *section[2].split("\n")]]


@pytest.mark.whole
def test_a_private_address_is_explained_and_the_copied_command_fetches(tmp_path, capsys):
    with site(tmp_path, 16, steps=[download(allowed_hosts=["localhost"]), RESIZE]) as web:
        table = pq.read_table(tmp_path / "urls.parquet")
        urls = table["url"].to_pylist()
        urls[15] = urls[15].replace("127.0.0.1", "localhost")  # the run would not start if all addresses were private
        pq.write_table(table.set_column(0, "url", pa.array(urls)), tmp_path / "urls.parquet")
        lines = printed_by(["run", web.recipe, "--out", tmp_path / "out", "--local", "--workers", 1], capsys)
        command = f"vlmdata retry {tmp_path / 'out'} --set 'download.allowed_hosts=[localhost, 127.0.0.1]'"
        assert lines[lines.index(HEADING) + 1 :][:4] == [
            "download took 15 of the 16 rows that reached it",
            "  private_address: 15 rows; the host has no public address",
            "    hosts: 127.0.0.1 (15)",
            f"    if these hosts are yours: {command}",
        ]
        assert len(web.requests()) == 1
        after = printed_by([*shlex.split(command)[1:], "--local", "--workers", 1], capsys)
        assert len(web.requests()) == 16
    assert after[0:2] == ["asks again for 15 images:", "            15  private_address: download.allowed_hosts changed"]
    assert after[-1] == "13 more rows kept than before"


@pytest.mark.whole
def test_a_list_of_words_says_what_was_expected_and_what_was_found(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("url,caption\nhttp://a.example/1,a red house by the sea\nhttp://a.example/2,12345\n")
    steps = [{"language": {"keep": ["fr"]}}]
    source = {"type": "url_list", "path": str(tmp_path / "a.csv")}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"source": source, "steps": steps}))
    lines = printed_by(["run", tmp_path / "r.yaml", "--out", tmp_path / "out", "--local", "--workers", 1], capsys)
    assert lines[lines.index(HEADING) + 1 :] == [
        "language took 2 of the 2 rows that reached it",
        "  keep: expected fr; found en (1), und (1)",
        "    this keeps them: --set 'language.keep=[fr, en, und]'",
    ]


@pytest.mark.whole
def test_unreadable_records_are_named_with_file_and_line(tmp_path, capsys):
    (tmp_path / "a.csv").write_text(
        "url,caption\n" + "".join(f"http://a.example/{n},b,c\n" for n in range(20)) + "http://a.example/c,b\n"
    )
    made = run(
        parse({"source": {"type": "url_list", "path": str(tmp_path / "a.csv")}}), tmp_path / "out", local=True, workers=1
    )
    lines = loss_lines(open_store(tmp_path / "out"), made, "OUT")
    assert lines[1:3] == ["source took 20 of the 21 rows that reached it", "  bad_record: 20 rows"]
    every = {f"    a.csv, line {n}: the row has 3 fields, but there are 2 columns" for n in range(2, 22)}
    assert set(lines[3:6]) < every and len(set(lines[3:6])) == 3
    assert lines[6] == "    more of them: vlmdata why OUT bad_record"


def test_the_nearest_rows_are_found_over_all_files_and_ranges(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmdata.report.read_ledger.RANGE", 7)
    given = {
        "key": [f"{n:03d}" for n in range(100)],
        "step": ["mine"] * 100,
        "reason": ["min_value"] * 100,
        "value": [(n * 37) % 100 / 100 for n in range(100)],
        "threshold": [1.0] * 100,
    }
    rows = pa.table({f.name: pa.array(given.get(f.name, [None] * 100), f.type) for f in LEDGER})
    (tmp_path / "ledger").mkdir()
    for number in range(2):
        pq.write_table(rows.slice(50 * number, 50), tmp_path / "ledger" / f"{number:05d}.parquet", row_group_size=11)
    store = open_store(tmp_path)
    facts = {
        "rows": 100,
        "kept": 0,
        "recipe": {"steps": [{"mine.Mine": {"min_value": 1.0}}, "broken", {}, {"x": 5}], "shards": {}},
        "dropped": [{"step": "mine", "reason": "min_value", "rows": 100}],
        "files": {"ledger/00000.parquet": {}, "ledger/00001.parquet": {}},
    }
    (loss,) = find_losses(store, facts)
    assert [one.value for one in loss.nearest["min_value"]] == [0.99, 0.98, 0.97]
    assert loss.cls is None  # the user's module is not imported


def test_a_module_that_a_foreign_dataset_names_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit(9)")
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = {"steps": [{"evil_module.Evil": {"label": ""}}], "shards": {}}
    facts = {
        "rows": 1,
        "kept": 0,
        "recipe": recipe,
        "files": {},
        "dropped": [{"step": "evil_module", "reason": "x", "rows": 1}],
    }
    assert find_losses(open_store(tmp_path), facts)[0].cls is None


@pytest.mark.whole
def test_a_missing_image_file_is_named_with_the_setting_of_its_folder(tmp_path):
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "b.png").write_bytes(b"")
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps([{"image": "a.png", "conversations": turns}]))
    source = {"type": "llava_json", "path": str(tmp_path / "?.json"), "images": str(tmp_path / "others")}
    recipe = parse({"source": source, "steps": ["resize"], "shards": {"layout": "documents"}})
    lines = loss_lines(open_store(tmp_path / "out"), run(recipe, tmp_path / "out", local=True, workers=1), "OUT")
    problem = "the row names the image 'a.png', and the folder of the images has no such file"
    assert sorted(lines[3:5]) == [f"    {name}.json, record 1: {problem}" for name in "ab"]
    assert lines[5] == f"    looked for in {tmp_path / 'others'}; to change it: --set source.images=FOLDER"
    (first, _) = why(tmp_path / "out", "no_file")
    assert first["problem"] == problem


@pytest.mark.whole
def test_rows_of_a_private_step_are_counted_but_not_named(tmp_path):
    (tmp_path / "words.txt").write_text("foulword\n")
    (tmp_path / "a.csv").write_text("url,caption\nhttp://secret.example/1,a foulword of a caption\n")
    source = {"type": "url_list", "path": str(tmp_path / "a.csv")}
    steps = [{"nsfw_words": {"words": str(tmp_path / "words.txt"), "max_share": 0.1}}]
    made = run(parse({"source": source, "steps": steps}), tmp_path / "out", local=True, workers=1)
    lines = loss_lines(open_store(tmp_path / "out"), made, "OUT")
    assert lines[1:3] == ["nsfw_words took 1 of the 1 row that reached it", "  words: 1 row"]
    assert not {"secret", "foulword", "why"} & set(re.findall(r"\w+", " ".join(lines)))


@pytest.mark.whole
def test_a_source_without_rows_says_so(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("url,caption\n")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"source": {"type": "url_list", "path": str(tmp_path / "a.csv")}}))
    lines = printed_by(["run", tmp_path / "r.yaml", "--out", tmp_path / "out", "--local", "--workers", 1], capsys)
    assert lines[-1] == "The source has no rows." and manifest(tmp_path / "out")["rows"] == 0


@pytest.mark.whole
def test_with_json_the_reasons_for_the_loss_go_to_standard_error(tmp_path, capsys):
    for number in range(4):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "pictures" / f"{number}.jpg").write_bytes(picture(number))
    source = {"type": "files", "path": str(tmp_path / "pictures")}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"source": source, "steps": [RESIZE, {"image_size": {"min_side": 200}}]}))
    command = ["run", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "out"), "--local", "--workers", "1", "--json"]
    assert main(command) == 0
    written = capsys.readouterr()
    assert json.loads(written.out)["kept"] == 0
    assert f"vlmdata: {HEADING}\n" in written.err and "--set image_size.min_side=" in written.err
    assert main([*command, "--quiet"]) == 0
    assert HEADING not in capsys.readouterr().err
