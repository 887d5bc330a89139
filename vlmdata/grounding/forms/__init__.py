"""The forms of grounded text, a file for each family of models. A new form is one file with `FORM`, and its test."""
