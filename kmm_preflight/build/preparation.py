"""Preparation of a build: make the request, and check that its images can be pulled and its result pushed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kmm_preflight.build import findings
from kmm_preflight.build.builder import Builder, BuildRequest, BuildResult
from kmm_preflight.build.context import BuildContext, SharedResults
from kmm_preflight.build.image_options import history_options
from kmm_preflight.build.prepare import PreparedBuild, prepare_build, refused, request_id
from kmm_preflight.build.push import check_push
from kmm_preflight.build.signing import SignInput, prepare_sign
from kmm_preflight.errors import AccessDenied, Malformed, NotFound, PreflightError
from kmm_preflight.model import Finding, RegistryTLS, Stage
from kmm_preflight.oci import findings as oci_findings
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import Reference, parse_name
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages import findings as stages_findings


def result_key(plan: Plan, stage: Stage) -> str:
    """Return the name of a build's result among the shared results."""
    return f"{request_id(plan, stage)}.result"


@dataclass(frozen=True)
class Preparation:
    """Makes requests for a builder."""

    context: BuildContext
    """Context of the run."""
    builder: Builder
    """Builder of the run."""
    results: SharedResults
    """Results of builds."""

    def prepare(self, plan: Plan, stage: Stage) -> PreparedBuild:
        """Return the request of a plan's section, or the reason why it cannot be built. Raise PreflightError."""
        credentials = self.context.credentials[plan.id]
        if credentials.problem:
            return refused(credentials.problem)
        make = self._build_request if stage is Stage.BUILD else self._sign_request
        prepared = make(plan, credentials.pull)
        request = prepared.request
        if request is None:
            return prepared
        images = self._open_images(request)
        if isinstance(images, Finding):
            return replace(prepared, request=None, findings=(images, *prepared.findings))
        if request.push and request.makes_image and (problem := check_push(request, self.context, self.builder)):
            return replace(prepared, request=None, findings=(problem, *prepared.findings))
        return replace(prepared, request=replace(request, options=(*request.options, *history_options(images))))

    def _build_request(self, plan: Plan, credentials: PullCredentials) -> PreparedBuild:
        assert plan.build  # else the stage is not needed
        return prepare_build(plan, plan.build, self.context.sources, credentials, self.context.policy)

    def _sign_request(self, plan: Plan, credentials: PullCredentials) -> PreparedBuild:
        assert plan.sign
        sign_input = self._sign_input(plan, credentials)
        if isinstance(sign_input, Finding):
            return refused(sign_input)
        context = self.context
        now = context.now()
        return prepare_sign(plan, plan.sign, sign_input, context.sources, credentials, context.policy, now)

    def _sign_input(self, plan: Plan, credentials: PullCredentials) -> SignInput | Finding:
        """Return the image to sign: the result of the build section, else unsignedImage."""
        assert plan.sign
        if plan.build:
            return self._built_input(plan, credentials)
        if not plan.sign.unsigned_image:
            return findings.SIGN_IMAGE_NONE()
        name, tls = plan.sign.unsigned_image, plan.sign.unsigned_image_registry_tls
        try:
            return SignInput(name, self._image(name, plan, credentials, tls))
        except PreflightError as exc:
            return self._unavailable(exc, "the sign section", plan)

    def _built_input(self, plan: Plan, credentials: PullCredentials) -> SignInput | Finding:
        if not (self.builder.keeps_results or self.context.policy.push):
            return findings.SIGN_INPUT_ABSENT()
        result = self.results.known(result_key(plan, Stage.BUILD))
        if not isinstance(result, BuildResult) or result.image is None:
            return findings.SIGN_INPUT_ABSENT()
        return SignInput(result.image, self._image(result.image, plan, credentials, plan.tls))

    def _image(self, name: str, plan: Plan, credentials: PullCredentials, tls: RegistryTLS) -> Image:
        return self.context.images.image(parse_name(name), plan.kernel.arch, credentials, tls)

    def _open_images(self, request: BuildRequest) -> list[Image] | Finding:
        """Return the images of the Dockerfile, or the finding for the first that these credentials cannot pull."""
        section = "the Dockerfile" if request.stage is Stage.BUILD else "the sign section"
        images: list[Image] = []
        for name in request.images:
            to_sign = request.stage is Stage.SIGN and name == request.images[0]  # the only image that may be a layout
            try:
                reference = parse_name(name) if to_sign else Reference.parse(name)
            except Malformed as exc:  # a builder would also use layouts and archives on its own disk
                return findings.BASE_IMAGE_UNRESOLVED(got=exc.message)
            try:
                arch = request.platforms.get(name, request.plan.kernel.arch)
                image = self.context.images.image(reference, arch, request.credentials, request.pull_tls)
                image.config()
                if not to_sign:  # the layers of the image to sign were read already
                    image.check_layers()
            except PreflightError as exc:
                return self._unavailable(exc, section, request.plan)
            images.append(image)
        return images

    def _unavailable(self, exc: PreflightError, section: str, plan: Plan) -> Finding:
        """Return the finding for an image of a section that cannot be pulled."""
        kernel, credentials = plan.kernel.version, self.context.credentials[plan.id]
        if isinstance(exc, AccessDenied) and credentials.login_unknown:
            return stages_findings.IMAGE_LOGIN_UNKNOWN(problem=exc.message, credentials=credentials)
        if isinstance(exc, AccessDenied):
            return findings.BASE_IMAGE_DENIED(section=section, problem=exc.message, credentials=credentials)
        if isinstance(exc, NotFound):
            return findings.BASE_IMAGE_ABSENT(section=section, problem=exc.message, kernel=kernel)
        return oci_findings.finding_of(exc, kernel)
