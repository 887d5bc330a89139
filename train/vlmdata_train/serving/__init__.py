"""Serves a checkpoint over HTTP in the form of OpenAI's API.

`http_server.py` receives requests, `request.py` reads and checks them, `prompting.py` makes their prompts, and `engine.py`
answers them in batches with `generation.py`. One thread owns the model; each connection has a thread of its own.
"""
