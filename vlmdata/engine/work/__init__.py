"""Work on one partition: read it, run the steps, commit new measurements."""
