"""A cluster in which the commands of docs/running-inside.md are typed, and what becomes of its Jobs."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.real.kubernetes.cluster import Cluster
from tests.real.kubernetes.node import Node
from tests.runs import ROOT

PATIENCE_S = 180
NAMESPACE = "--namespace=kmm-preflight"

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Inside:
    """A cluster with a node, and the environment of the admin's shell."""

    cluster: Cluster
    node: Node
    shell: Mapping[str, str]

    def typed(self, commands: str, **more: str) -> str:
        """Run commands as they stand on the page, and return what they print."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=ROOT,
            env={**self.shell, **more},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def kubectl(self, *args: str) -> str:
        """What the admin's kubectl prints, which must end well."""
        done = self.cluster.kubectl(*args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def job(self, name: str) -> dict[str, Any]:
        """A Job as it is now."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "job", name, NAMESPACE, "-o", "json"))
        return found

    def pods(self, job: str) -> list[dict[str, Any]]:
        """The Pods of the Job as it is now, and of none of the same name before."""
        mine = f"--selector=batch.kubernetes.io/controller-uid={self.job(job)['metadata']['uid']}"
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", "pods", mine, NAMESPACE, "-o", "json"))["items"]
        return found

    def waiting(self, job: str) -> dict[str, Any]:
        """The Pod that the Job has made and that nobody has run yet."""
        return self._when(
            lambda: next((pod for pod in self.pods(job) if pod["status"]["phase"] == "Pending"), None), job
        )

    def concluded(self, job: str) -> tuple[str, str, str]:
        """Type, reason and message of the condition with which the Job has ended."""

        def last() -> tuple[str, str, str] | None:
            ends = [
                one for one in self.job(job)["status"].get("conditions", ()) if one["type"] in ("Complete", "Failed")
            ]
            return (ends[0]["type"], ends[0]["reason"], ends[0]["message"]) if ends else None

        return self._when(last, job)

    def _when(self, seen: Callable[[], Seen | None], job: str) -> Seen:
        deadline = time.monotonic() + PATIENCE_S
        while (found := seen()) is None:
            assert time.monotonic() < deadline, self.job(job)["status"]
            time.sleep(0.1)
        return found
