"""Language models. Methods of a part:

- `build(vocabulary)` returns a Hugging Face causal language model with at least `vocabulary` tokens,
- `width()` returns the width of its embeddings, without loading weights,
- `load_tokenizer()` returns its tokenizer.
"""
