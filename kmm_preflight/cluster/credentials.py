"""Choose the credentials of a pull: as the node that loads a kmod, as KMM's builds, or for the release image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster import findings
from kmm_preflight.cluster.inventory import BUILD_ACCOUNT, NODE_ACCOUNT, PULL_SECRET, Inventory, Key
from kmm_preflight.errors import Malformed
from kmm_preflight.model import Finding, Manifest
from kmm_preflight.oci.auth import Keychain, holds_login, parse_pull_secret
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.planning.plan import Case, Plan

# `oc adm inspect` replaces each value of a Secret by its length.
_ELIDED = "bytes long"


@dataclass(frozen=True)
class Credentials:
    """The credentials with which a Module's image is pulled."""

    pull: PullCredentials = field(default_factory=PullCredentials)
    """The credentials."""
    note: Finding | None = None
    """A finding about a Secret that was not given, or None."""
    problem: Finding | None = None
    """A finding about a Secret that cannot be used, or None."""

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
    """True if the pull fails without a login in the Secret."""


def node_secrets(case: Case, inventory: Inventory) -> tuple[NamedSecret, ...]:
    """Return the Secrets of the Pod that pulls the image: the Module's own, else those of the account `default`."""
    return _secrets(case, inventory, NODE_ACCOUNT)


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


def image_credentials(plan: Plan, inventory: Inventory, authfile: Keychain | None) -> Credentials:
    """Return the credentials of a plan, as on the node. A Secret that cannot be used refutes the plan, as there.

    Without a cluster, --authfile replaces Secrets that were not given. In a cluster it never does.
    """
    return _credentials(plan, inventory, authfile, node_secrets(plan, inventory))


def build_credentials(plan: Plan, inventory: Inventory, authfile: Keychain | None, in_job: bool) -> Credentials:
    """Return the credentials with which the sections of a plan pull and push, by the rules of image_credentials.

    A Job has a Pod of the account `default`, without the logins of nodes.
    """
    if not in_job:
        return _credentials(plan, inventory, authfile, builder_secrets(plan, inventory))
    credentials = _credentials(plan, inventory, authfile, node_secrets(plan, inventory))
    return replace(credentials, pull=replace(credentials.pull, node=()))


def _credentials(
    plan: Plan, inventory: Inventory, authfile: Keychain | None, secrets: tuple[NamedSecret, ...]
) -> Credentials:
    stand_in = () if inventory.live or authfile is None else (replace(authfile, stand_in=True),)
    try:
        own = tuple(_keychains(secrets, inventory))
        node = _node_keychains(inventory)
    except Malformed as exc:
        return Credentials(problem=findings.CREDENTIALS_INVALID(problem=exc.message))
    if own:
        # With own Secrets, the file replaces the pull secret of the nodes, which nodes use at mirrors only.
        return Credentials(
            PullCredentials(own, node) if node else PullCredentials(own, stand_in, mirrors_only=bool(stand_in))
        )
    if plan.secret is not None and inventory.live:
        problem = f"{secrets[0].source}: the cluster has no such Secret"
        return Credentials(problem=findings.CREDENTIALS_INVALID(problem=problem))
    pull = PullCredentials(stand_in, node or stand_in)
    note = findings.MAPPING_SECRET_ABSENT(secret=plan.secret, used=pull) if plan.secret is not None else None
    return Credentials(pull, note=note)


def release_credentials(inventory: Inventory, authfile: Keychain | None) -> PullCredentials:
    """Return the credentials for release, driver toolkits and OS images: the nodes' pull secret, else --authfile."""
    return PullCredentials(node=_node_keychains(inventory) or ((authfile,) if authfile else ()))


def _node_keychains(inventory: Inventory) -> tuple[Keychain, ...]:
    secret = NamedSecret(PULL_SECRET, f"pull secret {'/'.join(PULL_SECRET)}", required=True)
    return tuple(_keychains((secret,), inventory))


def _keychains(secrets: tuple[NamedSecret, ...], inventory: Inventory) -> Iterator[Keychain]:
    """Yield the logins of the Secrets that were given. A kubelet ignores an account's Secret without a login."""
    for secret in secrets:
        manifest = inventory.secrets.get(secret.key)
        if manifest is not None and not is_elided(manifest) and (secret.required or holds_login(manifest)):
            yield parse_pull_secret(manifest, secret.source)


def is_elided(secret: Manifest) -> bool:
    """True for a Secret of a must-gather, which has no values."""
    data = secret.get("data")
    return isinstance(data, dict) and any(str(value).endswith(_ELIDED) for value in data.values())
