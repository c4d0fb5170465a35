"""Log in to an API server by a kubeconfig, or by the account of the Pod in which the suite runs."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import kubernetes
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from kmm_preflight.cluster.api import Access
from kmm_preflight.cluster.kubeconfig import KubeconfigContext, choose_context, token_subject
from kmm_preflight.cluster.kubernetes import KubernetesApi
from kmm_preflight.cluster.transport import Transport
from kmm_preflight.errors import UsageProblem

_LOOPBACK = re.compile(r"127\.\d+\.\d+\.\d+|::1")


def connect(access: Access) -> KubernetesApi:
    """Return the API server, without a request to it. Raise UsageProblem if no login can be used.

    Without a kubeconfig, return the API server of the Pod in which the suite runs, with the Pod's account.
    """
    configuration = kubernetes.client.Configuration()
    context = choose_context(access)
    with _captured_log() as lines:
        try:
            _log_in(configuration, context)
        except kubernetes.config.ConfigException as exc:
            raise _no_login(access, context, str(exc)) from exc
        except (ApiException, HTTPError, OSError, AttributeError, KeyError, TypeError, ValueError) as exc:
            raise _no_login(access, context, f"{type(exc).__name__}: {exc}") from exc
    authorization = configuration.api_key.get("BearerToken", "")
    if context and context.plugin and not authorization and not configuration.cert_file:
        # The library logs this problem, and would continue without a login.
        raise UsageProblem(f"{context}: {context.plugin} gave no credentials ({'; '.join(lines)}); log in again")
    _strip_tokens(configuration)
    _choose_proxy(configuration, context.proxy if context else None)
    configuration.retries = False
    account = token_subject(authorization) or _account(context)
    return KubernetesApi(Transport(configuration, account, access.api_seconds))


def _account(context: KubeconfigContext | None) -> str:
    """Return words for an account whose token does not name it."""
    if context is None:
        return "the Pod's account"
    return f"user {context.user} of {context}" if context.user else f"the user of {context}"


def _log_in(configuration: kubernetes.client.Configuration, context: KubeconfigContext | None) -> None:
    if context is None:
        kubernetes.config.load_incluster_config(configuration)
        return
    files = os.pathsep.join(str(file) for file in context.files)
    kubernetes.config.load_kube_config(files, context.name, configuration, persist_config=False)


def _no_login(access: Access, context: KubeconfigContext | None, words: str) -> UsageProblem:
    if context:
        return UsageProblem(f"{context}: {words}; expected a login that can be used")
    files = " and ".join(str(file) for file in access.kubeconfig)
    return UsageProblem(
        f"no --manifests and no cluster: no kubeconfig {files} ({access.named_by or 'the default'}), and the suite "
        f"does not run inside a Pod ({words.rstrip('.')}). Pass files with Modules, or a cluster by --kubeconfig FILE."
    )


@contextmanager
def _captured_log() -> Iterator[list[str]]:
    """Collect what the library logs. Otherwise the lines would be printed on the terminal."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield lines
    finally:
        root.removeHandler(handler)


def _choose_proxy(configuration: kubernetes.client.Configuration, proxy: str | None) -> None:
    """Choose the proxy as Go does, not as the library does.

    The kubeconfig's proxy applies whatever NO_PROXY says. A server on the loopback interface has no other proxy.
    """
    host = urlsplit(str(configuration.host)).hostname or ""
    if proxy:
        configuration.no_proxy = None
    elif host == "localhost" or _LOOPBACK.fullmatch(host):
        configuration.proxy = None


def _strip_tokens(configuration: kubernetes.client.Configuration) -> None:
    """Remove the line end from tokens of files, now and at each renewal, as kubectl does."""
    renew = configuration.refresh_api_key_hook

    def strip(current: kubernetes.client.Configuration) -> None:
        if renew:
            renew(current)
        if token := current.api_key.get("BearerToken"):
            current.api_key["BearerToken"] = token.strip()

    configuration.refresh_api_key_hook = strip  # type: ignore[assignment]  # the library types it as its default
