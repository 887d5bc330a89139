"""The sources that a recipe can name, one file each."""
