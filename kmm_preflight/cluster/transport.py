"""Send requests to an API server over the kubernetes client, and retry them."""

from __future__ import annotations

import json
from typing import Any

import kubernetes
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from kmm_preflight.base.polling import SYSTEM_CLOCK, Clock, polls
from kmm_preflight.cluster.api_errors import error_of_connection, error_of_status
from kmm_preflight.cluster.api_request import JSON, ApiRequest
from kmm_preflight.cluster.stream import Stream, message_of
from kmm_preflight.errors import AccessDenied, Malformed, PreflightError, Unreachable

CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
_FIRST_SECONDS = 10.0
_FIRST_PAUSE = 0.3
# After a restart, a server may refuse requests until it has read its roles.
_UNSETTLED_SECONDS = 5.0
_MERGE_PATCH = "application/merge-patch+json"


class Transport:
    """The connection to an API server.

    Refused and reset connections, 429 and 5xx are retried with growing pauses until the time is up.
    """

    def __init__(
        self,
        configuration: kubernetes.client.Configuration,
        account: str,
        api_seconds: float,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Take the account's name for messages, and the time for a request with all retries."""
        self._client = kubernetes.client.ApiClient(configuration)
        self._account = account
        self._api_seconds = api_seconds
        self._clock = clock
        self.seconds = min(_FIRST_SECONDS, api_seconds)  # until the server has answered once
        self._unsettled_until = 0.0

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self._client.configuration.host)

    def read(self, request: ApiRequest) -> dict[str, Any]:
        """Send a request. Return the object in the answer."""
        text = self.send(request, self.seconds)
        try:
            answer = json.loads(text)
        except ValueError as exc:
            raise Malformed(f"API server {self.server}: the answer for {request.path} is not JSON") from exc
        if not isinstance(answer, dict):
            raise Malformed(f"API server {self.server}: the answer for {request.path} is not a JSON object")
        return answer

    def send(self, request: ApiRequest, seconds: float) -> bytes:
        """Send a request, with retries for so many seconds. Return the body of the answer."""
        for left in polls(seconds, first=_FIRST_PAUSE, clock=self._clock):
            try:
                body = self._send_once(request, max(1.0, left))
            except PreflightError as exc:
                if not left or not self._may_succeed_later(exc):
                    raise
            else:
                self.seconds = self._api_seconds
                return body
        raise AssertionError("the last poll returns or raises")

    def stream(self, request: ApiRequest, subject: str) -> Stream:
        """Return the output of a command that is not run yet. subject is for messages."""
        _, url, headers, *_ = self._serialized(request)
        login = tuple(f"{name}: {value}" for name, value in headers.items() if name.lower() == "authorization")
        return Stream(url, login, self._client.configuration, subject)

    def refusal(self, request: ApiRequest, status: int, words: str) -> PreflightError:
        """Return the error for an HTTP status. words is the server's message."""
        subject = f"API server {self.server}: {request.words} as {self._account}"
        return error_of_status(subject, request, status, words)

    def failure(self, exc: Exception) -> PreflightError:
        """Return the error for a connection that failed."""
        return error_of_connection(self.server, exc, self.seconds)

    def _may_succeed_later(self, exc: PreflightError) -> bool:
        now = self._clock.monotonic()
        if isinstance(exc, Unreachable):
            self._unsettled_until = now + _UNSETTLED_SECONDS
            return True
        return isinstance(exc, AccessDenied) and now < self._unsettled_until

    def _send_once(self, request: ApiRequest, seconds: float) -> bytes:
        timeout = (min(CONNECT_SECONDS, seconds), min(READ_SECONDS, seconds))
        try:
            response = self._client.call_api(*self._serialized(request), _request_timeout=timeout)
            status, body = response.status, bytes(response.read())
        except (HTTPError, OSError, ApiException) as exc:
            raise self.failure(exc) from exc
        if not 200 <= status < 300:
            raise self.refusal(request, status, message_of(body))
        return body

    def _serialized(self, request: ApiRequest) -> tuple[str, str, dict[str, str], Any, Any]:
        """Return method, URL, headers, body and form of a request, with the current login."""
        headers = {"Accept": request.accept}
        if request.body is not None:
            headers["Content-Type"] = _MERGE_PATCH if request.method == "PATCH" else JSON
        method, url, all_headers, body, form = self._client.param_serialize(
            request.method,
            request.path,
            query_params=list(request.query),
            header_params=headers,
            body=request.body,
            auth_settings=["BearerToken"],
        )
        return method, url, all_headers or {}, body, form
