"""Language models. A part answers `build(vocabulary)`, a Hugging Face causal language model with at least so many
tokens, `width()` without weights, and `load_tokenizer()`."""
