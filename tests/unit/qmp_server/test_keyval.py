"""``key=value,...`` and JSON on the command line."""

from typing import Any

import pytest

from blockemu.qmp_server.errors import ProtocolError
from blockemu.qmp_server.keyval import parse_keyval, parse_option


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        (
            "qcow2,file.driver=file,file.filename=a,,b",
            {"driver": "qcow2", "file": {"driver": "file", "filename": "a,b"}},
        ),
        ("driver=x,a.1=q,a.0.b=p", {"driver": "x", "a": [{"b": "p"}, "q"]}),
        ("a=1,a=2", {"a": "2"}),
        ("a=,b==", {"a": "", "b": "="}),
        ("a=1,", {"a": "1"}),
        ("", {}),
    ],
)
def test_keyval_makes_a_tree(text: str, tree: Any) -> None:
    assert parse_option(text, "driver") == (tree, True)


def test_json_is_no_keyval() -> None:
    assert parse_option("{'a': [1, true]}") == ({"a": [1, True]}, False)


def test_help_is_told_apart() -> None:
    assert parse_keyval("driver=x,help", help_ok=True) == ({"driver": "x"}, True)
    assert parse_keyval("?", "driver", help_ok=True) == ({}, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x,size", "Expected '=' after parameter 'size'"),
        ("=1", "Invalid parameter ''"),
        ("a..b=1", "Invalid parameter 'a..b'"),
        ("9=1", "Invalid parameter '9'"),
        ("a.0=1,a.b=2", "Parameters 'a.*' used inconsistently"),
        ("a=1,a.b=2", "Parameters 'a.*' used inconsistently"),
        ("a.b=1,a=2", "Parameters 'a.*' used inconsistently"),
        ("a.1=1", "Parameter 'a.0' missing"),
        ("a.0=1,a.7=1", "Parameter 'a.1' missing"),
        ("x" * 128 + "=1", f"Parameter '{'x' * 128}' is too long"),
        ("a." + "x" * 128 + "=1", f"Parameter fragment '{'x' * 128}' is too long"),
        ("help", "Help is not available for this option"),
        ("{'a'", "JSON parse error, premature EOI"),
        ("{} {}", "Expecting at most one JSON value"),
        ("{'a': %d}", "JSON parse error, stray '%'"),
    ],
)
def test_bad_options_are_refused_in_qemus_words(text: str, words: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_option(text, "driver")
    assert str(caught.value) == words
