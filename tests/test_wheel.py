"""pip installs two packages and nothing else on the top level, with recipes, schemas and the demo's files."""

import subprocess
import sys
import zipfile

import pytest

from tests.wheels import build

pytestmark = pytest.mark.whole


def test_the_wheel_holds_two_packages_and_their_data(tmp_path):
    build(tmp_path, "sdist", "wheel")
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"vlmdata", "vlmdata_train"}
    for needed in (
        "vlmdata/pipelines/build/captions.yaml",
        "vlmdata/pipelines/train/tiny.yaml",
        "vlmdata/schemas/manifest.json",
        "vlmdata/demo/clip/open_clip_model.safetensors",
        "vlmdata/demo/figures.jsonl",
        "vlmdata/report/page.html",
        "vlmdata/py.typed",
        "vlmdata_train/py.typed",
    ):
        assert needed in names
    assert sorted(name for name in names if name.startswith("vlmdata/schemas/")) == [
        f"vlmdata/schemas/{name}.json" for name in ("cli", "manifest", "sample")
    ]
    assert sum(name.startswith("vlmdata/demo/figures/") for name in names) == 220


def test_importing_vlmdata_imports_no_torch():
    code = "import sys, vlmdata, vlmdata.cli, vlmdata.row, vlmdata.recipe; print('torch' in sys.modules, 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
