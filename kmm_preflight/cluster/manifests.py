"""Read manifests from files and folders, such as must-gather trees, instead of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.documents import DocumentPlace, NoObject, read_documents
from kmm_preflight.cluster.fleet_manifests import KINDS, given_fleet
from kmm_preflight.cluster.inventory import Inventory, Key
from kmm_preflight.cluster.kmm_kinds import is_skipped
from kmm_preflight.cluster.kmod_sources import on_spokes, with_day1
from kmm_preflight.cluster.manifest_files import FILE_BYTES, SUFFIXES, Exclusions, ManifestFolder, read_file
from kmm_preflight.errors import BoundExceeded, Malformed, UsageProblem
from kmm_preflight.model import Manifest, ModuleName, NotJudged
from kmm_preflight.oci.signature_policy import API_VERSIONS as POLICY_VERSIONS
from kmm_preflight.oci.signature_policy import CLUSTER_POLICY, NAMESPACE_POLICY
from kmm_preflight.planning.kinds import SOURCE_KINDS, SourceKind
from kmm_preflight.planning.module import GROUP, Module, RefusedModule, parse_module, refused_module
from kmm_preflight.planning.source import KmodSource

_CORE, _CONFIG, _HUB = "v1", "config.openshift.io/v1", "cluster.open-cluster-management.io/v1"
_NAMESPACED = {"ConfigMap": _CORE, "Secret": _CORE, "ServiceAccount": _CORE}
_NAMESPACED_KINDS = (*_NAMESPACED, "NodePool", NAMESPACE_POLICY)
_POLICIES = (CLUSTER_POLICY, NAMESPACE_POLICY)
_MIRRORS = {
    "ImageDigestMirrorSet": _CONFIG,
    "ImageTagMirrorSet": _CONFIG,
    "ImageContentSourcePolicy": "operator.openshift.io/v1alpha1",
}
# Objects that Modules need, with their API versions. Other versions of a kind are ignored.
_NEEDED = {**_NAMESPACED, **_MIRRORS, "ManagedCluster": _HUB, "Image": _CONFIG, "Proxy": _CONFIG}
# Misspelt kinds of KMM, in lower case.
_MISSPELT = {"module": "Module", "modules": "Module", "modulelist": "ModuleList"}


def read_manifests(paths: Iterable[str], namespace: str, stdin: TextIO, exclude: Sequence[str] = ()) -> Inventory:
    """Return the inventory of files, of folders with all YAML and JSON files below, and of - (standard input).

    namespace applies if a manifest has none. exclude has patterns of files and objects to leave out. What a folder has
    and no check reads is listed as not judged. Raise UsageProblem with file, document and field if the CRD or KMM's
    webhook would refuse a Module, for a Module that exists twice, and for a named file with anything but objects.
    """
    reading = _Reading(namespace, Exclusions(exclude))
    for path in paths:
        reading.read(path, stdin)
    return reading.inventory()


class _Reading:
    """The objects that were read so far."""

    def __init__(self, namespace: str, exclusions: Exclusions) -> None:
        self._namespace, self._exclusions = namespace, exclusions
        self._modules: dict[Key, tuple[Module | RefusedModule, DocumentPlace]] = {}
        self._objects: dict[str, dict[Key, Manifest]] = {kind: {} for kind in (*_NEEDED, *_POLICIES, *KINDS)}
        self._sources: dict[ModuleName, tuple[KmodSource, DocumentPlace]] = {}
        self._not_judged: list[NotJudged] = []
        self._others: dict[str, int] = {}

    def read(self, path: str, stdin: TextIO) -> None:
        """Read a file, a folder, or - for standard input."""
        if path == "-":
            self._read_text(_input(stdin), "standard input", named=True)
            return
        folder = ManifestFolder(Path(path), self._exclusions)
        for file in folder.files():
            text = read_file(file)
            if isinstance(text, NotJudged):
                self._not_judged.append(text)
            else:
                self._read_text(text, str(file.path), file.named)
        self._others[path] = folder.others

    def _read_text(self, text: str, file: str, named: bool) -> None:
        for read in read_documents(text, file):
            if not isinstance(read, NoObject):
                self._add(*read)
            elif named:
                raise UsageProblem(f"{read.place}: {read.problem}")
            else:
                self._not_judged.append(NotJudged(read.place, read.problem))

    def _add(self, place: DocumentPlace, manifest: Manifest) -> None:
        kind, api = str(manifest["kind"]), str(manifest["apiVersion"])
        if _is_module(manifest, place):
            _add_module(self._modules, manifest, place, self._namespace)
        elif row := _source_kind(kind, api):
            _add_source(self._sources, row, manifest, place, self._namespace)
        elif (kind in _NEEDED and api == _NEEDED[kind]) or (kind in _POLICIES and api in POLICY_VERSIONS):
            _add_object(self._objects[kind], manifest, place, self._namespace)
        elif kind in KINDS and api in KINDS[kind]:
            _add_newest_state(self._objects[kind], manifest, place, self._namespace)
        elif (is_skipped(_group(api), kind) or _is_other_version(kind, api)) and not self._is_excluded(manifest):
            reason = f"no check reads a {kind} of {api} ({place})"
            self._not_judged.append(NotJudged(f"{kind} {_name(manifest)}", reason))

    def _is_excluded(self, manifest: Manifest) -> bool:
        metadata = manifest.get("metadata")
        namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
        kind, name = manifest["kind"], _name(manifest)
        return self._exclusions.covers(f"{kind}/{namespace}/{name}" if namespace else f"{kind}/{name}")

    def inventory(self) -> Inventory:
        """Return the inventory of everything that was read."""
        objects = self._objects
        modules = [module for _, (module, _) in sorted(self._modules.items(), key=lambda item: item[0])]
        fleet = given_fleet({kind: tuple(objects[kind].values()) for kind in KINDS}, objects["ConfigMap"])
        sources, clusters = (source for source, _ in self._sources.values()), tuple(objects["ManagedCluster"].values())
        inventory = Inventory(
            modules=tuple(module for module in modules if isinstance(module, Module)),
            refused=tuple(module for module in modules if isinstance(module, RefusedModule)),
            config_maps=objects["ConfigMap"],
            secrets=objects["Secret"],
            service_accounts=objects["ServiceAccount"],
            mirrors=tuple(manifest for kind in _MIRRORS for manifest in objects[kind].values()),
            image_policies=tuple(_in_namespace(*item) for kind in _POLICIES for item in objects[kind].items()),
            image_config=objects["Image"].get(("", "cluster")),
            proxy=objects["Proxy"].get(("", "cluster")),
            fleet=fleet,
            assumed=(*self._exclusions.words(), *self._counted_others()),
            not_judged=tuple(self._not_judged),
            other_sources=on_spokes(sources, clusters) if clusters else tuple(sources),
        )
        return with_day1(inventory, fleet.day1) if fleet else inventory

    def _counted_others(self) -> Iterator[str]:
        for path, count in self._others.items():
            if count:
                files = "1 other file" if count == 1 else f"{count} other files"
                yield f"{files} in {path} not read: the names do not end with {', '.join(SUFFIXES)}"


def _group(api: str) -> str:
    return api.rpartition("/")[0]


def _is_other_version(kind: str, api: str) -> bool:
    """True for a kind that a run needs, in a version that this suite does not know."""
    known = POLICY_VERSIONS if kind in _POLICIES else KINDS.get(kind) or ((_NEEDED[kind],) if kind in _NEEDED else ())
    return any(_group(api) == _group(version) for version in known)


def _source_kind(kind: str, api: object) -> SourceKind | None:
    """Return the row of a kind that brings kmods. Other versions of the kind are listed as not judged."""
    return next((row for row in SOURCE_KINDS if kind == row.kind and api == row.api_version), None)


def _add_source(
    sources: dict[ModuleName, tuple[KmodSource, DocumentPlace]],
    row: SourceKind,
    manifest: Manifest,
    place: DocumentPlace,
    namespace: str,
) -> None:
    try:
        source = row.parse(manifest, namespace)
    except Malformed as exc:
        raise UsageProblem(f"{place}: {row.kind} {_name(manifest)}: {exc.message}") from exc
    if source.name in sources:
        first = sources[source.name][1]
        raise UsageProblem(f"{source.name} exists twice: in {first} and in {place}; keep one of them")
    sources[source.name] = (source, place)


def _input(stdin: TextIO) -> str:
    try:
        text = stdin.read(FILE_BYTES + 1)
    except UnicodeDecodeError as exc:
        raise UsageProblem("--manifests -: standard input is not UTF-8 text") from exc
    if len(text) > FILE_BYTES:
        raise UsageProblem(f"--manifests -: standard input has more than {FILE_BYTES >> 20} MiB")
    return text.removeprefix("\ufeff")


def _is_module(manifest: Manifest, place: DocumentPlace) -> bool:
    """True for a Module of KMM. Raise UsageProblem for a misspelt group or kind, which would be ignored silently."""
    api, kind = str(manifest["apiVersion"]), str(manifest["kind"])
    group = _group(api)
    if kind != "Module":
        if kind.casefold() in _MISSPELT and group.startswith("kmm."):
            raise UsageProblem(f"{place}: kind: got {kind}, expected {_MISSPELT[kind.casefold()]}")
        return False
    if group != GROUP and group.startswith("kmm."):
        raise UsageProblem(f"{place}: apiVersion: got {api}, expected {GROUP}/v1beta1")
    return group == GROUP


def _add_module(
    modules: dict[Key, tuple[Module | RefusedModule, DocumentPlace]],
    manifest: Manifest,
    place: DocumentPlace,
    namespace: str,
) -> None:
    module: Module | RefusedModule
    try:
        module = parse_module(manifest, namespace)
    except BoundExceeded as exc:
        module = refused_module(manifest, exc, namespace)
    except Malformed as exc:
        raise UsageProblem(f"{place}: Module {_name(manifest)}: {exc.message}") from exc
    key = (module.name.namespace, module.name.name)
    if key in modules:
        raise UsageProblem(f"Module {module.name} exists twice: in {modules[key][1]} and in {place}; keep one of them")
    modules[key] = (module, place)


def _name(manifest: Manifest) -> str:
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) and name else "without a name"


def _add_object(objects: dict[Key, Manifest], manifest: Manifest, place: DocumentPlace, namespace: str) -> None:
    key = _key(manifest, place, namespace)
    if objects.get(key, manifest) != manifest:
        raise _duplicate(manifest, key, place)
    objects[key] = manifest


def _add_newest_state(objects: dict[Key, Manifest], manifest: Manifest, place: DocumentPlace, namespace: str) -> None:
    """Add an object. If two must-gathers have two states of the object, keep the later state."""
    key = _key(manifest, place, namespace)
    other = objects.get(key, manifest)
    objects[key] = manifest if other == manifest else _newest(other, manifest, key, place)


def _newest(first: Manifest, second: Manifest, key: Key, place: DocumentPlace) -> Manifest:
    """Return the later of two states. Raise UsageProblem if their resourceVersions do not say which is later."""
    versions = _resource_version(first), _resource_version(second)
    match versions:
        case int(earlier), int(later) if earlier != later:
            return first if earlier > later else second
        case _:
            raise _duplicate(second, key, place)


def _resource_version(manifest: Manifest) -> int | None:
    """Return the resourceVersion, which is a number (Kubernetes 1.35). If it is not a number, return None."""
    metadata = manifest.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version.isascii() or not version.isdigit() or len(version) >= 20:
        return None
    return int(version)


def _key(manifest: Manifest, place: DocumentPlace, namespace: str) -> Key:
    document = Field(manifest)
    try:
        metadata = document["metadata"]
        in_namespace = metadata["namespace"].text() or namespace if manifest["kind"] in _NAMESPACED_KINDS else ""
        return in_namespace, metadata["name"].text()
    except Malformed as exc:
        raise UsageProblem(f"{place}: {manifest['kind']}: {exc.message}") from exc


def _in_namespace(key: Key, manifest: Manifest) -> Manifest:
    """Return the object with the namespace of its key."""
    return {**manifest, "metadata": {**Field(manifest)["metadata"].mapping(), "namespace": key[0]}}


def _duplicate(manifest: Manifest, key: Key, place: DocumentPlace) -> UsageProblem:
    subject = f"{place}: {manifest['kind']} {'/'.join(key).lstrip('/')}"
    return UsageProblem(f"{subject} exists twice with different contents; keep one of them")
