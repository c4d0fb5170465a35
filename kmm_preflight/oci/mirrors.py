"""Mirrors: the places from which a node pulls an image, by digest (IDMS, ICSP) or by tag (ITMS).

The rules are those of /etc/containers/registries.conf after the cluster's objects were merged into it
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
"""By kind: the field of the entries, and True if they serve digests (False: tags)."""

_NEVER = "NeverContactSource"


@dataclass(frozen=True)
class MirrorRule:
    """An entry of a mirror set."""

    source: str
    """The scope of the names that the entry applies to."""
    mirrors: tuple[str, ...]
    """The mirrors of the source, in order."""
    by_digest: bool
    """True if the mirrors serve references with a digest, False if references with a tag."""
    never_source: bool = False
    """True if nodes never contact the source itself (NeverContactSource)."""


@dataclass(frozen=True)
class PullSource:
    """A place from which a node pulls an image."""

    reference: Reference
    """The name of the image at this place."""
    mirror: bool
    """True for a mirror, False for the image's own name."""


def parse_mirrors(manifest: Manifest) -> tuple[MirrorRule, ...]:
    """Parse an IDMS, ITMS or ICSP. Raise Malformed with the field.

    Ignore an entry, with its policy, if it has no mirrors or only the source as its mirror.
    """
    document = Field(manifest)
    key, by_digest = KINDS[document["kind"].text()]
    rules = []
    for entry in document["spec"][key]:
        source = parse_scope(entry["source"])
        mirrors = tuple(parse_scope(mirror, wildcard=False) for mirror in entry["mirrors"])
        if set(mirrors) - {source}:
            # An ICSP has no such field: the API server drops it.
            never = entry["mirrorSourcePolicy"].text() == _NEVER and key != "repositoryDigestMirrors"
            rules.append(MirrorRule(source, tuple(dict.fromkeys(mirrors)), by_digest, never))
    return tuple(rules)


@dataclass(frozen=True)
class Mirrors:
    """All mirror rules of a cluster."""

    rules: tuple[MirrorRule, ...] = ()
    """The rules, in the order of the objects."""

    def pull_sources(self, reference: Reference) -> tuple[PullSource, ...]:
        """Return the places from which a node pulls the name, in its order.

        Only the rules of the longest matching source count. The source comes last, unless it is one of its mirrors.
        NeverContactSource removes it, for tags and digests alike; so the result can be empty. Raise Blocked if a
        mirror makes an invalid image name.
        """
        rules = self._rules(reference)
        if not rules:
            return (PullSource(reference, mirror=False),)
        source = rules[0].source
        serving = [rule.mirrors for rule in rules if rule.by_digest is bool(reference.digest)]
        name = f"{reference.host}/{reference.repository}"
        # The rest after the match, which may start with a port, as on the node.
        rest = name.removeprefix(bare_host(reference) if source.startswith(WILDCARD) else source)
        sources = [
            PullSource(reference, mirror=False)
            if mirror == source
            else PullSource(_renamed(reference, mirror + rest), mirror=True)
            for mirror in merged(serving)
        ]
        if PullSource(reference, mirror=False) not in sources:
            sources.append(PullSource(reference, mirror=False))
        never = self.never(reference)
        return tuple(source for source in sources if source.mirror or not never)

    def never(self, reference: Reference) -> str | None:
        """Return the source whose NeverContactSource keeps nodes from this place, or None."""
        return next((rule.source for rule in self._rules(reference) if rule.never_source), None)

    def contradictions(self) -> tuple[str, ...]:
        """Return notes about rules that contradict each other.

        The machine config controller refuses all mirrors then, and nodes keep their old mirrors.
        """
        problems = []
        for source in dict.fromkeys(rule.source for rule in self.rules):
            rules = [rule for rule in self.rules if rule.source == source]
            never = [rule for rule in rules if rule.never_source]
            if never and len(never) < len(rules):
                problems.append(f"mirrors of {source} have different policies for the source")
            if any(source in rule.mirrors for rule in never):
                problems.append(f"{source} is a mirror of itself with {_NEVER}")
        kept = "nodes keep their old mirrors, which were not read; this run used the mirrors of the objects"
        return (f"{listed(problems)}: {kept}",) if problems else ()

    def _rules(self, reference: Reference) -> list[MirrorRule]:
        """Return the rules of the longest source that contains the name."""
        sources = {rule.source for rule in self.rules if in_scope(rule.source, reference)}
        source = max(sources, key=weight, default=None)
        return [rule for rule in self.rules if rule.source == source]


def _renamed(reference: Reference, place: str) -> Reference:
    """Return the reference with another host and repository. Raise Blocked if the name is invalid: nodes stop then."""
    suffix = f":{reference.tag}" if reference.tag else ""
    suffix += f"@{reference.digest}" if reference.digest else ""
    try:
        parsed = Reference.parse(place + suffix)
    except Malformed as exc:
        raise Blocked(f"image {reference}: its mirror {place} is not an image name ({exc.message})") from exc
    if parsed.host != place.partition("/")[0]:
        raise Blocked(f"image {reference}: got mirror {place}, expected a host with a dot or a port at its start")
    return replace(parsed, tag=reference.tag, written=None)


def merged(lists: Iterable[tuple[str, ...]]) -> list[str]:
    """Merge lists into one that keeps the order of each (a topological merge). If they contradict, the first wins."""
    rest = [list(names) for names in lists]
    result: list[str] = []
    while heads := [names[0] for names in rest if names]:
        later = {name for names in rest for name in names[1:]}
        head = next((name for name in heads if name not in later), heads[0])
        result.append(head)
        rest = [[name for name in names if name != head] for names in rest]
    return result
