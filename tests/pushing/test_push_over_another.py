"""A push replaces another build of its dataset, and another dataset or format only if the user says so."""

import itertools
import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from tests.engine.site import manifest
from tests.exporting.made import chat, content, make_dataset
from tests.hub_server import TOKEN, HubServer
from tests.pushing.pushed import REPO, export_of, forget_tar, in_repository, travelling
from vlmdata import RecipeError, export, push
from vlmdata.cli import main
from vlmdata.pushing.identity import identify

pytestmark = pytest.mark.whole


def test_files_that_a_user_added_to_the_repository_stay(hub, out):
    push(out, REPO)
    api = huggingface_hub.HfApi(endpoint=hub.url, token=TOKEN)
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="LICENSE", repo_id=REPO, repo_type="dataset")
    push(out, REPO)
    assert in_repository(hub) == {**travelling(out), "LICENSE": b"mine"}


def test_a_repository_with_other_files_is_refused(hub, out):
    api = huggingface_hub.HfApi(endpoint=hub.url, token=TOKEN)
    api.create_repo(REPO, repo_type="dataset")
    api.upload_file(path_or_fileobj=b"theirs", path_in_repo="00000.tar", repo_id=REPO, repo_type="dataset")
    with pytest.raises(RecipeError, match=r"holds files that vlmdata did not push, such as 00000\.tar"):
        push(out, REPO)
    assert in_repository(hub) == {"00000.tar": b"theirs"}


def edited(hub: HubServer, change) -> None:
    """Commit another README.md, as a user does on the site of the Hub."""
    card = change(in_repository(hub)["README.md"].decode())
    api = huggingface_hub.HfApi(endpoint=hub.url, token=TOKEN)
    api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=REPO, repo_type="dataset")


def built_with(out: Path, change, **facts: str) -> None:
    """Rewrite the manifest of a dataset with another recipe and other facts, as another build does."""
    found = {**manifest(out), **facts}
    change(found["recipe"])
    (out / "manifest.json").write_text(json.dumps(found))


def other_source(recipe):
    recipe["source"]["path"] = "/data/dogs.parquet"


def test_a_card_whose_aliases_make_it_huge_is_read_in_a_moment(tmp_path):
    card = (export_of(tmp_path, "tars") / "README.md").read_bytes()
    names = "abcdefghijklmnop"
    steps = "".join(f"- &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in itertools.pairwise(names))
    bomb = card.replace(b"steps: []\n", f"steps:\n- &a [x]\n{steps}".encode())
    assert bomb != card and identify(["00000.tar"], bomb, None).recipe is None
    assert identify(["00000.tar"], card, None).recipe["steps"] == []


@pytest.mark.parametrize("text", [b"", b"\xff", b"[]", b"{", b"[" * 5000, b'{"recipe": 1}'])
def test_a_manifest_of_something_else_shows_no_owner(text):
    assert identify(["manifest.json"], None, text) is None


def test_another_dataset_is_replaced_only_if_the_user_says_so(hub, out, tmp_path):
    push(out, REPO)
    before, other = in_repository(hub), shutil.copytree(out, tmp_path / "other")
    built_with(other, other_source, source="fingerprint of other files")
    with pytest.raises(RecipeError, match=rf"{REPO} holds a dataset of `vlmdata run` from another source\. Add --replace to"):
        push(other, REPO)
    assert in_repository(hub) == before
    assert main(["push", str(other), REPO, "--replace", "--quiet"]) == 0
    assert in_repository(hub) == travelling(other)


def test_another_build_of_the_same_dataset_needs_no_flag(hub, out):
    def more(recipe):
        fetch = next(step["download"] for step in recipe["steps"] if "download" in step)
        fetch["timeout_s"] += 10  # as `vlmdata retry --set download.timeout_s=...` does
        recipe["steps"].append({"text_length": {"min_words": 2}})
        recipe["shards"]["samples"] *= 2
        recipe["source"]["a_later_parameter"] = 1

    push(out, REPO)
    built_with(out, more)
    forget_tar(out, "00001.tar")
    push(out, REPO)
    assert in_repository(hub) == travelling(out)


def test_an_export_does_not_replace_an_export_to_another_format_of_parquet(hub, tmp_path):
    make_dataset(tmp_path / "chats", map(chat, range(5)), layout="documents")
    made = {"parquet": {}, "messages": {"form": "parquet"}}
    for to, options in made.items():
        export(tmp_path / "chats", tmp_path / to, to=to, options=options)
    push(tmp_path / "messages", REPO)
    with pytest.raises(RecipeError, match="holds an export to messages, and not an export to parquet"):
        push(tmp_path / "parquet", REPO)
    push(tmp_path / "parquet", REPO, revision="parquet")
    assert in_repository(hub, "parquet") == content(tmp_path / "parquet")
    assert in_repository(hub) == content(tmp_path / "messages")


def test_a_card_of_the_site_of_the_hub_is_replaced_only_if_the_user_says_so(hub, out):
    api = huggingface_hub.HfApi(endpoint=hub.url, token=TOKEN)
    api.create_repo(REPO, repo_type="dataset")
    card = b"---\nlicense: mit\n---\n"
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=REPO, repo_type="dataset")
    with pytest.raises(RecipeError, match=r"holds only a README\.md that vlmdata did not write\. Add --replace to replace it"):
        push(out, REPO)
    assert in_repository(hub) == {"README.md": card}
    push(out, REPO, replace=True)
    assert in_repository(hub) == travelling(out)


def test_a_dataset_whose_card_was_edited_is_recognized_by_its_manifest(hub, out):
    push(out, REPO)
    edited(hub, lambda card: "# Cats\n")
    push(out, REPO)
    assert in_repository(hub) == travelling(out)


def test_an_export_whose_card_lost_its_tag_is_refused_with_the_way_out(hub, tmp_path):
    folder = export_of(tmp_path, "tars")
    push(folder, REPO)
    edited(hub, lambda card: card.replace("- vlmdata\n", "- cats\n"))
    with pytest.raises(
        RecipeError, match=r"did not push.*If an earlier push wrote them, add the tag `vlmdata` to the metadata"
    ):
        push(folder, REPO, replace=True)
    edited(hub, lambda card: card.replace("- cats\n", "- vlmdata\n"))
    push(folder, REPO)
    assert in_repository(hub) == content(folder)


def test_an_export_whose_card_lost_its_recipe_is_recognized_by_a_common_tar(hub, tmp_path):
    folder = export_of(tmp_path, "tars")
    push(folder, REPO)
    edited(hub, lambda card: card.partition("## Recipe")[0])
    other = shutil.copytree(folder, tmp_path / "other")
    for tar in other.glob("*.tar"):
        tar.write_bytes(tar.read_bytes() + bytes(512))
    with pytest.raises(RecipeError, match="holds an export to tars, which may be another dataset"):
        push(other, REPO)
    (other / "00000.tar").write_bytes((folder / "00000.tar").read_bytes())
    push(other, REPO)
    assert in_repository(hub) == content(other)


def test_an_export_replaces_all_files_of_another_format(hub, tmp_path):
    made = [export_of(tmp_path, to) for to in ("energon", "mds", "img2dataset", "tars", "hf", "parquet")]
    for number, folder in enumerate(made):
        before = in_repository(hub) if number else {}
        if number:
            with pytest.raises(
                RecipeError, match=rf"holds an export to {made[number - 1].name}, and not an export to {folder.name}"
            ):
                push(folder, REPO)
            assert in_repository(hub) == before
        push(folder, REPO, replace=True)
        assert in_repository(hub) == content(folder)


def test_a_source_that_was_moved_to_another_folder_is_the_same(hub, out):
    push(out, REPO)
    built_with(out, lambda recipe: recipe["source"].update(path="/moved/" + Path(recipe["source"]["path"]).name))
    push(out, REPO)
    assert in_repository(hub) == travelling(out)
