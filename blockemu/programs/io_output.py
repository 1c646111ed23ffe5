"""Standard output as the C library writes it.

A terminal gets each line at once; all else is held back until there is a block of it or the program
ends.  So what goes to standard error meanwhile stands before it where both are one file, which
programs that read both rely on; and what is held back is lost when the program crashes.
"""

import os


class StandardOutput:
    """Text for a file descriptor."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._held = bytearray()
        self._at_once = os.isatty(fd)
        try:
            self._block = os.fstat(fd).st_blksize or 4096
        except OSError:
            self._block = 4096  # closed

    def write(self, text: str) -> None:
        """Write, or hold back."""
        self._held += text.encode(errors="surrogateescape")
        if self._at_once:
            self.flush()
        elif len(self._held) > self._block:
            self._pass_on(len(self._held) // self._block * self._block)

    def flush(self) -> None:
        """Hold nothing back any longer."""
        self._pass_on(len(self._held))

    def _pass_on(self, count: int) -> None:
        data = memoryview(bytes(self._held[:count]))
        del self._held[:count]
        while data:
            data = data[os.write(self._fd, data) :]
