"""A page of HTML as an interleaved document."""
