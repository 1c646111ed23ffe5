"""What the data path raises: ``OSError``, with the text that belongs to its number."""

import os


def os_error(code: int) -> OSError:
    """Return the error of an errno."""
    return OSError(code, os.strerror(code))
