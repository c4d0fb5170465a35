"""Check before a push: a result must not replace an image that nodes of another kernel load."""

from __future__ import annotations

from kmm_preflight.build import findings
from kmm_preflight.build.builder import Builder, BuildRequest
from kmm_preflight.build.context import BuildContext
from kmm_preflight.errors import AccessDenied, NotFound, PlatformMissing
from kmm_preflight.model import Finding
from kmm_preflight.oci.filesystem import LinkBroken
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import Reference
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.planning.plan import Plan
from kmm_preflight.planning.template import normalized
from kmm_preflight.text import listed


def check_push(request: BuildRequest, context: BuildContext, builder: Builder) -> Finding | None:
    """Return why the result needs --overwrite, or None if it may be pushed. Raise the errors of reading the image."""
    if context.policy.overwrite:
        return None
    if builder.pushes_before_proof:  # then no check of the result can protect the other plan
        plan = request.plan
        others = [other for other in context.plans if other.image == plan.image and other.kernel != plan.kernel]
        if others:
            problem = f"{others[0].id} uses the same name, and its nodes would load an image for another kernel"
            return findings.PUSH_REFUSED(image=request.image, problem=problem)
    return why_not_push(request, context.images)


def why_not_push(request: BuildRequest, images: ImageResolver) -> Finding | None:
    """Return whose image a push would replace, or None. Raise the errors of reading the image, except NotFound."""
    plan, name = request.plan, Reference.parse(request.image)
    try:
        image = images.image(name, plan.kernel.arch, request.credentials, request.push_tls)
    except PlatformMissing as exc:
        problem = f"nodes with another architecture use it: {exc.message}"
        return findings.PUSH_REFUSED(image=request.image, problem=problem)
    except NotFound:
        return None
    except AccessDenied as exc:
        # Many registries deny access to an absent image. The push itself will show if it is allowed.
        if _names_kernel(name.tag, plan):
            return None
        return findings.PUSH_REFUSED(
            image=request.image, problem=f"the registry does not show which nodes use it: {exc.message}"
        )
    if image.resolved.digest != image.resolved.manifest_digest:
        problem = "an image index is there, and a push would remove its other architectures"
        return findings.PUSH_REFUSED(image=request.image, problem=problem)
    kernels = [kernel for kernel in _kernels(plan, image) if kernel != plan.kernel.version]
    if kernels:
        problem = f"the image there has kmods for {listed(kernels)}, and nodes with other kernels load them"
        return findings.PUSH_REFUSED(image=request.image, problem=problem)
    if not _names_kernel(name.tag, plan):
        problem = (
            f"an image is there, and its tag {name.tag} does not name a kernel, so nodes with any kernel may use it"
        )
        return findings.PUSH_REFUSED(image=request.image, problem=problem)
    return None


def _kernels(plan: Plan, image: Image) -> list[str]:
    """Return the kernels that the image has kmods for."""
    try:
        located = image.files.resolve(plan.folder.rpartition("/")[0])
    except LinkBroken:
        return []
    return image.files.children(located.path) if located else []


def _names_kernel(tag: str | None, plan: Plan) -> bool:
    return tag is not None and normalized(plan.kernel.version) in tag
