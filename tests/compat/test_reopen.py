"""blockdev-reopen: what may change, and what the disk reads afterwards."""

from pathlib import Path

import pytest
from compat.daemon import Both, Daemon, image
from compat.test_mirror import fill

MIB = 1 << 20


def two_images(folder: Path) -> None:
    """Two images whose tables differ."""
    for name, command in (("a", "write -q -P 1 0 1M"), ("b", "write -q -P 2 2M 1M")):
        image("create", "-f", "qcow2", f"{name}.qcow2", "3M", cwd=folder)
        fill(folder, f"{name}.qcow2", command)


def options(daemon: Daemon, name: str, file: str | None = None) -> dict[str, object]:
    path = str(daemon.folder / f"{name}.qcow2")
    inline = {"driver": "file", "node-name": f"{name}-file", "filename": path}
    return {"driver": "qcow2", "node-name": name, "file": file or inline}


def test_two_images_exchange_their_files(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        daemon("blockdev-add", options(daemon, "a"))
        daemon("blockdev-add", options(daemon, "b"))
        daemon.write("a", 65536, 4096, 3)
        daemon.write("b", 65536, 4096, 4)
        for one, other in (("a", "b"), ("b", "a")):
            wrong = [options(daemon, one, f"{other}-file")]
            assert "error" in daemon.execute("blockdev-reopen", options=wrong)
        swapped = [options(daemon, "a", "b-file"), options(daemon, "b", "a-file")]
        daemon("blockdev-reopen", options=swapped)
        daemon.verify("a", 65536, 4096, 4)
        daemon.verify("a", 2 * MIB, MIB, 2)
        daemon.verify("b", 65536, 4096, 3)
        daemon.write("a", MIB, 65536, 5)
        back = [options(daemon, "a", "a-file"), options(daemon, "b", "b-file")]
        daemon("blockdev-reopen", options=back)
        daemon.verify("a", 65536, 4096, 3)
        daemon.verify("b", MIB, 65536, 5)
        daemon.verify("b", 2 * MIB, MIB, 2)
        daemon("query-named-block-nodes", flat=True)

    for daemon in both(script, prepare=two_images):
        for name in "ab":
            assert "No errors" in image("check", f"{name}.qcow2", cwd=daemon.folder)


@pytest.mark.parametrize("value", [False, True])
def test_force_share_cannot_be_changed(both: Both, value: bool) -> None:
    def script(daemon: Daemon) -> None:
        first = options(daemon, "a")
        daemon("blockdev-add", first)
        daemon.execute("blockdev-reopen", options=[first | {"force-share": value}])
        daemon("blockdev-add", options(daemon, "b") | {"force-share": True, "read-only": True})
        again = options(daemon, "b") | {"read-only": True}
        daemon.execute("blockdev-reopen", options=[again | {"force-share": value}])
        daemon.execute("blockdev-reopen", options=[again])

    both(script, prepare=two_images)


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("discard", ["ignore", "unmap"])
@pytest.mark.parametrize("flag", ["", "-u"])
def test_zeroes_drop_clusters_where_the_guest_and_children_let_them(
    both: Both, above: bool, discard: str, flag: str
) -> None:
    """What a root asks for is done by its node whatever ``discard`` says; children obey it."""

    def script(daemon: Daemon) -> None:
        node = options(daemon, "a") | {"discard": discard}
        raw = {"driver": "raw", "node-name": "top", "file": node}
        daemon("blockdev-add", raw if above else node)
        daemon.guest("top" if above else "a", f"write -z {flag} 0 128k")

    shown = [
        image("map", "--output=json", "a.qcow2", cwd=daemon.folder).splitlines()[0]
        for daemon in both(script, prepare=two_images)
    ]
    assert shown[0] == shown[1]


def test_a_compress_filter_is_put_in_and_taken_out(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        raw = {"driver": "raw", "node-name": "top", "file": options(daemon, "a")}
        daemon("blockdev-add", raw)
        daemon("blockdev-add", driver="compress", node_name="filter", file="a")
        daemon.guest("top", "write -z -u 0 128k")
        daemon.write("top", 0, 65536, 7)
        daemon("blockdev-reopen", options=[raw | {"file": "filter"}])
        daemon.write("top", 65536, 65536, 8)
        daemon("blockdev-reopen", options=[raw | {"file": "a"}])
        daemon.verify("top", 0, 65536, 7)
        daemon.verify("top", 65536, 65536, 8)

    for daemon in both(script, prepare=two_images):
        told = image("check", "a.qcow2", cwd=daemon.folder)
        assert "6.25% compressed" in told, told
