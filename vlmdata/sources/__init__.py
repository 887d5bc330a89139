"""The sources of recipes, one file each."""
