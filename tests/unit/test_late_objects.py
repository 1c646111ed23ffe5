"""Kinds of objects that are imported when they are asked for."""

import subprocess
import sys

import pytest

ASK = """
from blockemu.objects.object_options import parse_object
from blockemu.qmp_server.profile import ALL

print(parse_object({text!r}, ALL).tag)
"""
TEXTS = {
    "tls-creds-x509,id=x,dir=/nowhere,endpoint=server": "tls-creds-x509",
    '{"qom-type": "tls-creds-psk", "id": "x"}': "tls-creds-psk",
    "authz-simple,id=a,identity=me": "authz-simple",
    "secret,id=s,data=x": "secret",
}


@pytest.mark.parametrize("text", TEXTS)
def test_an_object_on_the_command_line_is_the_first_that_asks_for_its_kind(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK.format(text=text)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == TEXTS[text], done.stderr
