"""The Module: a manifest as a value, or the reason why KMM refuses the manifest."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import BoundExceeded, PreflightError
from kmm_preflight.model import Manifest, ModuleName, TargetKernel
from kmm_preflight.planning import findings
from kmm_preflight.planning.container import Container, KernelMapping, parse_container
from kmm_preflight.planning.plan import Build, Case, Sign, Unresolved
from kmm_preflight.planning.planner import make_plan
from kmm_preflight.planning.toleration import Toleration, parse_tolerations
from kmm_preflight.planning.webhook import check_container

GROUP = "kmm.sigs.x-k8s.io"
VERSION = "v1beta1"

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# The parts of a subdomain may be longer than a label.
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


@dataclass(frozen=True)
class Module:
    """A Module that KMM accepts."""

    name: ModuleName
    """Namespace and name."""
    container: Container | None
    """moduleLoader.container. None for a Module with a device plugin or DRA only."""
    deleting: bool = False
    """True if the Module is being deleted."""
    secret: str | None = None
    """Name of the imageRepoSecret, in the Module's namespace."""
    selector: tuple[tuple[str, str], ...] = ()
    """Labels of the nodes that load the kmod."""
    uid: str | None = None
    """The API server's uid. None for a manifest that was never on a server."""
    generation: int = 0
    """The API server's generation. 0 for a manifest that was never on a server."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that do not keep the Module away from a node."""
    account: str | None = None
    """moduleLoader.serviceAccountName, the account of KMM's Pods. None if the Module names no account."""
    version: str | None = None
    """moduleLoader.container.version. None without ordered upgrades."""

    @property
    def placement(self) -> None:
        """No placement: labels select the nodes."""
        return None

    @property
    def loads_kmods(self) -> bool:
        """True if the Module has a moduleLoader."""
        return self.container is not None

    def case_on(self, kernel: TargetKernel, today: tuple[str, ...]) -> Case:
        """Return the plan for a kernel, or why there is none. The Module must have a moduleLoader."""
        assert self.container
        return make_plan(self, self.container, kernel, today)

    def dockerfiles(self) -> set[tuple[str, str]]:
        """Return namespace and name of the ConfigMaps of all build sections."""
        names = {build.dockerfile_config_map for build in self._builds()}
        return {(self.name.namespace, name) for name in names if name}

    def build_and_sign_secrets(self) -> set[tuple[str, str]]:
        """Return namespace and name of the Secrets of all build and sign sections."""
        names = {name for build in self._builds() for name in build.secrets}
        names |= {name for sign in self._signs() for name in (sign.key_secret, sign.cert_secret) if name}
        return {(self.name.namespace, name) for name in names}

    def _builds(self) -> list[Build]:
        return [section.build for section in self._sections() if section.build]

    def _signs(self) -> list[Sign]:
        return [section.sign for section in self._sections() if section.sign]

    def _sections(self) -> list[Container | KernelMapping]:
        return [self.container, *self.container.mappings] if self.container else []


@dataclass(frozen=True)
class RefusedModule:
    """A Module that KMM's webhook, or a limit of this suite, refuses."""

    name: ModuleName
    """Namespace and name."""
    problem: str
    """The reason, in one sentence."""
    deleting: bool = False
    """True if the Module is being deleted."""
    uid: str | None = None
    """The API server's uid."""
    generation: int = 0
    """The API server's generation."""
    over_limit: bool = False
    """True if only a limit of this suite refuses the Module."""

    @property
    def secret(self) -> str | None:
        """No name: the field is not read."""
        return None

    @property
    def placement(self) -> None:
        """No placement: the nodes are unknown."""
        return None

    @property
    def loads_kmods(self) -> bool:
        """True, because nobody knows what the Module loads."""
        return True

    def case_on(self, kernel: TargetKernel, today: tuple[str, ...]) -> Case:
        """Return the reason why there is no plan for any kernel."""
        del today
        kind = findings.MODULE_OVER_LIMIT if self.over_limit else findings.MODULE_INVALID
        return Unresolved(self.name, kernel, kind(problem=self.problem))


def refused_module(
    manifest: Manifest, error: PreflightError, namespace: str = "", kind: str = "Module"
) -> RefusedModule:
    """Return the object of a manifest that cannot be read, with the error of reading it."""
    metadata = Field(manifest)["metadata"]
    return RefusedModule(
        ModuleName(metadata["namespace"].text() or namespace, metadata["name"].text(), kind),
        error.message,
        metadata["deletionTimestamp"].given,
        metadata["uid"].optional_text(),
        metadata["generation"].number(),
        isinstance(error, BoundExceeded),
    )


def parse_module(manifest: Manifest, namespace: str) -> Module:
    """Return the Module of a manifest. namespace applies if the manifest has none.

    Ignore fields that this suite does not know. Raise Malformed with the field that the CRD (of any KMM version) or
    the webhook (since 1.1) refuses, and BoundExceeded for a regexp that only this suite refuses.
    """
    document = Field(manifest)
    if document["apiVersion"].text() != f"{GROUP}/{VERSION}":
        raise document["apiVersion"].refuse(f"{GROUP}/{VERSION}, the only version of Module")
    metadata, spec = document["metadata"], document["spec"].present("the Module's spec")
    selector = spec["selector"].present("a node selector").text_pairs()
    loader = spec["moduleLoader"]
    return Module(
        name=ModuleName(
            _named(metadata["namespace"], _LABEL, namespace),
            _named(metadata["name"].present("the Module's name"), _SUBDOMAIN),
        ),
        container=_checked_container(loader["container"]) if loader.given else None,
        deleting=metadata["deletionTimestamp"].given,
        secret=spec["imageRepoSecret"]["name"].optional_text(),
        selector=selector,
        uid=metadata["uid"].optional_text(),
        generation=metadata["generation"].number(),
        tolerations=parse_tolerations(spec["tolerations"]),
        account=loader["serviceAccountName"].optional_text(),
        version=loader["container"]["version"].optional_text(),
    )


def _checked_container(field: Field) -> Container:
    field.present("the loader's container")
    container = parse_container(field)
    check_container(field, container)
    return container


def is_name(text: str) -> bool:
    """True if an object can have this name."""
    return len(text) <= 253 and bool(_SUBDOMAIN.fullmatch(text))


def is_namespace(text: str) -> bool:
    """True if a namespace can have this name."""
    return bool(_LABEL.fullmatch(text))


def _named(field: Field, grammar: re.Pattern[str], default: str | None = None) -> str:
    text = field.optional_text() or default or ""
    if len(text) > 253 or not grammar.fullmatch(text):
        raise field.refuse("a Kubernetes name: lower case letters, digits and -")
    return text
