"""What a predicate about a value returns: the problems it found and the evidence it looked at."""

from dataclasses import dataclass
from typing import Self

Fact = bool | int | float | str | None


@dataclass(frozen=True)
class Findings:
    """The outcome of one predicate; without problems the promise is kept.

    Attributes:
        problems: what is wrong, each in words.
        evidence: what was looked at.
        rows: the rows that are wrong, all with the same names.
    """

    problems: tuple[str, ...]
    evidence: dict[str, Fact]
    rows: tuple[dict[str, Fact], ...] = ()

    @classmethod
    def of(cls, *suspicions: tuple[str, bool], **evidence: Fact) -> Self:
        """Keep the suspicions that are true.

        >>> Findings.of(("too small", True), ("too large", False), n=3)
        Findings(problems=('too small',), evidence={'n': 3}, rows=())
        """
        return cls(tuple(text for text, is_true in suspicions if is_true), evidence)
