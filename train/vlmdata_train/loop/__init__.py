"""The training loop: steps, loss, optimizer, log, evaluation."""
