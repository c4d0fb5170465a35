"""Choose kubeconfig files, context and user as kubectl does."""

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
    """A context of merged kubeconfig files."""

    files: tuple[Path, ...]
    """The files."""
    name: str
    """The name of the context."""
    user: str | None
    """The user of the context, or None."""
    plugin: str | None
    """The program that gives the user's credentials, or None."""
    proxy: str | None
    """The proxy of the context's cluster, or None."""

    def __str__(self) -> str:
        return f"context {self.name} of {listed([str(file) for file in self.files])}"


def choose_context(access: Access) -> KubeconfigContext | None:
    """Return the context, or None if no file exists and no option names a file, as inside a Pod.

    The first file with a current context, or with a context, cluster or user of a name, wins. Raise UsageProblem with
    the file and the problem.
    """
    files = tuple(file for file in access.kubeconfig if file.exists())
    if not files:
        if access.named_by == "--kubeconfig":
            raise UsageProblem(f"--kubeconfig {access.kubeconfig[0]}: no such file")
        return None
    documents = [(file, _read(file)) for file in files]
    try:
        return _context(access, documents)
    except Malformed as exc:
        raise UsageProblem(f"kubeconfig {listed([str(file) for file in files])}: {exc.message}") from exc


def _context(access: Access, documents: list[tuple[Path, Field]]) -> KubeconfigContext:
    files = tuple(file for file, _ in documents)
    where = f"kubeconfig {listed([str(file) for file in files])}"
    name = access.context or next((name for _, file in documents if (name := file["current-context"].text())), None)
    contexts = _by_name(documents, "contexts")
    if name is None:
        raise UsageProblem(f"{where}: it has no current-context. Pass --context with one of {_names(contexts)}.")
    if name not in contexts:
        source = "--context" if access.context else "current-context"
        raise UsageProblem(f"{source} {name}: {where} does not have this context, expected one of {_names(contexts)}")
    context = contexts[name]["context"]
    cluster = context["cluster"].present("the name of a cluster").text()
    if cluster not in (clusters := _by_name(documents, "clusters")):
        raise UsageProblem(f"{where}: context {name}: got cluster {cluster}, expected one of {_names(clusters)}")
    fields = clusters[cluster]["cluster"]
    fields["server"].present(f"the URL of cluster {cluster}").text()
    user = context["user"].optional_text()
    users = _by_name(documents, "users")
    plugin = users[user].walk("user", "exec", "command").optional_text() if user in users else None
    return KubeconfigContext(files, name, user, plugin, fields["proxy-url"].optional_text())


def _read(file: Path) -> Field:
    try:
        document = yaml.safe_load(file.read_text())
    except OSError as exc:
        raise UsageProblem(f"kubeconfig {file}: cannot be read ({exc.strerror})") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise UsageProblem(f"kubeconfig {file}: invalid YAML") from exc
    if not isinstance(document, dict):
        raise UsageProblem(f"kubeconfig {file}: the YAML is not a mapping")
    return Field(document)


def _by_name(documents: list[tuple[Path, Field]], section: str) -> dict[str, Field]:
    """Return the items of a section by name. Of two items of a name the first wins."""
    items: dict[str, Field] = {}
    for _, document in documents:
        for item in document[section]:
            items.setdefault(item["name"].text(), item)
    return items


def _names(section: dict[str, Field]) -> str:
    return listed(sorted(section))


def token_subject(authorization: str) -> str | None:
    """Return the account in a bearer token, such as system:serviceaccount:ns:name, or None if the token has none."""
    parts = authorization.rpartition(" ")[2].split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return None
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return subject if isinstance(subject, str) and subject else None
