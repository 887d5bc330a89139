"""Language models. Methods of a part:

- `build(tokenizer)` returns a Hugging Face causal language model with an embedding for each token of the tokenizer,
- `width()` returns the width of its embeddings, without loading weights,
- `load_tokenizer(image=, literals=)` returns its tokenizer, with an image token and the tokens that are written for images.
"""
