"""What a worker does with one partition: read it, run the steps, commit what is new."""
