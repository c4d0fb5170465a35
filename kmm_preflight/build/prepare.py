"""Turn the build section into a request: Dockerfile, arguments, Secrets and result name (docs/reference/kmm.md 5)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from kmm_preflight.build import findings
from kmm_preflight.build.builder import BuildRequest, MountedSecret
from kmm_preflight.build.dockerfile import Dockerfile, read_dockerfile
from kmm_preflight.build.dockerfile_stages import without_unneeded_stages
from kmm_preflight.cluster.sections import SectionObjects, files_of, text_of, texts_of, words_of
from kmm_preflight.errors import Malformed
from kmm_preflight.model import Finding, Stage
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.planning.image_name import intermediate_image
from kmm_preflight.planning.mapping import injected_args, override_args
from kmm_preflight.planning.module import is_name
from kmm_preflight.planning.plan import Build, Plan
from kmm_preflight.text import listed

DOCKERFILE_KEY = "dockerfile"
DRIVER_TOOLKIT_ARGUMENT = "DTK_AUTO"


@dataclass(frozen=True)
class BuildPolicy:
    """Rules for all builds of a run."""

    push: bool = False
    """True if results are pushed."""
    overwrite: bool = False
    """True if a result may replace an image that nodes of another kernel use."""
    signer_image: str | None = None
    """Image with sign-file; None if the driver toolkit signs."""
    timeout: float = 3600.0
    """Deadline of a build in seconds."""


@dataclass(frozen=True)
class PreparedBuild:
    """Request that was made from a section."""

    request: BuildRequest | None
    """Request for the builder; None if the first finding says why there is none."""
    findings: tuple[Finding, ...] = ()
    """Findings about the section."""


def request_id(plan: Plan, stage: Stage) -> str:
    """Return the id of a plan's build or signing. Every run uses this id."""
    text = f"{plan.module}@{plan.kernel.version}@{plan.kernel.arch}"
    return f"{plan.module.name[:40]}-{stage.value.lower()}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def refused(finding: Finding) -> PreparedBuild:
    """Return the result of a section from which no request can be made."""
    return PreparedBuild(None, (finding,))


def prepare_build(
    plan: Plan, build: Build, sources: SectionObjects, credentials: PullCredentials, policy: BuildPolicy
) -> PreparedBuild:
    """Return the request of a plan's build section. Raise the errors of reading its ConfigMap and Secrets."""
    text = _dockerfile(plan, build, sources)
    if isinstance(text, Finding):
        return refused(text)
    arguments = injected_args(build.build_args, plan.kernel.version, plan.module)
    if DRIVER_TOOLKIT_ARGUMENT in text:  # also in a comment, as in KMM
        if not plan.kernel.driver_toolkit:
            return refused(findings.TOOLKIT_UNKNOWN(kernel=plan.kernel.version))
        arguments = override_args(arguments, ((DRIVER_TOOLKIT_ARGUMENT, plan.kernel.driver_toolkit),))
    mounted = _secrets(plan, build, sources)
    if isinstance(mounted, Finding):
        return refused(mounted)
    text = without_unneeded_stages(text, dict(arguments), plan.kernel.arch)
    dockerfile = read_dockerfile(text, dict(arguments), plan.kernel.arch)
    if dockerfile.unresolved:
        return refused(findings.BASE_IMAGE_UNRESOLVED(got=listed(list(dockerfile.unresolved))))
    if not dockerfile.stages:
        key = f"{plan.module.namespace}/{build.dockerfile_config_map}"
        return refused(findings.DOCKERFILE_ABSENT(got="its text has no FROM", config_map=key))
    name = plan.image.name
    if plan.image.digest:  # no build can make a given digest
        return refused(findings.PUSH_DIGEST(image=name))
    request = BuildRequest(
        id=request_id(plan, Stage.BUILD),
        stage=Stage.BUILD,
        plan=plan,
        dockerfile=text,
        image=intermediate_image(name, plan.module) if plan.sign else name,
        push=policy.push,
        timeout=policy.timeout,
        arguments=arguments,
        secrets=mounted,
        images=dockerfile.images,
        platforms=dockerfile.platforms,
        pull_tls=build.base_image_registry_tls,
        push_tls=plan.tls,
        credentials=credentials,
        selector=build.selector or plan.selector,
    )
    return PreparedBuild(request, _warnings(plan, dockerfile))


def _dockerfile(plan: Plan, build: Build, sources: SectionObjects) -> str | Finding:
    key = (plan.module.namespace, build.dockerfile_config_map or "")
    config_map = sources.config_map(key) if key[1] else None
    if config_map is None:
        return findings.DOCKERFILE_ABSENT(got="the ConfigMap does not exist", config_map=words_of(key))
    texts = texts_of(config_map)
    if DOCKERFILE_KEY in texts:
        return text_of(config_map, DOCKERFILE_KEY, f"ConfigMap {words_of(key)}")
    near = [name for name in texts if name.lower() in (DOCKERFILE_KEY, "containerfile")]
    if near:
        return findings.DOCKERFILE_KEY(config_map=words_of(key), got=listed(near))
    return findings.DOCKERFILE_ABSENT(
        got=f"its keys are {listed(sorted(texts))}" if texts else "it has no keys", config_map=words_of(key)
    )


def _secrets(plan: Plan, build: Build, sources: SectionObjects) -> tuple[MountedSecret, ...] | Finding:
    mounted = []
    for name in dict.fromkeys(build.secrets):
        if not is_name(name):  # the name becomes a folder name
            raise Malformed(f"the build section names Secret {name!r}: expected lower case letters, digits, - and .")
        key = (plan.module.namespace, name)
        secret = sources.secret(key)
        if secret is None:
            return findings.BUILD_SECRET_ABSENT(secret=words_of(key))
        mounted.append(MountedSecret(name, name, files_of(secret, f"Secret {words_of(key)}")))
    return tuple(mounted)


def _warnings(plan: Plan, dockerfile: Dockerfile) -> tuple[Finding, ...]:
    kernel = plan.kernel.version
    warnings = []
    if calls := list(dockerfile.running_kernel):
        warnings.append(findings.DOCKERFILE_RUNNING_KERNEL(got=listed(calls), kernel=kernel))
    if calls := list(dockerfile.depmod):
        warnings.append(findings.DOCKERFILE_DEPMOD(got=listed(calls), directory=plan.directory, kernel=kernel))
    return tuple(warnings)
