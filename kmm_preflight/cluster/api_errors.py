"""Errors of an API server become errors of this suite."""

from __future__ import annotations

import ssl

from kmm_preflight.cluster.api import BUILDS, JOBS, PODS, Conflict, Forbidden
from kmm_preflight.cluster.api_request import ApiRequest
from kmm_preflight.errors import AccessDenied, Malformed, NotFound, PreflightError, Unreachable, Untrusted

_BUSY = (429, 500, 502, 503, 504)
# deploy/rbac-builds.yaml grants the verbs on these resources. Only builders in the cluster need them.
_OF_BUILDS = (JOBS, PODS, BUILDS)


class ListExpired(PreflightError):
    """The server no longer has the snapshot that a list was read from."""


def error_of_status(subject: str, request: ApiRequest, status: int, words: str) -> PreflightError:
    """Return the error for an HTTP status. words is the server's message."""
    match status:
        case 401:
            return AccessDenied(f"{subject}: got 401 ({words}); log in again")
        case 403:
            role = "deploy/rbac-builds.yaml" if request.kind in _OF_BUILDS else "deploy/rbac.yaml"
            return Forbidden(f"{subject}: got 403 ({words}); grant the verb, see {role}")
        case 404:
            return NotFound(f"{subject}: got 404 ({words})")
        case 409:
            return Conflict(f"{subject}: got 409 ({words})")
        case 410:
            return ListExpired(f"{subject}: got 410 ({words})")
        case _ if status in _BUSY:
            return Unreachable(f"{subject}: got {status} ({words}); run again")
        case _:
            return Malformed(f"{subject}: got {status} ({words})")


def error_of_connection(server: str, exc: Exception, seconds: float) -> PreflightError:
    """Return the error for a connection that failed within so many seconds."""
    words = str(getattr(exc, "reason", None) or exc)
    if _is_certificate_error(exc):
        return Untrusted(
            f"API server {server}: its certificate is not trusted ({words}); expected a certificate of the authority "
            "in the kubeconfig"
        )
    return Unreachable(
        f"API server {server}: no answer within {seconds:.0f} s ({words}); check that the server runs and that "
        "network and proxy lead to it, then run again"
    )


def _is_certificate_error(exc: BaseException | None) -> bool:
    """True if the first cause is a certificate. The library wraps this error several times."""
    while exc is not None:
        if any(isinstance(error, ssl.SSLCertVerificationError) for error in (exc, *exc.args)):
            return True
        exc = exc.__cause__ or exc.__context__
    return False
