"""The Job of a request, as the API server takes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kmm_preflight.build.access import registries_conf
from kmm_preflight.build.builder import BuildRequest
from kmm_preflight.build.job_script import SCRIPT, TOLD, WORK
from kmm_preflight.build.objects import labels_of, metadata_of
from kmm_preflight.errors import BoundExceeded
from kmm_preflight.model import VERIFIED_HTTPS, Manifest, RegistryTLS
from kmm_preflight.oci.registries import Registries

TEXT_BYTES = 1 << 20
"""Of what is handed to the Pod as text: etcd takes 1.5 MB of an object, a container's environment 2 MB."""

LOGINS = 3
"""Secrets with logins that the script finds a place for."""

CONTAINER = "build"
KEPT_SECONDS = 600
# One variable may have 128 KiB, and a character four bytes.
_PIECE_CHARACTERS = 24_000
# SIGTERM, five seconds in which the log can still be read, then the end.
_GRACE_SECONDS = 15
_STORAGE = "/var/lib/containers"
_CAPABILITIES = ("SYS_CHROOT", "SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "FOWNER", "SETFCAP")


@dataclass(frozen=True)
class JobSettings:
    """What all Jobs of a run share: the builder's image, and the folder for archives that they hand back.

    owners are the PreflightValidationOCPs that are answered, by kernel. authorities is PEM, trusted for every registry;
    registries is how the cluster reaches them: the image's own configuration does not count. patch is laid over the
    Pod's template as `kubectl patch` does it: items that have names are found by them, other lists replaced.
    """

    image: str
    folder: Path
    owners: Mapping[str, Manifest] = field(default_factory=dict)
    authorities: str = ""
    registries: Registries = field(default_factory=Registries)
    patch: Manifest = field(default_factory=dict)


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
    secrets = {f"secret-{number}": _secret(one.secret, False) for number, one in enumerate(request.secrets)}
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
        raise BoundExceeded(f"Dockerfile and certificate authorities: got {size} bytes, expected at most {TEXT_BYTES}")
    flags = {
        "IMAGE": request.image if request.push else "",
        "PULL_TLS": _tls(request.pull_tls),
        "PUSH_TLS": _tls(request.push_tls),
    }
    pieces = {name: piece for key, text in texts.items() for name, piece in _pieces(key, text)}
    options = [f"--build-arg={name}={value}" for name, value in request.arguments]
    options += [
        f"--volume=/secrets/{number}:/run/secrets/{one.folder}:ro" for number, one in enumerate(request.secrets)
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
        # By this the cluster tells that the archive can be fetched, without a question to the Pod each time.
        probe = {"exec": {"command": ["test", "-e", TOLD]}, "periodSeconds": 2, "timeoutSeconds": 10}
        container["readinessProbe"] = probe
    return container


def _tls(tls: RegistryTLS) -> str:
    """Of buildah, which has one word for plain HTTP and for any certificate; without it registries.conf decides."""
    return "--tls-verify=false" if tls.insecure or tls.insecure_skip_tls_verify else ""


def _pieces(name: str, text: str) -> Iterator[tuple[str, str]]:
    """The text as variables NAME_0, NAME_1…"""
    for number, start in enumerate(range(0, len(text), _PIECE_CHARACTERS)):
        yield f"{name}_{number}", text[start : start + _PIECE_CHARACTERS]


def _literal(text: str) -> str:
    """As a container's command, arguments and variables have it: there $(NAME) is replaced, and $$ is a dollar."""
    return text.replace("$", "$$")


def merged(base: Manifest, patch: Manifest) -> dict[str, object]:
    """The base with the patch laid over it: null removes, items with names are found by them, other lists replaced."""
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
    named, ours = _by_name(patch), _by_name([] if base is None else base)
    if named is None or ours is None:
        return patch
    laid_over = {name: merged(ours.get(name, {}), one) for name, one in named.items()}
    return list({**ours, **laid_over}.values())


def _by_name(value: object) -> dict[str, Mapping[str, object]] | None:
    """The items of a list by their names; None when it is no list of such."""
    if not isinstance(value, list) or not all(isinstance(one, Mapping) and "name" in one for one in value):
        return None
    return {str(one["name"]): one for one in value}
