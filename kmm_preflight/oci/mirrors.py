"""Where a node looks for an image: mirrors by digest (IDMS, ICSP) and by tag (ITMS).

The rules are those of /etc/containers/registries.conf once the cluster's objects were merged into it
(docs/reference/openshift.md 5.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Blocked, Malformed
from kmm_preflight.model import Manifest
from kmm_preflight.oci.mirror_scope import WILDCARD, bare_host, in_scope, parse_scope, weight
from kmm_preflight.oci.reference import Reference
from kmm_preflight.text import listed

KINDS = {
    "ImageDigestMirrorSet": ("imageDigestMirrors", True),
    "ImageTagMirrorSet": ("imageTagMirrors", False),
    "ImageContentSourcePolicy": ("repositoryDigestMirrors", True),
}
"""The field that holds the entries, and whether they serve digests (else tags)."""

_NEVER = "NeverContactSource"


@dataclass(frozen=True)
class MirrorRule:
    """One entry: where else images of a source are. by_digest tells which references it serves."""

    source: str
    mirrors: tuple[str, ...]
    by_digest: bool
    never_source: bool = False


@dataclass(frozen=True)
class PullSource:
    """One place to ask, in order; mirror is False for the name as it was written."""

    reference: Reference
    mirror: bool


def parse_mirrors(manifest: Manifest) -> tuple[MirrorRule, ...]:
    """The rules of an IDMS, ITMS or ICSP; Malformed names the field.

    An entry without mirrors, or with the source alone, says nothing, its policy included.
    """
    document = Field(manifest)
    key, by_digest = KINDS[document["kind"].text()]
    rules = []
    for entry in document["spec"][key]:
        source = parse_scope(entry["source"])
        mirrors = tuple(parse_scope(mirror, wildcard=False) for mirror in entry["mirrors"])
        if set(mirrors) - {source}:
            # An ICSP has no such field; what stands there all the same is pruned by the API server.
            never = entry["mirrorSourcePolicy"].text() == _NEVER and key != "repositoryDigestMirrors"
            rules.append(MirrorRule(source, tuple(dict.fromkeys(mirrors)), by_digest, never))
    return tuple(rules)


@dataclass(frozen=True)
class Mirrors:
    """All rules of a cluster; hops tells what they make of one name."""

    rules: tuple[MirrorRule, ...] = ()

    def pull_sources(self, reference: Reference) -> tuple[PullSource, ...]:
        """Places in the order in which a node asks them. Empty when the source is blocked and nothing serves the name.

        Only the longest source that matches counts. The source comes last unless it stands among its mirrors;
        NeverContactSource leaves it out, for tags and digests alike. Blocked when a mirror makes no image name.
        """
        rules = self._rules(reference)
        if not rules:
            return (PullSource(reference, mirror=False),)
        source = rules[0].source
        serving = [rule.mirrors for rule in rules if rule.by_digest is bool(reference.digest)]
        name = f"{reference.host}/{reference.repository}"
        # What follows the match, which may begin with a port, as on the node.
        rest = name.removeprefix(bare_host(reference) if source.startswith(WILDCARD) else source)
        hops = [
            PullSource(reference, mirror=False)
            if mirror == source
            else PullSource(_at(reference, mirror + rest), mirror=True)
            for mirror in merged(serving)
        ]
        if PullSource(reference, mirror=False) not in hops:
            hops.append(PullSource(reference, mirror=False))
        blocked = self.never(reference)
        return tuple(hop for hop in hops if hop.mirror or not blocked)

    def never(self, reference: Reference) -> str:
        """The source whose NeverContactSource keeps nodes from asking this very place, "" when none does."""
        return next((rule.source for rule in self._rules(reference) if rule.never_source), "")

    def contradictions(self) -> tuple[str, ...]:
        """Sentences about what a machine config controller refuses as a whole, so that nodes keep what they had."""
        said = []
        for source in dict.fromkeys(rule.source for rule in self.rules):
            rules = [rule for rule in self.rules if rule.source == source]
            never = [rule for rule in rules if rule.never_source]
            if never and len(never) < len(rules):
                said.append(f"mirrors of {source} have different policies for the source")
            if any(source in rule.mirrors for rule in never):
                said.append(f"{source} is a mirror of itself with {_NEVER}")
        kept = "nodes keep the mirrors that they had, which were not read; those of the objects were asked"
        return (f"{listed(said)}: {kept}",) if said else ()

    def _rules(self, reference: Reference) -> list[MirrorRule]:
        """The rules of the longest source that the name lies in."""
        sources = {rule.source for rule in self.rules if in_scope(rule.source, reference)}
        source = max(sources, key=weight, default=None)
        return [rule for rule in self.rules if rule.source == source]


def _at(reference: Reference, place: str) -> Reference:
    """The reference at another place; tag and digest stay. Blocked when that is no name, as then the pull ends."""
    suffix = f":{reference.tag}" if reference.tag else ""
    suffix += f"@{reference.digest}" if reference.digest else ""
    try:
        parsed = Reference.parse(place + suffix)
    except Malformed as exc:
        raise Blocked(f"image {reference}: its mirror {place} is no image name ({exc.message})") from exc
    if parsed.host != place.partition("/")[0]:
        raise Blocked(f"image {reference}: got mirror {place}, expected a host with a dot or a port at its start")
    return replace(parsed, tag=reference.tag, written=None)


def merged(lists: Iterable[tuple[str, ...]]) -> list[str]:
    """One list that keeps the order of each (a topological merge); where they contradict, the first wins."""
    every = [list(one) for one in lists]
    out: list[str] = []
    while heads := [one[0] for one in every if one]:
        later = {name for one in every for name in one[1:]}
        head = next((name for name in heads if name not in later), heads[0])
        out.append(head)
        every = [[name for name in one if name != head] for one in every]
    return out
