"""Findings about objects that a Module needs in the cluster."""

from __future__ import annotations

from kmm_preflight.catalogue import REFUTES, WARNING, define

CREDENTIALS_INVALID = define(
    "credentials-invalid",
    REFUTES,
    "the pull secret cannot be used: {problem}",
    "Create a Secret of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg in the Module's namespace.",
)

PULL_SECRET_UNUSED = define(
    "pull-secret-unused",
    WARNING,
    "nodes get no login from {source}: {problem}",
    "Create the Secret in the Module's namespace with the right type: oc create secret docker-registry NAME "
    "--docker-server=HOST --docker-username=USER --docker-password=TOKEN. If no login is needed, remove the name.",
)

MAPPING_SECRET_ABSENT = define(
    "secret-not-given",
    WARNING,
    "the Module's imageRepoSecret {secret} is not among the manifests, so the image was requested with {used}",
    "Add the Secret to the manifests, or pass --authfile.",
)
