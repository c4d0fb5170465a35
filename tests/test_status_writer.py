"""The status of a PreflightValidationOCP on a real API server, in each of its three generations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kmm_preflight.cluster.api import CRDS, Access, Api
from kmm_preflight.cluster.kubernetes import connect
from kmm_preflight.errors import NotFound
from kmm_preflight.model import ModuleName
from kmm_preflight.status.dialects import GROUP, RESOURCE, Dialect, StatusEntry, parse_entries
from kmm_preflight.status.preflight import Preflight, dialect_of_crd, preflights, read_preflight
from kmm_preflight.status.writer import StatusWriter
from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.definitions import PREFLIGHTS, released

A, B = ModuleName("ns", "a"), ModuleName("ns", "b")
START = datetime(2026, 1, 1, tzinfo=UTC)
DONE = {
    Dialect.SEED: StatusEntry("True", "Done", "good"),
    Dialect.LIST: StatusEntry("True", "Done", "good"),
    Dialect.LATER: StatusEntry("Success", "Done", "good"),
}
BAD = {
    Dialect.SEED: StatusEntry("False", "Requeued", "bad"),
    Dialect.LIST: StatusEntry("False", "Requeued", "bad"),
    Dialect.LATER: StatusEntry("Failure", "Done", "bad"),
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
    crd = api.get(CRDS, f"{RESOURCE}.{GROUP}")
    assert crd is not None
    return dialect_of_crd(crd)


@pytest.fixture
def name(api: Api, dialect: Dialect, request: pytest.FixtureRequest) -> str:
    """A new object."""
    made = f"pf-{abs(hash(request.node.name)) % 10**9}"
    later = {"kernelVersion": KERNEL, "dtkImage": TOOLKIT}
    spec = later if dialect is Dialect.LATER else {"releaseImage": RELEASE}
    api.create(
        preflights(dialect),
        {
            "apiVersion": f"{GROUP}/{dialect.api_version}",
            "kind": "PreflightValidationOCP",
            "metadata": {"name": made},
            "spec": {"pushBuiltImage": True, **spec},
        },
    )
    return made


class Clock:
    """A clock that goes on by an hour each time it is read."""

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
    return lambda module: ModuleName("", module.name) if dialect is Dialect.SEED else module


def read(api: Api, dialect: Dialect, name: str) -> dict[str, Any]:
    manifest = api.get(preflights(dialect), name)
    assert manifest is not None
    return dict(manifest)


def test_the_dialect_is_told_by_the_live_schema(
    served: Cluster, dialect: Dialect, request: pytest.FixtureRequest
) -> None:
    expected = {"seed": Dialect.SEED, "1.1": Dialect.SEED, "list": Dialect.LIST, "2.3": Dialect.LIST}
    which = request.node.callspec.params["served"][1]
    assert dialect is expected.get(which, Dialect.LATER)


def entries(api: Api, dialect: Dialect, name: str) -> dict[ModuleName, StatusEntry]:
    return parse_entries(read(api, dialect, name).get("status", {}), dialect)


def test_the_spec_is_read(api: Api, dialect: Dialect, name: str) -> None:
    later = dialect is Dialect.LATER
    found = read_preflight(api, name, dialect)
    assert found is not None
    assert replace(found, identity=(None, None)) == Preflight(
        name=name,
        dialect=dialect,
        release_image="" if later else RELEASE,
        kernel=KERNEL if later else "",
        driver_toolkit=TOOLKIT if later else None,
        push_built_image=True,
    )


def test_an_object_that_is_not_there_is_none(api: Api, dialect: Dialect) -> None:
    assert read_preflight(api, "none", dialect) is None


def test_entries_are_written_in_the_dialect_and_the_schema_takes_them(api: Api, dialect: Dialect, name: str) -> None:
    writer, key = writer_of(api, dialect, name), keys(dialect)
    told = {key(A): DONE[dialect], key(B): BAD[dialect]}
    writer.write(told)
    assert entries(api, dialect, name) == told
    assert writer.overwritten() == {}


def test_the_transition_time_moves_on_a_real_change_only(api: Api, dialect: Dialect, name: str) -> None:
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
    if dialect is Dialect.SEED:
        return {name: one["lastTransitionTime"] for name, one in manifest["status"]["crStatuses"].items()}
    return {one["name"]: one["lastTransitionTime"] for one in manifest["status"]["modules"]}


def test_two_writers_lose_nothing(api: Api, dialect: Dialect, name: str) -> None:
    ours, theirs = (writer_of(api, dialect, name) for _ in range(2))
    key = keys(dialect)
    ours.write({key(A): BAD[dialect]})
    theirs.write({key(B): DONE[dialect]})
    ours.write({key(A): DONE[dialect]})
    assert entries(api, dialect, name) == {
        key(A): DONE[dialect],
        key(B): DONE[dialect],
    }


def test_what_somebody_else_wrote_is_told_not_fought(api: Api, dialect: Dialect, name: str) -> None:
    ours, theirs = (writer_of(api, dialect, name) for _ in range(2))
    key = keys(dialect)
    ours.write({key(A): BAD[dialect], key(B): BAD[dialect]})
    theirs.write({key(A): DONE[dialect]})
    assert list(ours.overwritten()) == [key(A)]


def test_gone_entries_are_removed_and_others_stay(api: Api, dialect: Dialect, name: str) -> None:
    writer, key = writer_of(api, dialect, name), keys(dialect)
    writer.write({key(A): DONE[dialect], key(B): BAD[dialect]})
    writer.write({}, gone=[key(A)])
    assert entries(api, dialect, name) == {key(B): BAD[dialect]}


def test_a_reason_that_no_longer_holds_is_removed(api: Api, dialect: Dialect, name: str) -> None:
    writer, key = writer_of(api, dialect, name), keys(dialect)
    writer.write({key(A): BAD[dialect]})
    bare = replace(BAD[dialect], reason="")
    writer.write({key(A): bare})
    assert entries(api, dialect, name) == {key(A): bare}


def test_a_deleted_object_is_said(api: Api, dialect: Dialect, served: Cluster) -> None:
    with pytest.raises(NotFound, match="no-such"):
        StatusWriter(api, Preflight("no-such", dialect), Clock()).write({A: DONE[dialect]})
