"""Read manifests from files and folders, such as must-gather trees, instead of a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.documents import DocumentPlace, read_documents
from kmm_preflight.cluster.fleet_manifests import KINDS, given_fleet
from kmm_preflight.cluster.inventory import Inventory, Key
from kmm_preflight.cluster.kmm_kinds import is_skipped
from kmm_preflight.errors import Malformed, UsageProblem
from kmm_preflight.model import Manifest, NotJudged
from kmm_preflight.oci.signature_policy import API_VERSIONS as POLICY_VERSIONS
from kmm_preflight.oci.signature_policy import CLUSTER_POLICY, NAMESPACE_POLICY
from kmm_preflight.planning.module import GROUP, Module, parse_module

SUFFIXES = (".yaml", ".yml", ".json")
FILE_BYTES = 64 << 20
_CORE, _CONFIG = "v1", "config.openshift.io/v1"
_NAMESPACED = {"ConfigMap": _CORE, "Secret": _CORE, "ServiceAccount": _CORE}
_NAMESPACED_KINDS = (*_NAMESPACED, "NodePool", NAMESPACE_POLICY)
_POLICIES = (CLUSTER_POLICY, NAMESPACE_POLICY)
_MIRRORS = {
    "ImageDigestMirrorSet": _CONFIG,
    "ImageTagMirrorSet": _CONFIG,
    "ImageContentSourcePolicy": "operator.openshift.io/v1alpha1",
}
# Objects that Modules need, with their API versions. Other versions of a kind are ignored.
_NEEDED = {**_NAMESPACED, **_MIRRORS, "Image": _CONFIG, "Proxy": _CONFIG}
# Misspelt kinds of KMM, in lower case.
_MISSPELT = {"module": "Module", "modules": "Module", "modulelist": "ModuleList"}


def read_manifests(paths: Iterable[str], namespace: str, stdin: TextIO) -> Inventory:
    """Return the inventory of files, of folders with all YAML and JSON files below, and of - (standard input).

    Ignore other kinds. namespace applies if a manifest has none. Raise UsageProblem with file, document and field if
    the CRD or KMM's webhook would refuse a Module, and with both places of a Module that exists twice.
    """
    modules: dict[Key, tuple[Module, DocumentPlace]] = {}
    objects: dict[str, dict[Key, Manifest]] = {kind: {} for kind in (*_NEEDED, *_POLICIES, *KINDS)}
    not_judged = list[NotJudged]()
    for path in paths:
        for place, manifest in _objects(path, stdin):
            kind, api = str(manifest["kind"]), manifest.get("apiVersion")
            if _is_module(manifest, place):
                _add_module(modules, manifest, place, namespace)
            elif (kind in _NEEDED and api == _NEEDED[kind]) or (kind in _POLICIES and api in POLICY_VERSIONS):
                _add_object(objects[kind], manifest, place, namespace)
            elif kind in KINDS and api in KINDS[kind]:
                _add_newest_state(objects[kind], manifest, place, namespace)
            elif is_skipped(str(api).partition("/")[0], kind):
                reason = f"no check reads a {kind} of {api} ({place})"
                not_judged.append(NotJudged(f"{kind} {_name(manifest)}", reason))
    fleet = given_fleet({kind: tuple(objects[kind].values()) for kind in KINDS}, objects["ConfigMap"])
    return Inventory(
        modules=tuple(module for _, (module, _) in sorted(modules.items())),
        config_maps=objects["ConfigMap"],
        secrets=objects["Secret"],
        service_accounts=objects["ServiceAccount"],
        mirrors=tuple(manifest for kind in _MIRRORS for manifest in objects[kind].values()),
        image_policies=tuple(_in_namespace(*item) for kind in _POLICIES for item in objects[kind].items()),
        image_config=objects["Image"].get(("", "cluster")),
        proxy=objects["Proxy"].get(("", "cluster")),
        fleet=fleet,
        not_judged=tuple(not_judged),
    )


def _objects(path: str, stdin: TextIO) -> Iterator[tuple[DocumentPlace, Manifest]]:
    if path == "-":
        yield from read_documents(_input(stdin), "standard input")
        return
    files = _files(Path(path))
    for file in files:
        yield from read_documents(_text(file), str(file))


def _files(path: Path) -> list[Path]:
    if not os.path.exists(path):
        raise UsageProblem(f"--manifests {path}: no such file or folder")
    if not path.is_dir():
        return [path]
    found = sorted(_walk(path))
    if not found:
        raise UsageProblem(f"--manifests {path}: the folder has no {', '.join(SUFFIXES)} files")
    return found


def _walk(path: Path) -> Iterator[Path]:
    """Yield the files below a folder, also broken links. Leave out pipes and devices: reading them may block."""
    for folder, folders, names in os.walk(path, onerror=_unreadable):
        # The volume of a ConfigMap has its files in a hidden folder, and links to them in the folder above.
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(folder) / name
            if name.endswith(SUFFIXES) and (os.path.isfile(file) or not os.path.exists(file)):
                yield file


def _unreadable(exc: OSError) -> None:
    raise UsageProblem(f"--manifests {exc.filename}: cannot be read ({exc.strerror})") from exc


def _input(stdin: TextIO) -> str:
    try:
        text = stdin.read(FILE_BYTES + 1)
    except UnicodeDecodeError as exc:
        raise UsageProblem("--manifests -: standard input is not UTF-8 text") from exc
    if len(text) > FILE_BYTES:
        raise UsageProblem(f"--manifests -: standard input has more than {FILE_BYTES >> 20} MiB")
    return text.removeprefix("\ufeff")


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            body = stream.read(FILE_BYTES + 1)
    except OSError as exc:
        raise UsageProblem(f"--manifests {file}: cannot be read ({exc.strerror})") from exc
    if len(body) > FILE_BYTES:
        raise UsageProblem(f"--manifests {file}: the file has more than {FILE_BYTES >> 20} MiB")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UsageProblem(f"--manifests {file}: the file is not UTF-8 text") from exc


def _is_module(manifest: Manifest, place: DocumentPlace) -> bool:
    """True for a Module of KMM. Raise UsageProblem for a misspelt group or kind, which would be ignored silently."""
    api, kind = manifest.get("apiVersion"), str(manifest["kind"])
    group = api.partition("/")[0] if isinstance(api, str) else ""
    if kind != "Module":
        if kind.casefold() in _MISSPELT and group.startswith("kmm."):
            raise UsageProblem(f"{place}: kind: got {kind}, expected {_MISSPELT[kind.casefold()]}")
        return False
    if not isinstance(api, str):
        raise UsageProblem(f"{place}: apiVersion is missing, expected {GROUP}/v1beta1")
    if group != GROUP and group.startswith("kmm."):
        raise UsageProblem(f"{place}: apiVersion: got {api}, expected {GROUP}/v1beta1")
    return group == GROUP


def _add_module(
    modules: dict[Key, tuple[Module, DocumentPlace]], manifest: Manifest, place: DocumentPlace, namespace: str
) -> None:
    try:
        module = parse_module(manifest, namespace)
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
