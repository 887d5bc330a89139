"""How families of models write boxes as text, one file for each form."""
