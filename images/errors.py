"""What is wrong with an image, in QEMU's words."""

from typing import ClassVar


class FormatError(Exception):
    """The bytes are not a valid image; the text is a template on the class, filled with values.

    ``hint``: what QEMU adds for people, with its line end.
    """

    template: ClassVar[str] = "{}"
    hint = ""

    def __init__(self, *values: object) -> None:
        super().__init__(self.template.format(*values))
