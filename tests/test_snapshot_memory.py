"""Changes between two rounds of a run that repeats."""

from __future__ import annotations

from kmm_preflight.cluster.snapshot_memory import SnapshotMemory

A, B, SECRET = "Module ns/a", "Module ns/b", "Secret ns/s"


def test_a_new_a_changed_and_a_deleted_module_are_changes() -> None:
    memory = SnapshotMemory()
    memory.begin_round({A: "1"})
    assert memory.changes({A: "1"}) == []
    assert sorted(memory.changes({A: "2", B: "1"})) == [A, B]
    assert memory.changes({A: "2"}) == [B]


def test_a_secret_counts_only_if_its_version_was_read_before() -> None:
    memory = SnapshotMemory()
    memory.begin_round({A: "1"})
    assert memory.changes({A: "1", SECRET: "1"}) == []
    assert memory.changes({A: "1", SECRET: "2"}) == [SECRET]
    assert memory.changes({A: "1"}) == []


def test_a_secret_is_remembered_over_a_round() -> None:
    memory = SnapshotMemory()
    assert memory.changes({SECRET: "1"}) == []
    memory.begin_round({A: "1"})
    assert memory.changes({A: "1", SECRET: "2"}) == [SECRET]


def test_a_cluster_that_cannot_be_read_has_no_changes() -> None:
    memory = SnapshotMemory()
    memory.begin_round({A: "1"})
    assert memory.changes(None) == []
    memory.begin_round(None)
    assert memory.changes({A: "2"}) == [A]
