"""Objects whose status a run updates: those that exist, those to create, and the cases that are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kmm_preflight.cluster.api import CRDS, DEPLOYMENTS
from kmm_preflight.errors import UsageProblem
from kmm_preflight.model import Flavour, TargetKernel
from kmm_preflight.status.dialects import GROUP, Dialect
from kmm_preflight.status.preflight import read_preflight
from kmm_preflight.status.preflight_kind import OCP, SIG, PreflightKind
from kmm_preflight.status.preflight_objects import (
    ObjectOptions,
    PreflightObjects,
    RequestedPreflight,
    read_requested,
)
from tests.memory_api import MemoryApi

NEW, OLD = "6.1.0-56-amd64", "6.1.0-47-amd64"
RELEASE = "registry.example/release:1"
OPTIONS = ObjectOptions(create=True, release_image=RELEASE)


def kernel(version: str, stream: str = "") -> TargetKernel:
    return TargetKernel(version, "amd64", stream, Flavour.STANDARD, None, "")


KERNELS = (kernel(NEW), kernel(OLD))


def add(api: MemoryApi, dialect: Dialect, name: str, **spec: str) -> None:
    version = f"{GROUP}/{dialect.api_version}"
    api.add(OCP.resource(dialect), {"apiVersion": version, "kind": OCP.name, "metadata": {"name": name}, "spec": spec})


def add_operator(api: MemoryApi, version: str) -> None:
    metadata: dict[str, Any] = {"namespace": "openshift-kmm", "name": "kmm-operator-controller"}
    metadata["labels"] = {"olm.owner": f"kernel-module-management.v{version}"}
    api.add(DEPLOYMENTS, {"metadata": metadata, "spec": {"replicas": 1}})


def objects_of(
    api: MemoryApi, dialect: Dialect, options: ObjectOptions, kernels: tuple[TargetKernel, ...] = KERNELS
) -> PreflightObjects:
    requested = RequestedPreflight("pf", dialect, read_preflight(api, "pf", dialect))
    return PreflightObjects(api, requested, kernels, options)


@pytest.mark.parametrize("dialect", [Dialect.MAP, Dialect.LIST])
def test_one_object_covers_all_kernels(dialect: Dialect) -> None:
    api = MemoryApi()
    objects = objects_of(api, dialect, OPTIONS)
    found = objects.find()
    assert (found.updated, found.to_create) == ((), {"pf": KERNELS})
    (created,) = objects.create(found).updated
    assert (created.preflight.release_image, created.kernels) == (RELEASE, KERNELS)
    again = objects_of(api, dialect, replace(OPTIONS, spec_release=RELEASE)).find()
    assert [(one.preflight.name, one.kernels) for one in again.updated] == [("pf", KERNELS)]
    assert again.words == ()


def test_an_object_that_names_another_release_is_reported() -> None:
    api = MemoryApi()
    add(api, Dialect.LIST, "pf", releaseImage="registry.example/release:0")
    options = replace(OPTIONS, spec_release="registry.example/release:0")
    (words,) = objects_of(api, Dialect.LIST, options).find().words
    assert words == (
        f"the spec of {OCP.name} pf names registry.example/release:0; its status shows verdicts on {NEW}, {OLD}, "
        "as the options say"
    )
    same_release = replace(OPTIONS, release_image=None, spec_release=None, kernels_given=True)
    assert objects_of(api, Dialect.LIST, same_release).find().words


def test_an_object_for_each_kernel_since_kmm_2_4() -> None:
    api = MemoryApi()
    add(api, Dialect.ONE_KERNEL, f"pf-{OLD}", kernelVersion=OLD)
    objects = objects_of(api, Dialect.ONE_KERNEL, OPTIONS)
    found = objects.find()
    assert [(one.preflight.name, one.kernels) for one in found.updated] == [(f"pf-{OLD}", (KERNELS[1],))]
    assert found.to_create == {f"pf-{NEW}": (KERNELS[0],)}
    both = objects.create(found)
    assert [one.preflight.kernel for one in both.updated] == [OLD, NEW]
    assert both.words == (f"this run created {OCP.name} pf-{NEW}",)
    assert len(objects.find().updated) == 2


def test_a_kernel_without_an_object_is_reported_if_none_may_be_created() -> None:
    api = MemoryApi()
    add(api, Dialect.ONE_KERNEL, f"pf-{OLD}", kernelVersion=OLD)
    found = objects_of(api, Dialect.ONE_KERNEL, replace(OPTIONS, create=False)).find()
    assert found.to_create == {}
    assert found.words == (
        f"the verdicts on kernel {NEW} are in no status: {OCP.name} pf-{NEW} does not exist. "
        "Pass --create-preflight to create it.",
    )


def test_an_unknown_kernel_has_no_object() -> None:
    kernels = (*KERNELS, kernel("unknown-pool-edge", "edge"))
    found = objects_of(MemoryApi(), Dialect.ONE_KERNEL, OPTIONS, kernels).find()
    assert found.to_create == {f"pf-{one.version}": (one,) for one in KERNELS}
    assert found.words == (f"unknown-pool-edge has no {OCP.name}: the kernel is not known",)


@pytest.mark.parametrize(
    ("name", "message"),
    [("pf", f"the object is for kernel 6.0.0, the run judges {NEW}, {OLD}"), (f"pf-{OLD}", "is for kernel 6.0.0, not")],
)
def test_an_object_of_another_kernel_is_refused(name: str, message: str) -> None:
    api = MemoryApi()
    add(api, Dialect.ONE_KERNEL, name, kernelVersion="6.0.0")
    with pytest.raises(UsageProblem, match=message):
        objects_of(api, Dialect.ONE_KERNEL, OPTIONS).find()


def test_no_object_and_none_to_create_is_refused() -> None:
    with pytest.raises(UsageProblem, match=f"--preflight pf: no such {OCP.name} in the cluster"):
        objects_of(MemoryApi(), Dialect.ONE_KERNEL, ObjectOptions(kernels_given=True)).find()


def test_an_older_object_is_created_only_for_a_release() -> None:
    options = ObjectOptions(create=True, kernels_given=True)
    with pytest.raises(UsageProblem, match="--create-preflight requires --release-image"):
        objects_of(MemoryApi(), Dialect.LIST, options).find()


@pytest.mark.parametrize(
    ("dialect", "create", "kernels_known", "allowed"),
    [
        (Dialect.LIST, False, True, False),
        (Dialect.LIST, True, True, True),
        (Dialect.LIST, True, False, False),
        (Dialect.ONE_KERNEL, False, True, True),
        (Dialect.ONE_KERNEL, True, False, False),
    ],
)
def test_an_absent_object_ends_the_run_unless_another_can_serve(
    dialect: Dialect, create: bool, kernels_known: bool, allowed: bool
) -> None:
    requested = RequestedPreflight("pf", dialect)
    if allowed:
        requested.check_exists(create, kernels_known)
        return
    with pytest.raises(UsageProblem, match="--create-preflight") as caught:
        requested.check_exists(create, kernels_known)
    assert ("--release-image" in caught.value.message) is not kernels_known


def test_an_operator_that_always_pushes_must_be_allowed() -> None:
    api = MemoryApi()
    assert objects_of(api, Dialect.ONE_KERNEL, OPTIONS).operator_warning() is None
    add_operator(api, "2.4.1")
    with pytest.raises(UsageProblem, match="--allow-operator-builds"):
        objects_of(api, Dialect.ONE_KERNEL, OPTIONS).operator_warning()
    allowed = objects_of(api, Dialect.ONE_KERNEL, replace(OPTIONS, allow_operator_builds=True)).operator_warning()
    assert allowed
    assert "whatever pushBuiltImage says" in allowed
    assert "and pushes nothing" in str(objects_of(api, Dialect.LIST, OPTIONS).operator_warning())


def test_an_object_that_another_run_created_first_is_used() -> None:
    api = MemoryApi()
    first, second = (objects_of(api, Dialect.ONE_KERNEL, OPTIONS) for _ in range(2))
    waiting = second.find()
    first.create(first.find())
    assert [one.preflight.kernel for one in second.create(waiting).updated] == [NEW, OLD]


WORDS_OF = {"later": ["Success", "Failure", "InProgress"], "older": ["True", "False"]}


def crd_of(kind: PreflightKind, words: str) -> dict[str, Any]:
    """Return a CRD with v1beta2, an object for each kernel, and these words of a status."""
    entry = {"properties": {"verificationStatus": {"enum": WORDS_OF[words]}}}
    properties = {
        "spec": {"properties": {"kernelVersion": {"type": "string"}}},
        "status": {"properties": {"modules": {"items": entry}}},
    }
    version = {"name": "v1beta2", "schema": {"openAPIV3Schema": {"properties": properties}}}
    return {"metadata": {"name": kind.crd}, "spec": {"versions": [version]}}


def serving(*kinds: PreflightKind, words: str = "later") -> MemoryApi:
    api = MemoryApi(*(kind.resource(Dialect.ONE_KERNEL) for kind in kinds))
    for kind in kinds:
        api.add(CRDS, crd_of(kind, words))
    return api


def add_of(api: MemoryApi, kind: PreflightKind, version: str = NEW) -> None:
    manifest = {"kind": kind.name, "metadata": {"name": "pf"}, "spec": {"kernelVersion": version}}
    api.add(kind.resource(Dialect.ONE_KERNEL), manifest)


@pytest.mark.parametrize(
    ("served", "objects", "expected"),
    [
        ([OCP], [], (OCP, False)),
        ([OCP], [OCP], (OCP, True)),
        ([SIG], [], (SIG, False)),
        ([SIG], [SIG], (SIG, True)),
        ([OCP, SIG], [], (OCP, False)),
        ([OCP, SIG], [SIG], (SIG, True)),
        ([OCP, SIG], [OCP], (OCP, True)),
        ([OCP, SIG], [OCP, SIG], (OCP, True)),
    ],
)
def test_the_kind_that_has_the_object_is_answered(
    served: list[PreflightKind], objects: list[PreflightKind], expected: tuple[PreflightKind, bool]
) -> None:
    api = serving(*served)
    for kind in objects:
        add_of(api, kind)
    requested = read_requested(api, "pf")
    assert (requested.kind, requested.preflight is not None) == expected
    assert requested.dialect is Dialect.ONE_KERNEL
    if requested.preflight:
        assert requested.preflight.subject == f"{expected[0].name} pf"


@pytest.mark.parametrize("api", [MemoryApi(), serving(SIG, words="older")], ids=["none", "older"])
def test_a_cluster_without_a_kind_that_is_answered_is_refused(api: MemoryApi) -> None:
    with pytest.raises(UsageProblem, match=f"no {SIG.crd} with the status of KMM 2.4 or later: is KMM installed"):
        read_requested(api, "pf")


def test_a_missing_object_is_created_in_the_kind_that_is_served() -> None:
    api = serving(SIG)
    requested = read_requested(api, "pf")
    given = (replace(kernel(NEW), driver_toolkit="registry.example/toolkit:1"),)
    objects = PreflightObjects(api, requested, given, OPTIONS)
    created = objects.create(objects.find())
    assert created.words == ("this run created PreflightValidation pf",)
    manifest = api.get(SIG.resource(Dialect.ONE_KERNEL), "pf")
    assert manifest is not None
    assert (manifest["apiVersion"], manifest["kind"]) == (f"{GROUP}/v1beta2", "PreflightValidation")
    assert manifest["spec"] == {"kernelVersion": NEW}
    with pytest.raises(UsageProblem, match="no such PreflightValidation in the cluster"):
        requested.check_exists(create=False, kernels_known=False)
