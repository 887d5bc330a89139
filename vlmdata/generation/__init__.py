"""What steps that ask a generator share: the parameter `generator`, prompts with images, and the base class of the steps."""
