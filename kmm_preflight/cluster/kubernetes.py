"""The API server over the kubernetes client. The only importer of that library; its errors become ours here, once."""

from __future__ import annotations

import json
import logging
import os
import re
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import kubernetes
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from kmm_preflight.base.polling import polls
from kmm_preflight.cluster.api import BUILDS, JOBS, PODS, Access, Conflict, Forbidden, ResourceKind
from kmm_preflight.cluster.kubeconfig import KubeconfigContext, choose, token_subject
from kmm_preflight.cluster.stream import TROUBLE, Stream, StreamRefused, words_of
from kmm_preflight.errors import (
    AccessDenied,
    Malformed,
    NotFound,
    PreflightError,
    Unreachable,
    Untrusted,
    UsageProblem,
)
from kmm_preflight.model import Manifest

PAGE = 500
FIRST_SECONDS = 10.0
CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
# A server that has just come back may refuse what it will allow once it has read its roles.
DOUBT_SECONDS = 5.0
LOG_SECONDS = 5.0
FIRST_PAUSE = 0.3
RESTARTS = 3
_BUSY = (429, 500, 502, 503, 504)
_LOOPBACK = re.compile(r"127\.\d+\.\d+\.\d+|::1")
# By this name managedFields tell what this suite wrote.
_AS_US = (("fieldManager", "kmm-preflight"),)
_JSON = "application/json"
_METADATA = f"{_JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_ANYTHING = f"{_JSON}, */*"
_MERGE_PATCH = "application/merge-patch+json"
# Where the verbs are granted that only a builder in the cluster needs.
_BUILDING = (JOBS, PODS, BUILDS)


class _Expired(PreflightError):
    """The server keeps the snapshot no longer that a list was being read from."""


@dataclass(frozen=True)
class _Question:
    """One request, with the words by which a refusal names it."""

    verb: str
    kind: ResourceKind
    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: Manifest | None = None
    accept: str = _JSON
    part: str = ""

    @property
    def words(self) -> str:
        """Verb and resource, as RBAC has them."""
        return f"{self.verb} {self.kind.resource}{'/' if self.part else ''}{self.part}"


class KubernetesApi:
    """See Api. Refused and reset connections, 429 and 5xx are tried again with back-off until the time is up."""

    def __init__(self, configuration: kubernetes.client.Configuration, account: str, api_seconds: float) -> None:
        self._client = kubernetes.client.ApiClient(configuration)
        self._account = account
        self._api_seconds = api_seconds
        self._seconds = min(FIRST_SECONDS, api_seconds)  # until the server has answered once
        self._doubted_until = 0.0

    @property
    def server(self) -> str:
        """See Api."""
        return str(self._client.configuration.host)

    def serves(self, kind: ResourceKind) -> bool:
        """See Api."""
        try:
            answer = self._ask(_Question("get", kind, "GET", _base(kind)))
        except NotFound:
            return False
        return any(one.get("name") == kind.plural for one in answer.get("resources") or ())

    def list(
        self, kind: ResourceKind, namespace: str = "", name: str = "", labels: str = ""
    ) -> tuple[Manifest, ...] | None:
        """See Api."""
        chosen = {"fieldSelector": f"metadata.name={name}" if name else "", "labelSelector": labels}
        query = tuple((key, value) for key, value in chosen.items() if value)
        for _ in range(RESTARTS):
            try:
                return self._pages(kind, namespace, query)
            except _Expired:
                continue  # what was read belongs to a past that the rest does not: anew
            except NotFound:
                return None
        subject = f"API server {self.server}: list {kind.resource}"
        raise Unreachable(f"{subject}: the list expired {RESTARTS} times while it was read; run again")

    def _pages(self, kind: ResourceKind, namespace: str, chosen: tuple[tuple[str, str], ...]) -> tuple[Manifest, ...]:
        items: list[Manifest] = []
        query = (("limit", str(PAGE)), *chosen)
        more: str | None = ""
        while more is not None:
            asked = (*query, ("continue", more)) if more else query
            page = self._ask(_Question("list", kind, "GET", _path(kind, namespace), asked))
            # Items of a list do not repeat what the list says of all of them.
            head = {"apiVersion": page.get("apiVersion"), "kind": str(page.get("kind", "")).removesuffix("List")}
            items += ({**head, **item} for item in page.get("items") or ())
            more = (page.get("metadata") or {}).get("continue") or None
        return tuple(items)

    def get(self, kind: ResourceKind, name: str, namespace: str = "", metadata_only: bool = False) -> Manifest | None:
        """See Api."""
        accept = _METADATA if metadata_only else _JSON
        try:
            return self._ask(_Question("get", kind, "GET", _path(kind, namespace, name), accept=accept))
        except NotFound:
            return None

    def create(self, kind: ResourceKind, manifest: Manifest, namespace: str = "") -> Manifest:
        """See Api."""
        return self._ask(_Question("create", kind, "POST", _path(kind, namespace), _AS_US, manifest))

    def delete(self, kind: ResourceKind, name: str, namespace: str = "", uid: str = "") -> None:
        """See Api."""
        options: dict[str, object] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        body = {**options, "preconditions": {"uid": uid}} if uid else options
        try:
            self._ask(_Question("delete", kind, "DELETE", _path(kind, namespace, name), body=body))
        except (NotFound, Conflict):  # gone already, or another one by now
            return

    def log(self, pod: str, namespace: str, most: int, last_lines: int = 0, container: str = "") -> bytes:
        """See Api."""
        lines = (("tailLines", str(last_lines)),) if last_lines else ()
        path = f"{_path(PODS, namespace, pod)}/log"
        query = (("limitBytes", str(most)), *lines, *_container(container))
        question = _Question("get", PODS, "GET", path, query, accept=_ANYTHING, part="log")
        try:
            return self._tried(question, min(LOG_SECONDS, self._seconds))[:most]
        except (NotFound, Malformed):  # the Pod is gone, or its container has not begun
            return b""

    def execute(
        self, pod: str, namespace: str, command: Sequence[str], most: int, container: str = ""
    ) -> Iterator[bytes]:
        """See Api."""
        words = tuple(("command", word) for word in command)
        path = f"{_path(PODS, namespace, pod)}/exec"
        query = (("stdout", "true"), ("stderr", "true"), *_container(container), *words)
        question = _Question("get", PODS, "GET", path, query, part="exec")
        _, url, headers, *_ = self._serialized(question)
        login = tuple(f"{name}: {value}" for name, value in headers.items() if name.lower() == "authorization")
        stream = Stream(url, login, self._client.configuration, subject=f"Pod {namespace}/{pod}: {' '.join(command)}")
        try:
            yield from stream.output(most)
        except StreamRefused as exc:
            raise self._refused(question, exc.status, words_of(exc.body)) from exc
        except TROUBLE as exc:
            raise self._unanswered(exc) from exc

    def patch(
        self, kind: ResourceKind, name: str, body: Manifest, subresource: str = "", dry_run: bool = False
    ) -> Manifest:
        """See Api."""
        path = _path(kind, "", name) + (f"/{subresource}" if subresource else "")
        query = (*_AS_US, ("dryRun", "All")) if dry_run else _AS_US
        return self._ask(_Question("patch", kind, "PATCH", path, query, body))

    def _ask(self, question: _Question) -> dict[str, Any]:
        text = self._tried(question, self._seconds)
        try:
            answer = json.loads(text)
        except ValueError as exc:
            raise Malformed(f"API server {self.server}: got no JSON for {question.path}") from exc
        if not isinstance(answer, dict):
            raise Malformed(f"API server {self.server}: got no object for {question.path}")
        return answer

    def _tried(self, question: _Question, seconds: float) -> bytes:
        for left in polls(seconds, first=FIRST_PAUSE):
            try:
                answer = self._once(question, max(1.0, left))
            except PreflightError as exc:
                if not left or not self._may_change(exc):
                    raise
            else:
                self._seconds = self._api_seconds
                return answer
        raise AssertionError("the last poll returns or raises")

    def _may_change(self, exc: BaseException) -> bool:
        if isinstance(exc, Unreachable):
            self._doubted_until = time.monotonic() + DOUBT_SECONDS
            return True
        return isinstance(exc, AccessDenied) and time.monotonic() < self._doubted_until

    def _once(self, question: _Question, seconds: float) -> bytes:
        status, text = self._send(question, seconds)
        if not 200 <= status < 300:
            raise self._refused(question, status, words_of(text))
        return text

    def _send(self, question: _Question, seconds: float) -> tuple[int, bytes]:
        timeout = (min(CONNECT_SECONDS, seconds), min(READ_SECONDS, seconds))
        try:
            response = self._client.call_api(*self._serialized(question), _request_timeout=timeout)
            return response.status, response.read()
        except (HTTPError, OSError, ApiException) as exc:
            raise self._unanswered(exc) from exc

    def _serialized(self, question: _Question) -> tuple[str, str, dict[str, str], Any, Any]:
        """Method, URL, headers, body and form, with the login of now."""
        headers = {"Accept": question.accept}
        if question.body is not None:
            headers["Content-Type"] = _MERGE_PATCH if question.method == "PATCH" else _JSON
        method, url, sent, body, form = self._client.param_serialize(
            question.method,
            question.path,
            query_params=list(question.query),
            header_params=headers,
            body=question.body,
            auth_settings=["BearerToken"],
        )
        return method, url, sent or {}, body, form

    def _unanswered(self, exc: Exception) -> PreflightError:
        words = str(getattr(exc, "reason", None) or exc)
        if _distrusted(exc):
            return Untrusted(
                f"API server {self.server}: its certificate is not trusted ({words}); expected one that leads to the "
                "certificate authority of the kubeconfig"
            )
        return Unreachable(
            f"API server {self.server}: got no answer within {self._seconds:.0f} s ({words}); check that it runs and "
            "that network and proxy lead to it, then run again"
        )

    def _refused(self, question: _Question, status: int, words: str) -> PreflightError:
        """Our error for an answer that is none, with the server's own words where it gave some."""
        subject = f"API server {self.server}: {question.words} as {self._account}"
        match status:
            case 401:
                return AccessDenied(f"{subject}: got 401 ({words}), expected a login that it takes; log in again")
            case 403:
                role = "deploy/rbac-builds.yaml" if question.kind in _BUILDING else "deploy/rbac.yaml"
                return Forbidden(f"{subject}: got 403 ({words}); grant the verb, see {role}")
            case 404:
                return NotFound(f"{subject}: got 404 ({words})")
            case 409:
                return Conflict(f"{subject}: got 409 ({words})")
            case 410:
                return _Expired(f"{subject}: got 410 ({words})")
            case _ if status in _BUSY:
                return Unreachable(f"{subject}: got {status} ({words}); run again")
            case _:
                return Malformed(f"{subject}: got {status} ({words})")


def connect(access: Access) -> KubernetesApi:
    """The API server that the access leads to, not asked yet; UsageProblem when it leads to none.

    Without a kubeconfig it is that of the Pod in which this runs, with the Pod's account.
    """
    configuration = kubernetes.client.Configuration()
    chosen = choose(access)
    with _logged() as said:
        try:
            _log_in(configuration, chosen)
        except kubernetes.config.ConfigException as exc:
            raise _no_login(access, chosen, str(exc)) from exc
        except (ApiException, HTTPError, OSError, AttributeError, KeyError, TypeError, ValueError) as exc:
            raise _no_login(access, chosen, f"{type(exc).__name__}: {exc}") from exc
    authorization = configuration.api_key.get("BearerToken", "")
    if chosen and chosen.plugin and not authorization and not configuration.cert_file:
        # The library logs this and would go on as nobody.
        raise UsageProblem(f"{chosen}: {chosen.plugin} gave no credentials ({'; '.join(said)}); log in again")
    _strip_tokens(configuration)
    _choose_proxy(configuration, chosen.proxy if chosen else "")
    configuration.retries = False
    account = token_subject(authorization) or (f"user {chosen.user} of {chosen}" if chosen else "the Pod's account")
    return KubernetesApi(configuration, account, access.api_seconds)


def _log_in(configuration: kubernetes.client.Configuration, chosen: KubeconfigContext | None) -> None:
    if chosen is None:
        kubernetes.config.load_incluster_config(configuration)
        return
    files = os.pathsep.join(str(file) for file in chosen.files)
    kubernetes.config.load_kube_config(files, chosen.context, configuration, persist_config=False)


def _no_login(access: Access, chosen: KubeconfigContext | None, words: str) -> UsageProblem:
    if chosen:
        return UsageProblem(f"{chosen}: {words}; expected a login that can be used")
    looked = " and ".join(str(file) for file in access.kubeconfig)
    return UsageProblem(
        f"--manifests: got none, and no cluster: no kubeconfig {looked} ({access.named_by or 'the default'}), and not "
        f"inside a Pod ({words.rstrip('.')}); expected Modules in files, or a cluster by --kubeconfig FILE"
    )


@contextmanager
def _logged() -> Iterator[list[str]]:
    """What the library says to the log in the meantime, which would otherwise stand on the terminal."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield said
    finally:
        root.removeHandler(handler)


def _choose_proxy(configuration: kubernetes.client.Configuration, own: str) -> None:
    """As Go does it, unlike the library: the kubeconfig's own proxy whatever NO_PROXY says, on loopback no other."""
    host = urlsplit(str(configuration.host)).hostname or ""
    if own:
        configuration.no_proxy = None
    elif host == "localhost" or _LOOPBACK.fullmatch(host):
        configuration.proxy = None


def _strip_tokens(configuration: kubernetes.client.Configuration) -> None:
    """Takes the end of line from tokens that come from files, now and at each renewal, as kubectl does."""
    renew = configuration.refresh_api_key_hook

    def strip(current: kubernetes.client.Configuration) -> None:
        if renew:
            renew(current)
        if token := current.api_key.get("BearerToken"):
            current.api_key["BearerToken"] = token.strip()

    configuration.refresh_api_key_hook = strip  # type: ignore[assignment]  # the library types it as its default


def _container(name: str) -> tuple[tuple[str, str], ...]:
    return (("container", name),) if name else ()


def _base(kind: ResourceKind) -> str:
    return f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"


def _path(kind: ResourceKind, namespace: str, name: str = "") -> str:
    inside = f"/namespaces/{quote(namespace, safe='')}" if kind.namespaced and namespace else ""
    return f"{_base(kind)}{inside}/{kind.plural}" + (f"/{quote(name, safe='')}" if name else "")


def _distrusted(exc: BaseException | None) -> bool:
    """Whether a certificate is at the bottom of it: the library wraps that several times."""
    while exc is not None:
        if isinstance(exc, ssl.SSLCertVerificationError) or any(
            isinstance(arg, ssl.SSLCertVerificationError) for arg in exc.args
        ):
            return True
        exc = exc.__cause__ or exc.__context__
    return False
