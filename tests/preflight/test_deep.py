"""`vlmdata check --deep` fetches a sample, runs the cheap steps on it, and says what it found."""

import os
import subprocess
import sys

import yaml

from tests.engine.site import site
from vlmdata.cli import main
from vlmdata.demo.recipe import HERE


def test_deep_says_what_each_step_keeps_of_a_sample(tmp_path, capsys):
    with site(tmp_path, 64) as web:
        tree = yaml.safe_load(web.recipe.read_text())
        clip = {"clip_score": {"model": f"local-dir:{HERE / 'clip'}"}}
        tree["steps"] += ["dedupe_phash", clip, {"top_fraction": {"score": "clip_score", "fraction": 0.5}}, "image_detail"]
        web.recipe.write_text(yaml.safe_dump(tree))
        assert main(["check", str(web.recipe), "--out", str(tmp_path / "out"), "--deep"]) == 0
        fetched = len(web.requests())
    lines = capsys.readouterr().out.splitlines()
    assert f"{tmp_path}/out: a file could be written, read and deleted" in lines
    assert "sample: 32 rows" in lines and 0 < fetched <= 32
    assert any(line.startswith("  download + resize: ") and "kept (" in line for line in lines)
    assert any(line.startswith("  image_size: ") and line.endswith(("kept", ")")) for line in lines)
    assert "  dedupe_phash: not tried, because it must see all rows" in lines
    assert "  clip_score: not tried, because it loads a model" in lines
    assert any(line.startswith("  image_detail: ") for line in lines)
    assert any("64 rows of " in line and "(the mean of the sample)" in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_deep_notes_a_step_that_drops_the_whole_sample(tmp_path, capsys):
    with site(tmp_path, 16) as web:
        tree = yaml.safe_load(web.recipe.read_text())
        tree["steps"][-1] = {"image_size": {"min_side": 2000}}
        web.recipe.write_text(yaml.safe_dump(tree))
        assert main(["check", str(web.recipe), "--deep"]) == 0
    captured = capsys.readouterr()
    assert "image_size drops every row of the sample (min_side" in captured.err
    assert "  kept by the steps that were tried: 0 of 16" in captured.out


def test_deep_counts_the_reasons_that_it_does_not_name(tmp_path, capsys):
    texts = ["a b", "a b", "a b c d e f", "a b c d e f", "a b c", "a b c", f"a b {'c' * 50}", f"a b {'d' * 50}", "a fine cat"]
    rows = "".join(f"https://e.example/{number}.jpg,{text}\n" for number, text in enumerate(texts))
    (tmp_path / "a.csv").write_text(f"url,caption\n{rows}")
    limits = "{min_words: 3, max_words: 5, min_chars: 6, max_chars: 30}"
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"source: {{type: url_list, path: {tmp_path}/a.csv}}\nsteps: [text_length: {limits}]\n")
    assert main(["check", str(recipe), "--deep"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  text_length: ")]
    assert line.startswith("  text_length: 1 of 9 kept (") and line.endswith(", others 2)") and line.count(" 2") == 4


def test_deep_asks_the_hub_for_weights_that_are_not_here(tmp_path):
    """The hub is a server on the loopback address that does not have the repository."""
    code = (
        "import sys; from vlmdata.cli import main; from tests.servers import LoopbackServer\n"
        "with LoopbackServer() as hub:\n"
        "    import os; os.environ['HF_ENDPOINT'] = hub.url(''); os.environ.pop('HF_HUB_OFFLINE', None)\n"
        "    sys.exit(main(['check', 'r.yaml', '--deep']))\n"
    )

    (tmp_path / "a.csv").write_text("url,caption\nhttps://e.example/1.jpg,a cat on a mat\n")
    (tmp_path / "r.yaml").write_text(
        "source: {type: url_list, path: a.csv}\n"
        "steps: [{download: {contact: a@b.org}}, {clip_score: {model: ViT-B-32, pretrained: openai}}]\n"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "the weights of ViT-B-32 openai cannot be downloaded from timm/vit_base_patch32_clip_224.openai" in line
