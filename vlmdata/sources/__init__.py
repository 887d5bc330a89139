"""The sources a recipe can name, one file each."""
