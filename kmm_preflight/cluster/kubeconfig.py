"""Which kubeconfig, context and user count, as kubectl chooses them; cluster/kubernetes.py logs in with them."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.api import Access
from kmm_preflight.errors import Malformed, UsageProblem
from kmm_preflight.text import listed


@dataclass(frozen=True)
class KubeconfigContext:
    """What of which files. plugin is the program that gives the credentials, proxy the cluster's own; "" for none."""

    files: tuple[Path, ...]
    context: str
    user: str
    plugin: str
    proxy: str

    def __str__(self) -> str:
        return f"context {self.context} of {listed([str(file) for file in self.files])}"


def choose(access: Access) -> KubeconfigContext | None:
    """What the access leads to; None where there is no file and nothing demands one, as inside a Pod.

    The first of several files that has a context, a current context or a user of a name wins. UsageProblem names the
    file, and what stands or lacks there.
    """
    files = tuple(file for file in access.kubeconfig if file.exists())
    if not files:
        if access.named_by == "--kubeconfig":
            raise UsageProblem(f"--kubeconfig {access.kubeconfig[0]}: no such file; expected a kubeconfig")
        return None
    documents = [(file, _read(file)) for file in files]
    try:
        return _chosen(access, documents)
    except Malformed as exc:
        raise UsageProblem(f"kubeconfig {listed([str(file) for file in files])}: {exc.message}") from exc


def _chosen(access: Access, documents: list[tuple[Path, Field]]) -> KubeconfigContext:
    files = tuple(file for file, _ in documents)
    where = f"kubeconfig {listed([str(file) for file in files])}"
    name = access.context or next((text for _, one in documents if (text := one["current-context"].text())), "")
    contexts = _named(documents, "contexts")
    if not name:
        raise UsageProblem(f"{where}: got no current-context, expected one, or --context NAME; has {_names(contexts)}")
    if name not in contexts:
        source = "--context" if access.context else "current-context"
        raise UsageProblem(f"{source} {name}: no such context in {where}; expected one of {_names(contexts)}")
    context = contexts[name]["context"]
    cluster = context["cluster"].present("the name of a cluster").text()
    if cluster not in (clusters := _named(documents, "clusters")):
        raise UsageProblem(f"{where}: context {name}: got cluster {cluster}, expected one of {_names(clusters)}")
    fields = clusters[cluster]["cluster"]
    fields["server"].present(f"the URL of cluster {cluster}").text()
    user = context["user"].text()
    users = _named(documents, "users")
    plugin = users[user].walk("user", "exec", "command").text() if user in users else ""
    return KubeconfigContext(files, name, user, plugin, fields["proxy-url"].text())


def _read(file: Path) -> Field:
    try:
        document = yaml.safe_load(file.read_text())
    except OSError as exc:
        raise UsageProblem(f"kubeconfig {file}: cannot be read ({exc.strerror}); expected a kubeconfig") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise UsageProblem(f"kubeconfig {file}: got no YAML, expected a kubeconfig") from exc
    if not isinstance(document, dict):
        raise UsageProblem(f"kubeconfig {file}: got no mapping, expected a kubeconfig")
    return Field(document)


def _named(documents: list[tuple[Path, Field]], section: str) -> dict[str, Field]:
    """The items of a section by name; what stands first wins."""
    found: dict[str, Field] = {}
    for _, document in documents:
        for item in document[section]:
            found.setdefault(item["name"].text(), item)
    return found


def _names(section: dict[str, Field]) -> str:
    return listed(sorted(section))


def token_subject(authorization: str) -> str:
    """Whom a bearer token says to be, such as system:serviceaccount:ns:name; "" when it does not say."""
    parts = authorization.rpartition(" ")[2].split(".")
    if len(parts) != 3:
        return ""
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return ""
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return subject if isinstance(subject, str) else ""
