"""With which credentials images are pulled: as the node that loads a kmod, as KMM's builds, as the release's reader."""

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

# What `oc adm inspect` writes in place of each value of a Secret.
_ELIDED = "bytes long"


@dataclass(frozen=True)
class Credentials:
    """What a Module's image is pulled with.

    note tells of a Secret that is not at hand; problem of one that cannot be used.
    """

    pull: PullCredentials = field(default_factory=PullCredentials)
    note: Finding | None = None
    problem: Finding | None = None

    def __str__(self) -> str:
        return str(self.pull)


@dataclass(frozen=True)
class NamedSecret:
    """A Secret by the words for whose it is; needed when a Module names it itself."""

    key: Key
    source: str
    needed: bool = False


def node_secrets(case: Case, inventory: Inventory) -> tuple[NamedSecret, ...]:
    """The Secrets of the Pod that KMM has pull the image: the Module's own, else those of the account `default`."""
    return _secrets(case, inventory, NODE_ACCOUNT)


def builder_secrets(plan: Plan, inventory: Inventory) -> tuple[NamedSecret, ...]:
    """The Secrets that a build pulls and pushes with: the Module's own, else those of the account `builder`."""
    return _secrets(plan, inventory, BUILD_ACCOUNT)


def _secrets(case: Case, inventory: Inventory, account: str) -> tuple[NamedSecret, ...]:
    namespace = case.module.namespace
    if case.secret is not None:
        return (NamedSecret((namespace, case.secret), f"imageRepoSecret {namespace}/{case.secret}", needed=True),)
    manifest = inventory.service_accounts.get((namespace, account), {})
    # Of the account of builds the Secrets that are not for pulling count too: with them it pushes.
    lists = ("imagePullSecrets", "secrets") if account == BUILD_ACCOUNT else ("imagePullSecrets",)
    names = dict.fromkeys(item["name"].text() for one in lists for item in Field(manifest)[one])
    words = f"of ServiceAccount {account}"
    return tuple(
        NamedSecret((namespace, name), f"imagePullSecret {namespace}/{name} {words}") for name in names if name
    )


def image_credentials(plan: Plan, inventory: Inventory, authfile: Keychain | None) -> Credentials:
    """The credentials of a plan, as the node has them. A Secret that is there but unusable refutes, as on the node.

    Without a cluster --authfile stands in for Secrets that are not at hand; in a cluster it never does.
    """
    return _credentials(plan, inventory, authfile, node_secrets(plan, inventory))


def build_credentials(plan: Plan, inventory: Inventory, authfile: Keychain | None, in_job: bool) -> Credentials:
    """The credentials with which a plan's sections pull and push; the same rules as for its image.

    A Job is a Pod as any other: it has the account `default`, and none of the nodes' own logins.
    """
    if not in_job:
        return _credentials(plan, inventory, authfile, builder_secrets(plan, inventory))
    credentials = _credentials(plan, inventory, authfile, node_secrets(plan, inventory))
    return replace(credentials, pull=replace(credentials.pull, node=()))


def _credentials(
    plan: Plan, inventory: Inventory, authfile: Keychain | None, named: tuple[NamedSecret, ...]
) -> Credentials:
    stand_in = () if inventory.live or authfile is None else (replace(authfile, stand_in=True),)
    try:
        own = tuple(_keychains(named, inventory))
        node = _node(inventory)
    except Malformed as exc:
        return Credentials(problem=findings.CREDENTIALS_INVALID(problem=exc.message))
    if own:
        # Beside the Module's own Secrets the file plays the node's pull secret, and that at mirrors only.
        return Credentials(
            PullCredentials(own, node) if node else PullCredentials(own, stand_in, mirrors_only=bool(stand_in))
        )
    if plan.secret is not None and inventory.live:
        problem = f"{named[0].source}: the cluster has no such Secret"
        return Credentials(problem=findings.CREDENTIALS_INVALID(problem=problem))
    pull = PullCredentials(stand_in, node or stand_in)
    note = findings.MAPPING_SECRET_ABSENT(secret=plan.secret, used=pull) if plan.secret is not None else None
    return Credentials(pull, note=note)


def release_credentials(inventory: Inventory, authfile: Keychain | None) -> PullCredentials:
    """What release and driver toolkit are pulled with: the nodes' own pull secret, else --authfile."""
    return PullCredentials(node=_node(inventory) or ((authfile,) if authfile else ()))


def _node(inventory: Inventory) -> tuple[Keychain, ...]:
    return tuple(
        _keychains((NamedSecret(PULL_SECRET, f"pull secret {'/'.join(PULL_SECRET)}", needed=True),), inventory)
    )


def _keychains(named: tuple[NamedSecret, ...], inventory: Inventory) -> Iterator[Keychain]:
    """Those that are at hand. Of an account's Secrets a kubelet passes over those that hold no login."""
    for one in named:
        secret = inventory.secrets.get(one.key)
        if secret is not None and not is_elided(secret) and (one.needed or holds_login(secret)):
            yield parse_pull_secret(secret, one.source)


def is_elided(secret: Manifest) -> bool:
    """Whether a must-gather has the Secret without what is in it."""
    data = secret.get("data")
    return isinstance(data, dict) and any(str(value).endswith(_ELIDED) for value in data.values())
