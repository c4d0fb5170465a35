"""Findings about objects that a Module needs in the cluster."""

from __future__ import annotations

from kmm_preflight.catalogue import REFUTES, WARNING, define

CREDENTIALS_INVALID = define(
    "credentials-invalid",
    REFUTES,
    "the pull secret cannot be used: {problem}",
    "Create a Secret of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg in the Module's namespace.",
)

MAPPING_SECRET_ABSENT = define(
    "secret-not-given",
    WARNING,
    "the Module's imageRepoSecret {secret} is not among the manifests, so the image was requested with {used}",
    "Add the Secret to the manifests, or pass --authfile.",
)
