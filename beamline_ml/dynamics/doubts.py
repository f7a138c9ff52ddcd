"""Whether a law describes a run: doubts of several kinds, each over its limit, whose squares add up."""

from __future__ import annotations

Doubts = tuple[tuple[str, float], ...]
"""Why to doubt, in words, and how much: 0 not at all, 1 the limit."""


def reasons(doubts: Doubts) -> tuple[str, ...]:
    """Why the law does not describe the run; empty where it does.

    One doubt beyond its limit is enough, and so are several below theirs whose squares add up to more than 1.
    """
    if sum(doubt**2 for _, doubt in doubts) <= 1.0:
        return ()
    by_itself = tuple(why for why, doubt in doubts if doubt > 1.0)
    return by_itself or (f"{' and '.join(why for why, _ in doubts)}: together more than chance",)
