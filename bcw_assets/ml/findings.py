"""What a predicate about a value returns: the problems it found and the evidence it looked at."""

from dataclasses import dataclass
from typing import Self

Fact = bool | int | float | str | None


@dataclass(frozen=True)
class Findings:
    """The outcome of one predicate; without problems the expectation is met."""

    problems: tuple[str, ...]
    evidence: dict[str, Fact]  # by names in words; numbers are plotted over time: what never changes is text
    rows: tuple[dict[str, Fact], ...] = ()  # those that are wrong, all with the same names

    @classmethod
    def of(cls, *suspicions: tuple[str, bool], **evidence: Fact) -> Self:
        """Keep the suspicions that are true.

        >>> Findings.of(("too small", True), ("too large", False), smallest_value=3)
        Findings(problems=('too small',), evidence={'smallest value': 3}, rows=())
        """
        problems = tuple(text for text, is_true in suspicions if is_true)
        return cls(problems, {name.replace("_", " "): fact for name, fact in evidence.items()})
