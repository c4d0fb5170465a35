"""With which credentials a Module's image is pulled: its own Secret first, --authfile in its absence."""

from __future__ import annotations

from dataclasses import replace

from kmm_preflight import findings
from kmm_preflight.cluster.inventory import Inventory
from kmm_preflight.errors import Malformed
from kmm_preflight.image import Credentials
from kmm_preflight.model import Manifest, Plan
from kmm_preflight.oci.auth import Keychain, parse_pull_secret

# What `oc adm inspect` writes in place of each value of a Secret.
_ELIDED = "bytes long"


def image_credentials(plan: Plan, inventory: Inventory, authfile: Keychain | None) -> Credentials:
    """The credentials of a plan. A Secret that is there but unusable refutes, as it would on the node."""
    fallback = Credentials(authfile, own=False)
    if plan.secret is None:
        return fallback
    secret = inventory.secrets.get((plan.module.namespace, plan.secret))
    if secret is None or _elided(secret):
        note = findings.MAPPING_SECRET_ABSENT(secret=plan.secret, used=fallback)
        return replace(fallback, note=note)
    source = f"imageRepoSecret {plan.module.namespace}/{plan.secret}"
    try:
        return Credentials(parse_pull_secret(secret, source), own=True)
    except Malformed as exc:
        return Credentials(None, own=True, problem=findings.CREDENTIALS_INVALID(problem=exc.message))


def _elided(secret: Manifest) -> bool:
    data = secret.get("data")
    return isinstance(data, dict) and any(str(value).endswith(_ELIDED) for value in data.values())
