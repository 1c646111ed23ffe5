"""Choices between JSON types that several commands offer (qapi/common.json)."""

from typing import Annotated

from blockemu.qmp_server.qapi import Alternate

StrOrNull = Annotated[str | None, Alternate("StrOrNull", (str, None))]
