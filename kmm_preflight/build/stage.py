"""Build and sign stages: prepare a request, run the builder, and check the result.

A builder's report of success proves nothing: the checks of the image stage run on the result. KMM's operator checks
only if the job passed.
"""

from __future__ import annotations

from dataclasses import replace

from kmm_preflight.build import findings
from kmm_preflight.build.builder import Builder, BuildRequest
from kmm_preflight.build.context import BuildContext, SharedResults, Watcher
from kmm_preflight.build.preparation import Preparation, result_key
from kmm_preflight.build.prepare import PreparedBuild, refused, request_id
from kmm_preflight.build.result_check import ResultCheck, failed_stage
from kmm_preflight.errors import Malformed, PreflightError
from kmm_preflight.model import Stage, StageResult
from kmm_preflight.planning.plan import Plan


class BuildStage:
    """Starts and judges builds. Every process of a run has one, and all share the results."""

    def __init__(self, context: BuildContext, results: SharedResults, watcher: Watcher) -> None:
        self._context = context
        self._results = results
        self._watcher = watcher

    def start(self, plan: Plan, stage: Stage) -> None:
        """Start the build of a stage and return, once in a run. judge reports its problems."""
        if self._context.builder:
            self._prepared(plan, stage, self._context.builder)

    def judge(self, plan: Plan, stage: Stage) -> StageResult:
        """Wait for the build, check its result, and return VERIFIED, FAILED or UNDECIDED."""
        builder = self._context.builder
        if builder is None:
            kind = findings.BUILDER_NONE if stage is Stage.BUILD else findings.SIGNER_NONE
            return failed_stage(stage, (kind(image=plan.image.name, why=self._context.reason),))
        prepared = self._prepared(plan, stage, builder)
        if prepared.request is None:
            return failed_stage(stage, prepared.findings)
        try:
            result = self._check(plan, prepared.request, builder)
        except PreflightError as exc:
            result = failed_stage(stage, (findings.BUILDER_FAILED(problem=exc.message),))
        return replace(result, findings=(*result.findings, *prepared.findings))

    def _check(self, plan: Plan, request: BuildRequest, builder: Builder) -> StageResult:
        result = builder.result(request, lambda words: self._watcher.doing(plan, words))
        self._results.once(result_key(plan, request.stage), lambda: result)
        return ResultCheck(self._context, builder, request).check(result)

    def _prepared(self, plan: Plan, stage: Stage, builder: Builder) -> PreparedBuild:
        """Return the request. The first process that needs it also starts the build."""
        prepared = self._results.once(
            f"{request_id(plan, stage)}.request", lambda: self._prepare_and_start(plan, stage, builder)
        )
        assert isinstance(prepared, PreparedBuild)
        return prepared

    def _prepare_and_start(self, plan: Plan, stage: Stage, builder: Builder) -> PreparedBuild:
        try:
            prepared = Preparation(self._context, builder, self._results).prepare(plan, stage)
        except Malformed as exc:
            return refused(findings.SOURCE_INVALID(problem=exc.message))
        except PreflightError as exc:
            return refused(findings.SOURCE_UNREAD(problem=exc.message))
        if prepared.request:
            try:
                builder.start(prepared.request)
            except PreflightError as exc:
                return refused(findings.BUILDER_FAILED(problem=exc.message))
        return prepared
