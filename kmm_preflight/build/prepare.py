"""Turn the build section into a request: Dockerfile, arguments, Secrets and result name (docs/reference/kmm.md 5)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from kmm_preflight.build import findings
from kmm_preflight.build.builder import BuildRequest, MountedSecret
from kmm_preflight.build.dockerfile import Dockerfile, read_dockerfile
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
    """How things are made in this run: whether results are pushed and overwrite others, the signer, the deadline.

    signer_image is "" where the driver toolkit signs; timeout in seconds.
    """

    push: bool = False
    overwrite: bool = False
    signer_image: str = ""
    timeout: float = 3600.0


@dataclass(frozen=True)
class PreparedBuild:
    """An request with what is to be said of it; without one the first finding says why there is none."""

    request: BuildRequest | None
    findings: tuple[Finding, ...] = ()


def request_id(plan: Plan, stage: Stage) -> str:
    """The same for the same plan and stage in every run, and another one for every other."""
    text = f"{plan.module}@{plan.kernel.version}@{plan.kernel.arch}"
    return f"{plan.module.name[:40]}-{stage.value.lower()}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def refused(finding: Finding) -> PreparedBuild:
    """No request."""
    return PreparedBuild(None, (finding,))


def prepare_build(
    plan: Plan, build: Build, sources: SectionObjects, credentials: PullCredentials, policy: BuildPolicy
) -> PreparedBuild:
    """The request of a plan's build section. Raises what reading its sources raises."""
    text = _dockerfile(plan, build, sources)
    if isinstance(text, Finding):
        return refused(text)
    arguments = injected_args(build.build_args, plan.kernel.version, plan.module)
    if DRIVER_TOOLKIT_ARGUMENT in text:  # anywhere, be it in a comment: so KMM decides
        if not plan.kernel.driver_toolkit:
            return refused(findings.TOOLKIT_UNKNOWN(kernel=plan.kernel.version))
        arguments = override_args(arguments, ((DRIVER_TOOLKIT_ARGUMENT, plan.kernel.driver_toolkit),))
    mounted = _secrets(plan, build, sources)
    if isinstance(mounted, Finding):
        return refused(mounted)
    read = read_dockerfile(text, dict(arguments), plan.kernel.arch)
    if read.unresolved:
        return refused(findings.BASE_IMAGE_UNRESOLVED(got=listed(list(read.unresolved))))
    if not read.stages:
        key = f"{plan.module.namespace}/{build.dockerfile_config_map}"
        return refused(findings.DOCKERFILE_ABSENT(got="a text without FROM", config_map=key))
    name = plan.image.name
    if plan.image.digest:  # pushed or not: on the node it is never found under this name
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
        images=read.images,
        platforms=read.platforms,
        pull_tls=build.base_image_registry_tls,
        push_tls=plan.tls,
        credentials=credentials,
        selector=build.selector or plan.selector,
    )
    return PreparedBuild(request, _warnings(plan, read))


def _dockerfile(plan: Plan, build: Build, sources: SectionObjects) -> str | Finding:
    key = (plan.module.namespace, build.dockerfile_config_map or "")
    config_map = sources.config_map(key) if key[1] else None
    if config_map is None:
        return findings.DOCKERFILE_ABSENT(got="no such ConfigMap", config_map=words_of(key))
    texts = texts_of(config_map)
    if DOCKERFILE_KEY in texts:
        return text_of(config_map, DOCKERFILE_KEY, f"ConfigMap {words_of(key)}")
    near = [name for name in texts if name.lower() in (DOCKERFILE_KEY, "containerfile")]
    if near:
        return findings.DOCKERFILE_KEY(config_map=words_of(key), got=listed(near))
    return findings.DOCKERFILE_ABSENT(got=f"keys {listed(sorted(texts))}", config_map=words_of(key))


def _secrets(plan: Plan, build: Build, sources: SectionObjects) -> tuple[MountedSecret, ...] | Finding:
    mounted = []
    for name in dict.fromkeys(build.secrets):
        if not is_name(name):  # it becomes a folder's
            raise Malformed(f"the build section names Secret {name!r}: expected lower case letters, digits, - and .")
        key = (plan.module.namespace, name)
        secret = sources.secret(key)
        if secret is None:
            return findings.BUILD_SECRET_ABSENT(secret=words_of(key))
        mounted.append(MountedSecret(name, name, files_of(secret, f"Secret {words_of(key)}")))
    return tuple(mounted)


def _warnings(plan: Plan, read: Dockerfile) -> tuple[Finding, ...]:
    kernel = plan.kernel.version
    told = []
    if read.running_kernel:
        told.append(findings.DOCKERFILE_RUNNING_KERNEL(got=listed(list(read.running_kernel)), kernel=kernel))
    if read.depmod:
        told.append(findings.DOCKERFILE_DEPMOD(got=listed(list(read.depmod)), directory=plan.directory, kernel=kernel))
    return tuple(told)
