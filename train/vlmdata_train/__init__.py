"""Train vision-language models on what vlmdata built."""
