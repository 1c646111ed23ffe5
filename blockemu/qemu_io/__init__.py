"""qemu-io's command language: for the human monitor, and for the program of that name.

``Interpreter`` runs one line at a time.  ``commands`` has all commands, which the modules
``requests``, ``aio``, ``image`` and ``control`` define; ``options``, ``sizes`` and ``report`` are
about text only.
"""
