"""Write a small WordNet in the files of the real one."""

from pathlib import Path

INDEX = {
    "noun": [
        "dog n 2 1 @ 2 1 02084071 10114209",
        "man n 1 0 1 1 10287213",
        "watch n 1 0 1 1 04555897",
        "mouse n 1 0 1 1 02330245",
        "knife n 1 0 1 1 03623556",
        "box n 1 0 1 1 02883344",
        "glass n 1 0 1 1 14881303",
        "lens n 1 0 1 1 03656484",
    ],
    "verb": ["run v 1 0 1 1 01926311", "dog v 1 0 1 1 02001858", "bake v 1 0 1 1 00319886"],
    "adj": ["red a 1 0 1 1 00381097", "big a 1 0 1 1 01382086"],
    "adv": ["fast r 1 0 1 1 00086000"],
}
EXCEPTIONS = {"noun": ["mice mouse", "knives knife"], "verb": ["ran run"], "adj": ["bigger big"], "adv": []}


def small_wordnet(folder: Path) -> Path:
    """Write the files and return the folder."""
    folder.mkdir()
    for part, lines in INDEX.items():
        (folder / f"index.{part}").write_text("  1 This is the licence.\n" + "".join(f"{line}  \n" for line in sorted(lines)))
        (folder / f"{part}.exc").write_text("".join(f"{line}\n" for line in EXCEPTIONS[part]))
    return folder
