"""What a refusal must be like, whatever it refuses: it can be read, by a person, in a terminal, to the end."""

from attninf_assets.corpus.printable import printable

__all__ = ["Met", "faults_of_message", "faults_of_reason"]

_LONGEST_LINE = 3_000  # characters, the place that is named not counted
_MOST_LINES = 60
_LONGEST_REASON = 500

Met = tuple[str, list[str]]  # what an input met, and what is wrong with that


def faults_of_message(message: str, *, place: str) -> list[str]:
    """What is wrong with an error's words: they begin with `place`, are bounded, and move nothing that shows them."""
    faults = []
    if not message.startswith(f"{place}: "):
        faults.append(f"does not begin with the place, {place}")
    rest = message.replace(place, "")
    if len(lines := rest.split("\n")) > _MOST_LINES or max(map(len, lines)) > _LONGEST_LINE:
        faults.append(f"is {len(rest):,} characters in {len(lines):,} lines")
    if printable(rest, lines=True) != rest:
        faults.append("would act on a terminal")
    return faults


def faults_of_reason(reason: str) -> list[str]:
    """The same for the reason of a row in the quarantine, which is one line."""
    faults = [] if len(reason) <= _LONGEST_REASON else [f"is {len(reason):,} characters"]
    return faults if reason and printable(reason) == reason else [*faults, "is empty or would act on a terminal"]
