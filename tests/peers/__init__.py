"""Reads exports back with the real libraries: `make peers`, or `make peers PEERS="trl mds"`.

Each library (a peer) is one file, `checks/NAME.py`, and gets an environment of its own, because libraries pin versions that do
not fit each other or ours. A check is stand-alone: it imports the standard library and its peer only, and never vlmdata. Its
constants are literals, which the driver reads without importing the file:

* `REQUIREMENTS`: what is installed for it, such as `["trl==1.16", "pillow"]`.
* `EXPORTS`: what it reads: `[{"data": "chats", "to": "messages", "options": {"form": "parquet"}}]`. `data` is a dataset of
  `made.py`: captions, documents or chats. `to` is the name of a format, or None for the dataset itself. `options` may be left
  out.
* `INSTALL`, if needed: further arguments for the installer, such as `["--no-deps"]`.

The driver runs `ENV/bin/python checks/NAME.py FOLDER EXPECTED DATA` once for each entry, in an empty folder, without a hub
(HF_HUB_OFFLINE) and with PYTHONSAFEPATH, so that `import trl` in `checks/trl.py` finds the library. FOLDER is the export and
DATA is the dataset. EXPECTED is a file of JSON lines, one for each sample that the export holds, in the order of the dataset:

* `key`
* `texts`: the texts in order, without positions of images. A caption pair has one.
* `roles`: the role of each text (user, assistant, system or tool), or null if the sample is no conversation.
* `images`: the SHA-256 of the bytes of each image, in order.
* `kind`: captions, documents or conversations.

The check compares what its peer gives with EXPECTED. If something differs, it exits with a message that says what. Otherwise
the last line that it prints is JSON: `{"samples": 40, "images": 40, "seconds": 1.5, "version": "1.16.0"}`. It may add `note`, a
short text for the table, such as the number of samples that the peer skips by its own rules.
"""
