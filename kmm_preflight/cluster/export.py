"""Objects of a cluster that a run reads, as manifests for a run without that cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kmm_preflight.cluster import api as resources
from kmm_preflight.cluster.api import Forbidden, ReadApi, ResourceKind
from kmm_preflight.cluster.api_reader import read_cluster, secrets_of_kept_versions, with_fleet
from kmm_preflight.cluster.inventory import Key
from kmm_preflight.cluster.kmod_sources import resource_of
from kmm_preflight.errors import NotFound
from kmm_preflight.model import Manifest
from kmm_preflight.planning.day1_machine_config import SCRIPTS
from kmm_preflight.planning.kinds import SOURCE_KINDS

KINDS: Mapping[ResourceKind, str] = {
    resources.MODULES: "Module",
    **{resource_of(row): row.kind for row in SOURCE_KINDS},
    resources.MANAGED_CLUSTERS: "ManagedCluster",
    resources.CONFIG_MAPS: "ConfigMap",
    resources.SECRETS: "Secret",
    resources.SERVICE_ACCOUNTS: "ServiceAccount",
    resources.DIGEST_MIRRORS: "ImageDigestMirrorSet",
    resources.TAG_MIRRORS: "ImageTagMirrorSet",
    resources.CONTENT_POLICIES: "ImageContentSourcePolicy",
    resources.CLUSTER_IMAGE_POLICIES: "ClusterImagePolicy",
    resources.IMAGE_POLICIES: "ImagePolicy",
    resources.OLDER_CLUSTER_IMAGE_POLICIES: "ClusterImagePolicy",
    resources.OLDER_IMAGE_POLICIES: "ImagePolicy",
    resources.IMAGE_CONFIGS: "Image",
    resources.PROXIES: "Proxy",
    resources.NODES: "Node",
    resources.NODE_MODULES: "NodeModulesConfig",
    resources.POOLS: "MachineConfigPool",
    resources.MACHINE_CONFIGS: "MachineConfig",
    resources.LAYERED_POOLS: "MachineOSConfig",
    resources.OS_STREAMS: "OSImageStream",
    resources.OLDER_OS_STREAMS: "OSImageStream",
    resources.CLUSTER_VERSIONS: "ClusterVersion",
}
"""The kind of each resource that is exported. Items of a list do not always have one."""

BRINGING_KMODS = (resources.MODULES, *(resource_of(row) for row in SOURCE_KINDS))
"""Resources whose objects bring kmods, without MachineConfigs."""

# A run without these objects says so in its findings; a run without Modules has nothing to judge.
_MAY_BE_MISSING = (resources.SECRETS, resources.CONFIG_MAPS, resources.SERVICE_ACCOUNTS)
# Files of a MachineConfig can hold credentials of the node. No check reads them, except KMM's scripts.
_LEFT_OUT_OF_CONFIG = ("storage", "passwd")
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True)
class Export:
    """Manifests of a cluster, with words about what is missing."""

    manifests: Mapping[ResourceKind, tuple[Manifest, ...]]
    """Manifests by resource, in the order in which they were read."""
    unread: tuple[str, ...]
    """A sentence for each resource that the account may not read."""
    logins_left_out: int
    """Number of Secrets that nodes pull with and that no Module names; they were not exported."""


def export_cluster(api: ReadApi, node_logins: bool) -> Export:
    """Read what a run on the cluster reads, and return it without the parts that no run reads.

    Secrets and ConfigMaps are those that Modules name. If node_logins is true, also export the pull secret of the
    nodes and the pull secrets of their ServiceAccounts. Raise the errors of ReadApi, and NotFound without KMM.
    """
    recording = _Recording(api)
    inventory = read_cluster(recording)
    if not any(kind in recording.manifests for kind in BRINGING_KMODS):
        raise NotFound(f"cluster {api.server}: KMM is not installed, because the API serves no Modules")
    inventory = with_fleet(recording, inventory)
    modules = inventory.modules_of_all_kinds()
    named = {(module.name.namespace, module.secret) for module in modules if module.secret}
    named |= {key for module in modules for key in module.build_and_sign_secrets()}
    named |= secrets_of_kept_versions(inventory)
    for namespace, name in sorted(named):
        recording.get(resources.SECRETS, name, namespace)
    for namespace, name in sorted({key for module in modules for key in module.dockerfiles()}):
        recording.get(resources.CONFIG_MAPS, name, namespace)
    logins = set(recording.manifests.get(resources.SECRETS, {})) - named
    if not node_logins:
        for key in logins:
            del recording.manifests[resources.SECRETS][key]
    manifests = {
        kind: tuple(_cleaned(manifest, kind) for manifest in found.values())
        for kind, found in recording.manifests.items()
        if found
    }
    return Export(manifests, tuple(recording.unread), 0 if node_logins else len(logins))


@dataclass
class _Recording:
    """An API server that keeps each object that was read from it."""

    api: ReadApi
    manifests: dict[ResourceKind, dict[Key, Manifest]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    @property
    def server(self) -> str:
        """Return the URL of the server."""
        return self.api.server

    def serves(self, kind: ResourceKind) -> bool:
        """Return True if the server has the resource."""
        return self.api.serves(kind)

    def list(
        self, kind: ResourceKind, namespace: str | None = None, name: str | None = None, labels: str | None = None
    ) -> tuple[Manifest, ...] | None:
        """Return the objects, and keep them. Raise Forbidden, and keep its words.

        If ServiceAccounts are forbidden, return None, as if there were no such objects.
        """
        try:
            found = self.api.list(kind, namespace, name, labels)
        except Forbidden as exc:
            self._miss(exc)
            if kind in _MAY_BE_MISSING:
                return None
            raise
        if found is not None:
            self._keep(kind, *found)
        return found

    def get(
        self, kind: ResourceKind, name: str, namespace: str | None = None, metadata_only: bool = False
    ) -> Manifest | None:
        """Return the object, and keep it. Raise Forbidden, and keep its words.

        If a Secret or a ConfigMap is forbidden, return None, as for an object that does not exist.
        """
        try:
            found = self.api.get(kind, name, namespace, metadata_only)
        except Forbidden as exc:
            self._miss(exc)
            if kind in _MAY_BE_MISSING:
                return None
            raise
        if found is not None:
            self._keep(kind, found)
        return found

    def _keep(self, kind: ResourceKind, *manifests: Manifest) -> None:
        kept = self.manifests.setdefault(kind, {})
        for manifest in manifests:
            kept[_key(manifest)] = manifest

    def _miss(self, error: Forbidden) -> None:
        if error.message not in self.unread:
            self.unread.append(error.message)


def _key(manifest: Manifest) -> Key:
    metadata = _mapping(manifest.get("metadata"))
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))


def _mapping(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, dict) else {}


def _cleaned(manifest: Manifest, kind: ResourceKind) -> Manifest:
    """Return the manifest with its kind, without notes of tools that can repeat a Secret, and without node files."""
    metadata = _mapping(manifest.get("metadata"))
    metadata.pop("managedFields", None)
    annotations = _mapping(metadata.pop("annotations", None))
    annotations.pop(_APPLIED, None)
    if annotations:
        metadata["annotations"] = annotations
    version = f"{kind.group}/{kind.version}" if kind.group else kind.version
    cleaned = {**manifest, "apiVersion": version, "kind": KINDS[kind], "metadata": metadata}
    if kind == resources.MACHINE_CONFIGS:
        spec = _mapping(manifest.get("spec"))
        whole = _mapping(spec.get("config"))
        config = {key: value for key, value in whole.items() if key not in _LEFT_OUT_OF_CONFIG}
        if files := _scripts(whole):
            config["storage"] = {"files": files}
        cleaned["spec"] = {**spec, "config": config}
    return cleaned


def _scripts(config: dict[str, object]) -> list[object]:
    """Return the files of a MachineConfig in which KMM's day-1 utility names an image."""
    files = _mapping(config.get("storage")).get("files")
    return [file for file in files if _mapping(file).get("path") in SCRIPTS] if isinstance(files, list) else []
