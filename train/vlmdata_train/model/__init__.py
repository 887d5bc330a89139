"""The vision-language model: its parts joined, attention, LoRA, generation."""
