"""Manifest of a Job."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kmm_preflight.build.access import registries_conf
from kmm_preflight.build.builder import BuildRequest
from kmm_preflight.build.job_script import ARCHIVE_FACTS, SCRIPT, WORK
from kmm_preflight.build.objects import labels_of, metadata_of
from kmm_preflight.errors import BoundExceeded
from kmm_preflight.model import VERIFIED_HTTPS, Manifest, RegistryTLS
from kmm_preflight.oci.registries import Registries

TEXT_BYTES = 1 << 20
"""Limit of all texts in the Pod: an object in etcd has at most 1.5 MB, a container's environment 2 MB."""

LOGINS = 3
"""Maximal number of Secrets with logins: buildah reads three files."""

CONTAINER = "build"
KEPT_SECONDS = 600
# A variable has at most 128 KiB, and a character at most four bytes.
_PIECE_CHARACTERS = 24_000
# Time after SIGTERM: the script leaves the log readable for five seconds.
_GRACE_SECONDS = 15
_STORAGE = "/var/lib/containers"
_CAPABILITIES = ("SYS_CHROOT", "SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "FOWNER", "SETFCAP")


@dataclass(frozen=True)
class JobSettings:
    """Settings of all Jobs of a run."""

    image: str
    """Image with buildah."""
    folder: Path
    """Folder of this machine for archives of results."""
    owners: Mapping[str, Manifest] = field(default_factory=dict)
    """PreflightValidationOCP objects that own the Jobs, by kernel version."""
    authorities: str = ""
    """Certificate authorities in PEM that are trusted for every registry."""
    registries: Registries = field(default_factory=Registries)
    """Registry settings of the cluster. They replace those in the image."""
    patch: Manifest = field(default_factory=dict)
    """Patch of the Pod's template, merged like `kubectl patch` does it: list items are matched by name."""


def job_of(request: BuildRequest, settings: JobSettings, logins: tuple[str, ...]) -> Manifest:
    """Return the Job of a request, without the content of any Secret. logins names Secrets for registries."""
    template = {"metadata": {"labels": labels_of(request)}, "spec": _pod(request, settings, logins)}
    spec: dict[str, object] = {
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        "activeDeadlineSeconds": math.ceil(request.timeout),
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "template": merged(template, settings.patch),
    }
    metadata = metadata_of(request, spec, settings.owners.get(request.plan.kernel.version), {})
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _pod(request: BuildRequest, settings: JobSettings, logins: tuple[str, ...]) -> Manifest:
    own: dict[str, dict[str, object]] = {name: {"emptyDir": {}} for name in ("storage", "work")}
    auth = {f"login-{number}": _secret(name, True) for number, name in enumerate(logins)}
    secrets = {f"secret-{number}": _secret(mounted.secret, False) for number, mounted in enumerate(request.secrets)}
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "nodeSelector": {"kubernetes.io/arch": request.plan.kernel.arch, **dict(request.selector)},
        "containers": [_container(request, settings, logins)],
        "volumes": [{"name": name, **volume} for name, volume in {**own, **auth, **secrets}.items()],
    }


def _secret(name: str, optional: bool) -> dict[str, object]:
    return {"secret": {"secretName": name, "optional": optional, "defaultMode": 0o400}}


def _container(request: BuildRequest, settings: JobSettings, logins: tuple[str, ...]) -> Manifest:
    texts = {
        "DOCKERFILE": request.dockerfile,
        "REGISTRY_CA": settings.authorities,
        "REGISTRIES": registries_conf((*request.images, request.image), VERIFIED_HTTPS, settings.registries),
    }
    if (size := sum(len(text.encode()) for text in texts.values())) > TEXT_BYTES:
        raise BoundExceeded(
            f"Dockerfile and certificate authorities have {size} bytes, at most {TEXT_BYTES} are allowed"
        )
    flags = {
        "IMAGE": request.image if request.push else "",
        "PULL_TLS": _tls(request.pull_tls),
        "PUSH_TLS": _tls(request.push_tls),
    }
    pieces = {name: piece for key, text in texts.items() for name, piece in _pieces(key, text)}
    options = [*request.options, *(f"--build-arg={name}={value}" for name, value in request.arguments)]
    options += [
        f"--volume=/secrets/{number}:/run/secrets/{mounted.folder}:ro" for number, mounted in enumerate(request.secrets)
    ]
    mounts = {"storage": _STORAGE, "work": WORK}
    mounts |= {f"login-{number}": f"/auth/{number}" for number in range(len(logins))}
    mounts |= {f"secret-{number}": f"/secrets/{number}" for number in range(len(request.secrets))}
    container: dict[str, object] = {
        "name": CONTAINER,
        "image": settings.image,
        "command": ["/bin/sh", "-c", _literal(SCRIPT), CONTAINER],
        "args": [_literal(option) for option in options],
        "env": [{"name": name, "value": _literal(value)} for name, value in {**flags, **pieces}.items()],
        "securityContext": {
            "runAsUser": 0,
            "runAsNonRoot": False,
            "capabilities": {"drop": ["ALL"], "add": list(_CAPABILITIES)},
        },
        "terminationMessagePath": "/dev/termination-log",
        "volumeMounts": [
            {"name": name, "mountPath": path, **({} if name in ("storage", "work") else {"readOnly": True})}
            for name, path in mounts.items()
        ],
    }
    if not request.push:
        # The Pod becomes ready when the archive can be fetched.
        probe = {"exec": {"command": ["test", "-e", ARCHIVE_FACTS]}, "periodSeconds": 2, "timeoutSeconds": 10}
        container["readinessProbe"] = probe
    return container


def _tls(tls: RegistryTLS) -> str:
    """Return buildah's option for plain HTTP or an unverified certificate. Without it registries.conf decides."""
    return "--tls-verify=false" if tls.insecure or tls.insecure_skip_tls_verify else ""


def _pieces(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield the text as variables NAME_0, NAME_1…"""
    for number, start in enumerate(range(0, len(text), _PIECE_CHARACTERS)):
        yield f"{name}_{number}", text[start : start + _PIECE_CHARACTERS]


def _literal(text: str) -> str:
    """Return the text for a container's command or variable: Kubernetes replaces $(NAME) there, and $$ is a dollar."""
    return text.replace("$", "$$")


def merged(base: Manifest, patch: Manifest) -> dict[str, object]:
    """Return the base with the patch: null removes a field, named list items are merged, other lists are replaced."""
    result = dict(base)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _merged(base: object, patch: object) -> object:
    if isinstance(patch, Mapping):
        return merged(base if isinstance(base, Mapping) else {}, patch)
    patches, items = _by_name(patch), _by_name([] if base is None else base)
    if patches is None or items is None:
        return patch
    changed = {name: merged(items.get(name, {}), item) for name, item in patches.items()}
    return list({**items, **changed}.values())


def _by_name(value: object) -> dict[str, Mapping[str, object]] | None:
    """Return the items of a list by name, or None if an item has no name."""
    if not isinstance(value, list) or not all(isinstance(item, Mapping) and "name" in item for item in value):
        return None
    return {str(item["name"]): item for item in value}
