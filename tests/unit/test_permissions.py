"""Permissions over a graph: how they go down, who conflicts, and that a refusal changes nothing."""

from __future__ import annotations

import pytest
from fakes import KIB, Disk, Machine
from unit.test_drain import stack

from blockemu.backend import Backend
from blockemu.errors import PermissionConflict, QmpError, ReadOnlyNode
from blockemu.perm import Perm, Role, default_child_perm
from blockemu.permissions import UnalignedImage, refresh, topological, try_set_perm
from blockemu.transaction import Transaction

SIZE = 64 * KIB
P = Perm
READ, WRITE = Perm.CONSISTENT_READ, Perm.WRITE


def root(machine: Machine, node: Disk, perm: Perm, shared: Perm, title: str = "") -> Backend:
    backend = Backend(title, perm, shared)
    machine.emu.graph.insert(backend, node)
    return backend


async def test_what_a_parent_wants_goes_down() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        top = stack(machine, disk)
        assert top.file.perm == P.NONE
        backend = root(machine, top, READ | WRITE, READ)
        assert top.file.perm == READ | WRITE
        assert top.file.shared == READ
        try_set_perm(backend, READ, P.ALL)
        assert top.file.perm == READ
        assert top.file.shared == P.ALL


async def test_two_that_do_not_get_along_are_named() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        root(machine, disk, READ, P.ALL & ~(WRITE | P.RESIZE), "one")
        with pytest.raises(PermissionConflict) as caught:
            root(machine, disk, WRITE | P.RESIZE | READ, P.ALL, "two")
        assert str(caught.value) == (
            "Permission conflict on node 'd': permissions 'write, resize' are both required by "
            "block device 'two' (uses node 'd' as 'root' child) and unshared by block device 'one' "
            "(uses node 'd' as 'root' child)."
        )
        assert len(disk.parents) == 1


async def test_a_conflict_further_down_names_the_nodes() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        one, two = stack(machine, disk, "one"), stack(machine, disk, "two")
        root(machine, one, READ, READ)
        with pytest.raises(PermissionConflict) as caught:
            root(machine, two, WRITE, P.ALL)
        assert "by node 'two' (uses node 'd' as 'file' child) and unshared by node 'one'" in str(
            caught.value
        )
        assert two.file.perm == P.NONE
        assert two.file.shared == P.ALL


async def test_to_ask_for_less_never_fails() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        backend = root(machine, disk, WRITE | READ, P.ALL)
        disk.flags.read_only = True
        with pytest.raises(ReadOnlyNode, match=r"^Block node is read-only$"):
            try_set_perm(backend, WRITE | P.RESIZE, P.ALL)
        assert backend.perm == WRITE | READ
        try_set_perm(backend, WRITE, P.ALL)  # does not work out, but is no error
        assert backend.perm == WRITE | READ
        try_set_perm(backend, READ, P.ALL)
        assert backend.perm == READ


async def test_a_node_with_writers_cannot_become_read_only() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        root(machine, disk, WRITE, P.ALL)
        disk.flags.read_only = True
        text = "^Read-only block node 'd' cannot support read-write users$"
        with pytest.raises(QmpError, match=text):
            refresh(disk, transaction=Transaction(), was_read_only={disk: False})


async def test_writing_the_last_sector_of_an_odd_image_needs_resize() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE + 512)
        machine.align(disk, request_alignment=4096)
        with pytest.raises(UnalignedImage):
            root(machine, disk, WRITE, P.ALL)
        root(machine, disk, WRITE | P.RESIZE, P.ALL)
        root(machine, disk, P.WRITE_UNCHANGED, P.ALL)


async def test_parents_come_before_children_the_newest_subtree_first() -> None:
    async with Machine() as machine:
        disk, other = machine.disk("d", SIZE), machine.disk("o", SIZE)
        top = stack(machine, disk)
        with Transaction() as transaction:
            machine.emu.graph.add_child(top, "more", Role.DATA, other, transaction)
        assert topological([top]) == [top, disk, other]


@pytest.mark.parametrize(
    ("role", "perm", "shared", "writable", "wanted"),
    [
        (Role.FILTERED, WRITE, READ, True, (WRITE, READ)),
        (Role.COW, READ | WRITE, P.ALL, True, (READ, P.ALL)),
        (Role.COW, WRITE, READ, True, (P.NONE, READ | P.WRITE_UNCHANGED)),
        (Role.IMAGE, P.NONE, P.ALL, True,
         (READ | WRITE | P.RESIZE, READ | P.WRITE_UNCHANGED)),
        (Role.IMAGE, P.NONE, P.ALL, False, (READ, READ | P.WRITE_UNCHANGED)),
        (Role.DATA, WRITE, P.ALL, True, (WRITE | P.RESIZE, P.ALL & ~P.RESIZE)),
        (Role.DATA, P.WRITE_UNCHANGED, P.ALL, True,
         (P.WRITE_UNCHANGED | WRITE | P.RESIZE, P.ALL & ~P.RESIZE)),
    ],
)  # fmt: skip
def test_roles_have_the_permissions_of_qemus(
    role: Role, perm: Perm, shared: Perm, writable: bool, wanted: tuple[Perm, Perm]
) -> None:
    assert default_child_perm(role, perm, shared, writable=writable) == wanted
