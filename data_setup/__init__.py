"""Prepares data folders: ``python -m data_setup NAME --root FOLDER``.

Each command fills a folder with ``images/``, ``masks/`` where there are any,
``dataset.json`` (how it was made), ``SHA256SUMS`` and, last of all, ``manifest.csv``:
a folder with a manifest is complete. See `derm_hash.data` for the manifest's columns.
"""
