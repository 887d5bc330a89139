"""The vision-language model: its parts, attention, LoRA and generation."""
