"""What a push to the Hugging Face Hub needs: the files that travel, the repository, and failures in plain words."""
