"""The name of the image in a signature, and the rules that compare it with the name that a node pulls.

The rules are those of containers/image (docs/reference/openshift.md 5.4).
"""

from __future__ import annotations

from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.errors import Malformed
from kmm_preflight.oci.reference import Reference

REPOSITORY_DIGEST_OR_EXACT = "MatchRepoDigestOrExact"
REPOSITORY = "MatchRepository"
EXACT_REPOSITORY = "ExactRepository"
REMAP = "RemapIdentity"


@dataclass(frozen=True)
class SignedIdentity:
    """A rule for the name in a signature."""

    rule: str = REPOSITORY_DIGEST_OR_EXACT
    """The matchPolicy."""
    repository: str | None = None
    """The repository of ExactRepository. None for another rule."""
    prefix: str | None = None
    """The prefix of RemapIdentity: the start of the names that are replaced. None for another rule."""
    signed_prefix: str | None = None
    """The signedPrefix of RemapIdentity: the new start. None for another rule."""

    @property
    def is_known(self) -> bool:
        """True if this suite can apply the rule."""
        return self.rule in (REPOSITORY_DIGEST_OR_EXACT, REPOSITORY, EXACT_REPOSITORY, REMAP)

    def accepts(self, signed: str, pulled: Reference) -> bool:
        """True if a signature with this name is for the image that a node pulls by the other name.

        True for a rule that is not known.
        """
        try:
            name = _normalized(signed)
            match self.rule:
                case "MatchRepository":
                    return _repository(name) == _repository(str(pulled))
                case "ExactRepository":
                    return _repository(name) == _repository(_normalized(self.repository or ""))
                case "RemapIdentity":
                    return _same(name, self._remapped(pulled))
                case _:
                    return _same(name, pulled) or not self.is_known
        except Malformed:
            return False

    def _remapped(self, pulled: Reference) -> Reference:
        """Return the name with the other prefix. Raise Malformed if that is not a name."""
        repository, prefix = f"{pulled.host}/{pulled.repository}", self.prefix or ""
        if repository != prefix and not repository.startswith(f"{prefix}/"):
            return pulled
        return Reference.parse(f"{self.signed_prefix or ''}{str(pulled)[len(prefix) :]}")


def parse_identity(field: Field) -> SignedIdentity:
    """Parse signedIdentity. Raise Malformed."""
    rule = field["matchPolicy"].optional_text() or REPOSITORY_DIGEST_OR_EXACT
    remap = field["remapIdentity"]
    return SignedIdentity(
        rule,
        field["exactRepository"]["repository"].optional_text(),
        remap["prefix"].optional_text(),
        remap["signedPrefix"].optional_text(),
    )


def _same(signed: str, pulled: Reference) -> bool:
    """True if the names are equal, or the repositories if the node pulls by digest. A bare repository never counts."""
    if signed == _repository(signed):
        return False
    if pulled.digest:
        return _repository(signed) == _repository(str(pulled))
    return signed == str(pulled)


def _normalized(name: str) -> str:
    """Return the name in full, without a default tag. Raise Malformed."""
    parsed = Reference.parse(name)
    bare = f"{parsed.host}/{parsed.repository}"
    has_tag = ":" in name.partition("@")[0].rpartition("/")[2]
    tag = f":{parsed.tag}" if has_tag else ""
    return f"{bare}{tag}{'@' + parsed.digest if parsed.digest else ''}"


def _repository(name: str) -> str:
    bare = name.partition("@")[0]
    head, slash, last = bare.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"
