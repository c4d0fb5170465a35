"""Pull of an image as a node pulls it, and the finding if the pull fails (docs/reference/kmm.md 12.3)."""

from __future__ import annotations

from kmm_preflight.cluster.credentials import Credentials
from kmm_preflight.errors import AccessDenied, PreflightError, Unreachable, Untrusted
from kmm_preflight.model import VERIFIED_HTTPS, Finding
from kmm_preflight.oci import findings as oci_findings
from kmm_preflight.oci.credentials import candidates
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import ImageName, Reference, on_cluster_network
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages import findings


def open_as_node(plan: Plan, name: ImageName, images: ImageResolver, credentials: Credentials) -> Image:
    """Return the image. Apply the Module's registryTLS only if the client on the node does. Raise PreflightError."""
    tls = plan.tls if credentials.registry_tls else VERIFIED_HTTPS
    return images.pulled(name, plan.kernel.arch, credentials.pull, tls)


def why_not_pulled(
    error: PreflightError, plan: Plan, name: ImageName, images: ImageResolver, credentials: Credentials
) -> Finding:
    """Return the finding for an error of a pull, or of reading the image after the pull."""
    match error:
        case AccessDenied():
            return _refused(error, name, credentials)
        case Unreachable() if isinstance(name, Reference) and on_cluster_network(name.host):
            return findings.REGISTRY_INTERNAL(problem=error.message, host=name.host)
        case Untrusted() | Unreachable() if _helped_by_registry_tls(plan, name, images, credentials):
            kind = findings.REGISTRY_TLS_IGNORED if credentials.trust_known else findings.REGISTRY_TLS_OPEN
            return kind(problem=error.message)
    return oci_findings.finding_of(error, plan.kernel.version)


def _refused(error: AccessDenied, name: ImageName, credentials: Credentials) -> Finding:
    """Return the finding for a refused login. Nodes may have a login that this run does not have."""
    if credentials.login_unknown:
        return findings.IMAGE_LOGIN_UNKNOWN(problem=error.message, credentials=credentials)
    if credentials.pull.mirrors_only and isinstance(name, Reference):
        logins = candidates(credentials.pull.node, name.host, name.repository)
        if logins != (None,):
            return findings.IMAGE_LOGIN_UNKNOWN(problem=error.message, credentials=credentials)
    return findings.IMAGE_ACCESS_DENIED(problem=error.message, credentials=credentials)


def _helped_by_registry_tls(plan: Plan, name: ImageName, images: ImageResolver, credentials: Credentials) -> bool:
    """True if the image could be pulled by the Module's registryTLS, which the client on the node does not obey."""
    if plan.tls == VERIFIED_HTTPS or credentials.registry_tls:
        return False
    try:
        images.pulled(name, plan.kernel.arch, credentials.pull, plan.tls)
    except AccessDenied:
        return True  # the registry answered
    except PreflightError:
        return False
    return True
