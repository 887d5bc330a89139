"""Upload a finished dataset, or an export with a card, to the Hugging Face Hub.

The token is that of `hf auth login` or HF_TOKEN. The repository is public unless you give --private: anyone can then download
the images. The same command continues an upload that was interrupted. Pushed again, a dataset replaces the files that changed,
and files that it no longer has are deleted; another dataset needs --replace. work/ is never uploaded.
"""

import click

from vlmdata.verbs import PATH, Verb, argument, folders, json_option, print_json

EXAMPLES = """
vlmdata push OUT jane/cats --private
vlmdata push OUT jane/cats --dry-run
vlmdata push EXPORTED jane/cats --revision parquet
vlmdata push OTHER jane/cats --replace
"""


@click.command(cls=Verb)
@argument("out", "a finished dataset, or an exported folder with a README.md", type=PATH, shell_complete=folders)
@argument("repo", "dataset repository, as USER/NAME; created if it does not exist")
@click.option("--private", is_flag=True, help="create the repository as private; an existing public one is refused")
@click.option(
    "--revision", metavar="BRANCH", help="branch to write to; created from main if it does not exist  [default: main]"
)
@click.option("--replace", is_flag=True, help="also replace another dataset or format that an earlier push wrote there")
@click.option("--dry-run", is_flag=True, help="only list the files and their sizes")
@json_option
def command(
    out: str, repo: str, private: bool, revision: str | None, replace: bool, dry_run: bool, as_json: bool
) -> None:  # fmt: skip
    from vlmdata.notes import note, tell
    from vlmdata.push_dataset import push
    from vlmdata.sizes import counted, megabytes

    done = push(out, repo, private=private, revision=revision, replace=replace, dry_run=dry_run)
    size = megabytes(sum(file["bytes"] for file in done["files"]))
    if not dry_run and any(name.endswith((".tar", ".parquet", ".arrow")) for name in done["replaced"] + done["deleted"]):
        note("earlier commits and other branches may still hold the old files; docs/cookbook.md says how to erase them")
    if as_json:
        print_json(done)
    elif dry_run:
        for file in done["files"]:
            print(f"{file['bytes']:>15,}  {file['name']}")
        print(f"{counted(len(done['files']), 'file')}, {size}, would be in {repo}")
    else:
        for name in done["deleted"]:
            tell(f"deleted from the repository: {name}")
        same = len(done["files"]) - done["uploaded"]
        seen = "private" if done["private"] else "public"
        tell(f"{done['url']} ({seen}): {counted(len(done['files']), 'file')}, {size}; {same:,} of them were there before")
