"""Choose the credentials of a pull: as the node that loads a kmod, as KMM's builds, or for the release image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster import findings
from kmm_preflight.cluster.inventory import (
    BUILD_ACCOUNT,
    NODE_ACCOUNT,
    OPERATOR_ACCOUNT,
    OPERATOR_NAMESPACES,
    PULL_SECRET,
    Inventory,
    Key,
)
from kmm_preflight.errors import Malformed
from kmm_preflight.kmm_version import parse_kmm_version
from kmm_preflight.model import Finding, Manifest
from kmm_preflight.oci.auth import Keychain, holds_login, no_login, parse_pull_secret
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.signature_policy import SignaturePolicy, parse_signature_policies
from kmm_preflight.planning.plan import Case, Plan

# `oc adm inspect` replaces each value of a Secret by its length.
_ELIDED = "bytes long"
# Kinds whose kmods are loaded by Pods of KMM.
_WITH_POD = ("Module", "ManagedClusterModule")
_KUBELET_PULLS = (2, 2)


@dataclass(frozen=True)
class Credentials:
    """The credentials with which a Module's image is pulled, and what is known about the nodes' own client."""

    pull: PullCredentials = field(default_factory=PullCredentials)
    """The credentials."""
    note: Finding | None = None
    """A finding about a Secret that was not given, or None."""
    problem: Finding | None = None
    """A finding about a Secret that cannot be used, or None."""
    unused: tuple[Finding, ...] = ()
    """Findings about Secrets that give nodes no login."""
    login_unknown: bool = False
    """True if this run has none of the Secrets with which nodes pull: then a refusal proves nothing."""
    registry_tls: bool = True
    """True if the client that pulls obeys the Module's registryTLS."""
    trust_known: bool = False
    """True if the registry settings of the nodes were read."""
    policies: tuple[SignaturePolicy, ...] = ()
    """Policies of the cluster that require a signature of the image."""

    @property
    def notes(self) -> tuple[Finding, ...]:
        """All findings about Secrets that do not decide."""
        return ((self.note,) if self.note else ()) + self.unused

    def __str__(self) -> str:
        return str(self.pull)


@dataclass(frozen=True)
class NamedSecret:
    """A Secret that a Module or a ServiceAccount names."""

    key: Key
    """Namespace and name."""
    source: str
    """The Secret and the object that names it, in words."""
    required: bool = False
    """True if the Module or the node names the Secret itself: a report says if the Secret has no login."""


def node_secrets(case: Case, inventory: Inventory) -> tuple[NamedSecret, ...]:
    """Return the Secrets of the Pod that pulls the image: the Module's own, else those of the Pod's account.

    Boot-time objects have no Pod, so they have no such Secrets.
    """
    if case.module.kind not in _WITH_POD:
        return ()
    account = case.account if isinstance(case, Plan) else None
    return _secrets(case, inventory, account or node_account(case.module.namespace, inventory))


def node_account(namespace: str, inventory: Inventory) -> str:
    """Return the account of KMM's Pods for a Module that names no account (docs/reference/kmm.md 12.1)."""
    operated = namespace in OPERATOR_NAMESPACES or (namespace, OPERATOR_ACCOUNT) in inventory.service_accounts
    return OPERATOR_ACCOUNT if operated else NODE_ACCOUNT


def builder_secrets(plan: Plan, inventory: Inventory) -> tuple[NamedSecret, ...]:
    """Return the Secrets of a build: the Module's own, else those of the account `builder`."""
    return _secrets(plan, inventory, BUILD_ACCOUNT)


def _secrets(case: Case, inventory: Inventory, account: str) -> tuple[NamedSecret, ...]:
    namespace = case.module.namespace
    if case.secret is not None:
        return (NamedSecret((namespace, case.secret), f"imageRepoSecret {namespace}/{case.secret}", required=True),)
    manifest = Field(inventory.service_accounts.get((namespace, account), {}))
    # A build also uses the mountable Secrets of its account, to push.
    lists = ("imagePullSecrets", "secrets") if account == BUILD_ACCOUNT else ("imagePullSecrets",)
    names = dict.fromkeys(item["name"].text() for list_name in lists for item in manifest[list_name])
    words = f"of ServiceAccount {account}"
    return tuple(
        NamedSecret((namespace, name), f"imagePullSecret {namespace}/{name} {words}") for name in names if name
    )


def image_credentials(
    plan: Plan, inventory: Inventory, authfile: Keychain | None, kmm_version: str | None = None
) -> Credentials:
    """Return the credentials of a plan, as on the node. A Secret that a kubelet cannot parse refutes the plan.

    Without a cluster, --authfile replaces Secrets that were not given. In a cluster it never does.
    """
    credentials = _credentials(plan, inventory, authfile, node_secrets(plan, inventory))
    own_client = _pulls_by_itself(plan, kmm_version)
    namespace = plan.module.namespace if plan.module.kind in _WITH_POD else None
    policies = () if own_client else parse_signature_policies(inventory.image_policies).required(plan.image, namespace)
    return replace(
        credentials,
        registry_tls=own_client,
        trust_known=inventory.image_config is not None,
        policies=policies,
    )


def _pulls_by_itself(plan: Plan, kmm_version: str | None) -> bool:
    """True if KMM's own client pulls on the node: it knows registryTLS and no policies (docs/reference/kmm.md 12.3)."""
    of_pod = plan.module.kind in _WITH_POD
    return of_pod and kmm_version is not None and parse_kmm_version(kmm_version) < _KUBELET_PULLS


def build_credentials(plan: Plan, inventory: Inventory, authfile: Keychain | None, in_job: bool) -> Credentials:
    """Return the credentials with which the sections of a plan pull and push, by the rules of image_credentials.

    A Job has a Pod of the account `default`, without the logins of nodes.
    """
    if not in_job:
        return _credentials(plan, inventory, authfile, builder_secrets(plan, inventory))
    credentials = _credentials(plan, inventory, authfile, _secrets(plan, inventory, NODE_ACCOUNT))
    return replace(credentials, pull=replace(credentials.pull, node=()))


def _credentials(
    plan: Plan, inventory: Inventory, authfile: Keychain | None, secrets: tuple[NamedSecret, ...]
) -> Credentials:
    stand_in = () if inventory.live or authfile is None else (replace(authfile, stand_in=True),)
    try:
        unused = tuple(_unused(secrets, inventory))
        own = tuple(_keychains(secrets, inventory))
        node = _node_keychains(inventory)
    except Malformed as exc:
        return Credentials(problem=findings.CREDENTIALS_INVALID(problem=exc.message))
    if own:
        # With own Secrets, the file replaces the pull secret of the nodes, which nodes use at mirrors only.
        pull = PullCredentials(own, node) if node else PullCredentials(own, stand_in, mirrors_only=bool(stand_in))
        return Credentials(pull, unused=unused)
    absent = not inventory.live and any(_is_absent(secret, inventory) for secret in secrets)
    if inventory.live or (unused and not absent):
        pull = PullCredentials((), node or stand_in, mirrors_only=bool(stand_in and not node))
        return Credentials(pull, unused=unused)
    pull = PullCredentials(stand_in, node or stand_in)
    note = findings.MAPPING_SECRET_ABSENT(secret=plan.secret, used=pull) if plan.secret and absent else None
    return Credentials(pull, note=note, unused=unused, login_unknown=absent or not node)


def _unused(secrets: tuple[NamedSecret, ...], inventory: Inventory) -> Iterator[Finding]:
    """Yield findings about Secrets that give no login, although the Module names them or they hold logins.

    A kubelet goes on without these Secrets. Raise Malformed for a Secret without a type that holds broken logins.
    """
    for secret in secrets:
        if problem := _why_unused(secret, inventory):
            yield findings.PULL_SECRET_UNUSED(source=secret.source, problem=problem)


def _is_absent(secret: NamedSecret, inventory: Inventory) -> bool:
    manifest = inventory.secrets.get(secret.key)
    return manifest is None or is_elided(manifest)


def _why_unused(secret: NamedSecret, inventory: Inventory) -> str | None:
    manifest = inventory.secrets.get(secret.key)
    if manifest is None:
        return "the cluster has no such Secret" if inventory.live and secret.required else None
    if is_elided(manifest) or not (secret.required or holds_login(manifest)):
        return None
    untyped = not manifest.get("type") and holds_login(manifest)
    if untyped and not parse_pull_secret(manifest, secret.source).credentials:
        return None
    return no_login(manifest)


def release_credentials(inventory: Inventory, authfile: Keychain | None) -> PullCredentials:
    """Return the credentials for release, driver toolkits and OS images: the nodes' pull secret, else --authfile."""
    return PullCredentials(node=_node_keychains(inventory) or ((authfile,) if authfile else ()))


def _node_keychains(inventory: Inventory) -> tuple[Keychain, ...]:
    manifest = inventory.secrets.get(PULL_SECRET)
    if manifest is None or is_elided(manifest):
        return ()
    # The machine config operator copies the key to the nodes, whatever the type of the Secret is.
    return (parse_pull_secret({**manifest, "type": ""}, f"pull secret {'/'.join(PULL_SECRET)}"),)


def _keychains(secrets: tuple[NamedSecret, ...], inventory: Inventory) -> Iterator[Keychain]:
    """Yield the logins of the Secrets that were given. Ignore a Secret of which a kubelet reads no login."""
    for secret in secrets:
        manifest = inventory.secrets.get(secret.key)
        if manifest is None or is_elided(manifest):
            continue
        if no_login(manifest) is None:
            yield parse_pull_secret(manifest, secret.source)


def is_elided(secret: Manifest) -> bool:
    """True for a Secret of a must-gather, which has no values."""
    data = secret.get("data")
    return isinstance(data, dict) and any(str(value).endswith(_ELIDED) for value in data.values())
