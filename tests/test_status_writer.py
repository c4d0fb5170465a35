"""Writer of the status of a PreflightValidationOCP, on a real API server and in each dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kmm_preflight.cluster.api import CRDS, Access, Api
from kmm_preflight.cluster.login import connect
from kmm_preflight.errors import NotFound
from kmm_preflight.model import ModuleName
from kmm_preflight.status.dialects import GROUP, Dialect, StatusEntry, parse_entries
from kmm_preflight.status.preflight import Preflight, read_preflight
from kmm_preflight.status.preflight_kind import OCP
from kmm_preflight.status.writer import StatusWriter
from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.definitions import PREFLIGHTS, released

A, B = ModuleName("ns", "a"), ModuleName("ns", "b")
START = datetime(2026, 1, 1, tzinfo=UTC)
DONE = {
    Dialect.MAP: StatusEntry("True", "Done", "good"),
    Dialect.LIST: StatusEntry("True", "Done", "good"),
    Dialect.ONE_KERNEL: StatusEntry("Success", "Done", "good"),
}
BAD = {
    Dialect.MAP: StatusEntry("False", "Requeued", "bad"),
    Dialect.LIST: StatusEntry("False", "Requeued", "bad"),
    Dialect.ONE_KERNEL: StatusEntry("Failure", "Done", "bad"),
}
RELEASE, KERNEL, TOOLKIT = "registry.example/release:1", "6.1.0-56-amd64", "registry.example/dtk:1"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(
    scope="module",
    params=[("own", "seed"), ("own", "list"), ("own", "later"), ("kmm", "1.1"), ("kmm", "2.3"), ("kmm", "main")],
    ids="-".join,
)
def served(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    whose, name = request.param
    cluster.apply_crds(PREFLIGHTS[name] if whose == "own" else released(f"kmm-{name}") / "preflightvalidationsocp.yaml")
    yield cluster
    cluster.remove_crds()


@pytest.fixture
def api(served: Cluster) -> Api:
    return connect(Access((served.kubeconfig(),), "--kubeconfig"))


@pytest.fixture
def dialect(api: Api) -> Dialect:
    crd = api.get(CRDS, OCP.crd)
    assert crd is not None
    found = OCP.dialect(crd)
    assert found is not None
    return found


@pytest.fixture
def name(api: Api, dialect: Dialect, request: pytest.FixtureRequest) -> str:
    """Name of a new object."""
    unique = f"pf-{abs(hash(request.node.name)) % 10**9}"
    later = {"kernelVersion": KERNEL, "dtkImage": TOOLKIT}
    spec = later if dialect is Dialect.ONE_KERNEL else {"releaseImage": RELEASE}
    api.create(
        OCP.resource(dialect),
        {
            "apiVersion": f"{GROUP}/{dialect.api_version}",
            "kind": "PreflightValidationOCP",
            "metadata": {"name": unique},
            "spec": {"pushBuiltImage": True, **spec},
        },
    )
    return unique


class Clock:
    """Clock that moves by an hour each time it is read."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(hours=1)
        return self.now


def writer_of(api: Api, dialect: Dialect, name: str) -> StatusWriter:
    preflight = read_preflight(api, name, dialect)
    assert preflight is not None
    return StatusWriter(api, preflight, Clock())


def keys(dialect: Dialect) -> Callable[[ModuleName], ModuleName]:
    return lambda module: ModuleName("", module.name) if dialect is Dialect.MAP else module


def read(api: Api, dialect: Dialect, name: str) -> dict[str, Any]:
    manifest = api.get(OCP.resource(dialect), name)
    assert manifest is not None
    return dict(manifest)


def test_the_schema_of_the_crd_decides_the_dialect(
    served: Cluster, dialect: Dialect, request: pytest.FixtureRequest
) -> None:
    expected = {"seed": Dialect.MAP, "1.1": Dialect.MAP, "list": Dialect.LIST, "2.3": Dialect.LIST}
    which = request.node.callspec.params["served"][1]
    assert dialect is expected.get(which, Dialect.ONE_KERNEL)


def entries(api: Api, dialect: Dialect, name: str) -> dict[ModuleName, StatusEntry]:
    return parse_entries(read(api, dialect, name).get("status", {}), dialect)


def test_the_spec_is_read(api: Api, dialect: Dialect, name: str) -> None:
    later = dialect is Dialect.ONE_KERNEL
    found = read_preflight(api, name, dialect)
    assert found is not None
    assert replace(found, identity=(None, None)) == Preflight(
        name=name,
        dialect=dialect,
        release_image=None if later else RELEASE,
        kernel=KERNEL if later else None,
        driver_toolkit=TOOLKIT if later else None,
        push_built_image=True,
    )


def test_an_absent_object_is_none(api: Api, dialect: Dialect) -> None:
    assert read_preflight(api, "none", dialect) is None


def test_entries_are_written_and_the_schema_accepts_them(api: Api, dialect: Dialect, name: str) -> None:
    writer, key = writer_of(api, dialect, name), keys(dialect)
    written = {key(A): DONE[dialect], key(B): BAD[dialect]}
    writer.write(written)
    assert entries(api, dialect, name) == written
    assert writer.overwritten() == {}


def test_only_a_changed_entry_has_a_new_transition_time(api: Api, dialect: Dialect, name: str) -> None:
    writer, key = writer_of(api, dialect, name), keys(dialect)
    writer.write({key(A): BAD[dialect], key(B): BAD[dialect]})
    before = read(api, dialect, name)
    writer.write({key(A): DONE[dialect], key(B): BAD[dialect]})
    after = read(api, dialect, name)
    times = [_times(manifest, dialect) for manifest in (before, after)]
    assert times[0]["b"] == times[1]["b"]
    assert times[0]["a"] < times[1]["a"]
    writer.write({key(A): DONE[dialect], key(B): BAD[dialect]})
    assert read(api, dialect, name)["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]


def _times(manifest: dict[str, Any], dialect: Dialect) -> dict[str, str]:
    if dialect is Dialect.MAP:
        return {name: fields["lastTransitionTime"] for name, fields in manifest["status"]["crStatuses"].items()}
    return {fields["name"]: fields["lastTransitionTime"] for fields in manifest["status"]["modules"]}


def test_two_writers_keep_each_other_s_entries(api: Api, dialect: Dialect, name: str) -> None:
    ours, theirs = (writer_of(api, dialect, name) for _ in range(2))
    key = keys(dialect)
    ours.write({key(A): BAD[dialect]})
    theirs.write({key(B): DONE[dialect]})
    ours.write({key(A): DONE[dialect]})
    assert entries(api, dialect, name) == {
        key(A): DONE[dialect],
        key(B): DONE[dialect],
    }


def test_an_entry_that_another_writer_changed_is_reported(api: Api, dialect: Dialect, name: str) -> None:
    ours, theirs = (writer_of(api, dialect, name) for _ in range(2))
    key = keys(dialect)
    ours.write({key(A): BAD[dialect], key(B): BAD[dialect]})
    theirs.write({key(A): DONE[dialect]})
    assert list(ours.overwritten()) == [key(A)]


def test_only_entries_that_are_gone_are_removed(api: Api, dialect: Dialect, name: str) -> None:
    writer, key = writer_of(api, dialect, name), keys(dialect)
    writer.write({key(A): DONE[dialect], key(B): BAD[dialect]})
    writer.write({}, gone=[key(A)])
    assert entries(api, dialect, name) == {key(B): BAD[dialect]}


def test_a_reason_that_is_none_is_removed(api: Api, dialect: Dialect, name: str) -> None:
    writer, key = writer_of(api, dialect, name), keys(dialect)
    writer.write({key(A): BAD[dialect]})
    bare = replace(BAD[dialect], reason=None)
    writer.write({key(A): bare})
    assert entries(api, dialect, name) == {key(A): bare}


def test_a_deleted_object_is_not_found(api: Api, dialect: Dialect, served: Cluster) -> None:
    with pytest.raises(NotFound, match="no-such"):
        StatusWriter(api, Preflight("no-such", dialect), Clock()).write({A: DONE[dialect]})
