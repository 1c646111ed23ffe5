"""File names: paths, protocols, json: options."""

from __future__ import annotations

from typing import Any

import pytest

from blockemu import filenames, paths
from blockemu.errors import QmpError


@pytest.mark.parametrize(
    ("base", "name", "combined"),
    [
        ("image", "base", "base"),
        ("dir/image", "base", "dir/base"),
        ("dir/image", "/base", "/base"),
        ("/a/b/image", "../base", "/a/b/../base"),
        ("image", "", ""),
        ("dir/image", "", "dir/"),
        ("nbd://host/export", "other", "nbd://host/other"),
        ("ftp:image", "base", "ftp:base"),
        ("ftp:dir/image", "base", "ftp:dir/base"),
        ("dir/a:b", "base", "dir/base"),
        ("a:", "base", "a:base"),
    ],
)  # fmt: skip
def test_names_are_relative_to_a_folder_and_keep_its_protocol(
    base: str, name: str, combined: str
) -> None:
    assert paths.combine(base, name) == combined


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("a:b", True),
        (":", True),
        ("a/b:c", False),
        ("/a:b", False),
        ("a", False),
        ("", False),
        ("./a:b", False),
    ],
)
def test_a_protocol_ends_at_the_first_colon_before_any_slash(name: str, has: bool) -> None:
    assert paths.has_protocol(name) is has


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("file:a", "a"),
        ("file:/a:b", "/a:b"),
        ("file:a:b", "./a:b"),
        ("file:file:a", "./file:a"),
        ("a", "a"),
        ("file:", ""),
    ],
)
def test_a_stripped_prefix_does_not_uncover_another(name: str, path: str) -> None:
    assert paths.strip_protocol(name, "file:") == path


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ('{"driver": "raw"}', {"driver": "raw"}),
        ("{'driver': 'raw'}", {"driver": "raw"}),
        ("{}", {}),
        (
            '{"file.driver": "file", "file.filename": "x"}',
            {"file": {"driver": "file", "filename": "x"}},
        ),
        (
            '{"file": {"driver": "file"}, "file.filename": "x"}',
            {"file": {"driver": "file", "filename": "x"}},
        ),
        (
            '{"file.driver": "file", "file": {"driver": "nbd", "host": "h"}}',
            {"file": {"driver": "file", "host": "h"}},
        ),
        ('{"file": {"server.type": "unix"}}', {"file": {"server": {"type": "unix"}}}),
        ('{"children.0": "a", "children.1": "b"}', {"children": ["a", "b"]}),
        ('{"children.0.driver": "raw"}', {"children": [{"driver": "raw"}]}),
        ('{"children": ["a", "b"]}', {"children": ["a", "b"]}),
        ('{"a.1": "b"}', {"a": {"1": "b"}}),
        ('{"backing": null}', {"backing": None}),
    ],
)
def test_json_names_nest_as_dotted_keys_do(text: str, options: Any) -> None:
    assert filenames.parse_json(f"json:{text}") == options


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "Could not parse the JSON options: Expecting a JSON value"),
        ("{} {}", "Could not parse the JSON options: Expecting at most one JSON value"),
        ("[]", "Invalid JSON object given"),
        ("1", "Invalid JSON object given"),
        (
            '{"file": "x", "file.driver": "raw"}',
            "Cannot reference an existing block device with additional options or a new filename",
        ),
    ],
)
def test_what_is_not_one_object_is_refused(text: str, error: str) -> None:
    with pytest.raises(QmpError) as raised:
        filenames.parse_json(f"json:{text}")
    assert str(raised.value) == error


class Plain:
    protocols = ("file",)


class Net:
    protocols = ("nbd", "nbd+unix")


class Device:
    protocols = ()

    @classmethod
    def probe_device(cls, filename: str) -> int:
        return 100 if filename.startswith("/dev/") else 0


class Disc(Device):
    @classmethod
    def probe_device(cls, filename: str) -> int:
        return 101 if filename == "/dev/sr0" else 0


DRIVERS: Any = {"file": Plain, "nbd": Net, "host_device": Device, "host_cdrom": Disc}


@pytest.mark.parametrize(
    ("name", "driver"),
    [
        ("image", "file"), ("file:image", "file"), ("nbd:host:1", "nbd"), ("nbd+unix:///x", "nbd"),
        ("/dev/sda", "host_device"), ("/dev/sr0", "host_cdrom"), ("/dev/disk/by-id/a:b", "host_device"),
        ("./nbd:x", "file"),
    ],
)  # fmt: skip
def test_the_driver_is_found_by_device_then_by_protocol(name: str, driver: str) -> None:
    assert filenames.find_protocol(name, DRIVERS) == driver


def test_a_colon_means_nothing_in_names_that_come_from_an_image_or_an_option() -> None:
    for name in ("nbd:host:1", "json:{}", "nosuch:x"):
        assert filenames.find_protocol(name, DRIVERS, allow_prefix=False) == "file"
    assert filenames.find_protocol("/dev/sda", DRIVERS, allow_prefix=False) == "host_device"


@pytest.mark.parametrize("name", ["nosuch:x", "json:{}", ":", "file+x:"])
def test_an_unknown_protocol_is_refused(name: str) -> None:
    with pytest.raises(filenames.UnknownProtocol, match="Unknown protocol '"):
        filenames.find_protocol(name, DRIVERS)


class Sure:
    protocols = ()

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        return 100 if head.startswith(b"SURE") else 0


class Last(Sure):
    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        return 1


def test_the_surest_format_wins_and_raw_comes_last() -> None:
    drivers: Any = {"raw": Last, "sure": Sure, "file": Plain}
    assert filenames.probe(b"SURE....", "x", drivers) == "sure"
    assert filenames.probe(b"\0" * 512, "x", drivers) == "raw"
