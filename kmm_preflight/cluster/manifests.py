"""Manifests in files and folders, must-gather trees among them, in the place of a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.documents import DocumentPlace, read_documents
from kmm_preflight.cluster.fleet_manifests import KINDS, given_fleet
from kmm_preflight.cluster.inventory import Inventory, Key
from kmm_preflight.errors import Malformed, UsageProblem
from kmm_preflight.model import Manifest
from kmm_preflight.planning.module import GROUP, Module, parse_module

SUFFIXES = (".yaml", ".yml", ".json")
FILE_BYTES = 64 << 20
_CORE, _CONFIG = "v1", "config.openshift.io/v1"
_NAMESPACED = {"ConfigMap": _CORE, "Secret": _CORE, "ServiceAccount": _CORE}
_NAMESPACED_KINDS = (*_NAMESPACED, "NodePool")
_MIRRORS = {
    "ImageDigestMirrorSet": _CONFIG,
    "ImageTagMirrorSet": _CONFIG,
    "ImageContentSourcePolicy": "operator.openshift.io/v1alpha1",
}
# What serves Modules: the API version by kind. Another project's kind of that name is passed over.
_SERVING = {**_NAMESPACED, **_MIRRORS, "Image": _CONFIG, "Proxy": _CONFIG}
# Kinds that someone may have written for one of KMM's, in lower case.
_MISSPELT = {"module": "Module", "modules": "Module", "modulelist": "ModuleList"}


def read_manifests(paths: Iterable[str], namespace: str, stdin: TextIO) -> Inventory:
    """The inventory in files, folders (all YAML and JSON below) and - (stdin); other kinds are passed over.

    namespace counts where a manifest has none. UsageProblem names file, document and field of what the CRD or KMM's
    webhook would refuse, and both places of a Module that stands twice.
    """
    modules: dict[Key, tuple[Module, DocumentPlace]] = {}
    serving: dict[str, dict[Key, Manifest]] = {kind: {} for kind in (*_SERVING, *KINDS)}
    for path in paths:
        for place, manifest in _objects(path, stdin):
            if _is_module(manifest, place):
                _add_module(modules, manifest, place, namespace)
            elif manifest.get("apiVersion") == _SERVING.get(str(manifest["kind"]), ""):
                _add_serving(serving[str(manifest["kind"])], manifest, place, namespace)
            elif manifest.get("apiVersion") in KINDS.get(str(manifest["kind"]), ()):
                _add_newest(serving[str(manifest["kind"])], manifest, place, namespace)
    fleet = given_fleet({kind: tuple(serving[kind].values()) for kind in KINDS}, serving["ConfigMap"])
    return Inventory(
        modules=tuple(module for _, (module, _) in sorted(modules.items())),
        config_maps=serving["ConfigMap"],
        secrets=serving["Secret"],
        service_accounts=serving["ServiceAccount"],
        mirrors=tuple(manifest for kind in _MIRRORS for manifest in serving[kind].values()),
        image_config=serving["Image"].get(("", "cluster")),
        proxy=serving["Proxy"].get(("", "cluster")),
        fleet=fleet,
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
        raise UsageProblem(f"--manifests {path}: got a folder without {', '.join(SUFFIXES)} files")
    return found


def _walk(path: Path) -> Iterator[Path]:
    """The files below a folder, without pipes and the like, which would be waited for; a link to nowhere is one."""
    for folder, folders, names in os.walk(path, onerror=_unreadable):
        # A ConfigMap's volume keeps its files in such a folder, and links to them beside it.
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
        raise UsageProblem("--manifests -: got bytes that are no text, expected manifests") from exc
    if len(text) > FILE_BYTES:
        raise UsageProblem(f"--manifests -: got more than {FILE_BYTES >> 20} MiB, expected manifests")
    return text.removeprefix("\ufeff")


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            body = stream.read(FILE_BYTES + 1)
    except OSError as exc:
        raise UsageProblem(f"--manifests {file}: cannot be read ({exc.strerror})") from exc
    if len(body) > FILE_BYTES:
        raise UsageProblem(f"--manifests {file}: got more than {FILE_BYTES >> 20} MiB, expected manifests")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UsageProblem(f"--manifests {file}: got bytes that are no UTF-8, expected manifests") from exc


def _is_module(manifest: Manifest, place: DocumentPlace) -> bool:
    """Whether this is a Module of KMM. A group or kind that KMM never had would be missed in silence: refused."""
    api, kind = manifest.get("apiVersion"), str(manifest["kind"])
    group = api.partition("/")[0] if isinstance(api, str) else ""
    if kind != "Module":
        if kind.casefold() in _MISSPELT and group.startswith("kmm."):
            raise UsageProblem(f"{place}: kind: got {kind}, expected {_MISSPELT[kind.casefold()]}")
        return False
    if not isinstance(api, str):
        raise UsageProblem(f"{place}: apiVersion: got none, expected {GROUP}/v1beta1")
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
        raise UsageProblem(f"Module {module.name} stands twice: in {modules[key][1]} and in {place}; keep one of them")
    modules[key] = (module, place)


def _name(manifest: Manifest) -> str:
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) and name else "without a name"


def _add_serving(objects: dict[Key, Manifest], manifest: Manifest, place: DocumentPlace, namespace: str) -> None:
    key = _key(manifest, place, namespace)
    if objects.get(key, manifest) != manifest:
        raise _twice(manifest, key, place)
    objects[key] = manifest


def _add_newest(objects: dict[Key, Manifest], manifest: Manifest, place: DocumentPlace, namespace: str) -> None:
    """The same; of two states of one object, as several must-gathers have them, the later counts."""
    key = _key(manifest, place, namespace)
    before = objects.get(key, manifest)
    versions = [_resource_version(one) for one in (before, manifest)]
    if before != manifest and (0 in versions or versions[0] == versions[1]):
        raise _twice(manifest, key, place)
    objects[key] = before if versions[0] > versions[1] else manifest


def _resource_version(manifest: Manifest) -> int:
    """The resourceVersion as a number, which Kubernetes 1.35 says that it is; 0 for none."""
    metadata = manifest.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return (
        int(version)
        if isinstance(version, str) and version.isascii() and version.isdigit() and len(version) < 20
        else 0
    )


def _key(manifest: Manifest, place: DocumentPlace, namespace: str) -> Key:
    document = Field(manifest)
    try:
        metadata = document["metadata"]
        inside = metadata["namespace"].text() or namespace if manifest["kind"] in _NAMESPACED_KINDS else ""
        return inside, metadata["name"].text()
    except Malformed as exc:
        raise UsageProblem(f"{place}: {manifest['kind']}: {exc.message}") from exc


def _twice(manifest: Manifest, key: Key, place: DocumentPlace) -> UsageProblem:
    return UsageProblem(
        f"{place}: {manifest['kind']} {'/'.join(key).lstrip('/')} stands twice, and not alike; keep one of them"
    )
