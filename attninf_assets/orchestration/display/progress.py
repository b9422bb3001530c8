"""The progress of scoring, told for people."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from attninf_assets.scores.progress import ScoringProgress

__all__ = ["coverage_story"]

_SHORT = 12  # digits of a fingerprint, in a sentence


def coverage_story(
    progress: ScoringProgress,
    *,
    selector: str,
    earlier: Mapping[str, int],
    counted: str,
    now: datetime,
    price_per_device_hour: float,
) -> str:
    """Markdown: which selector is replaced by which, how far that is, how fast, until when, and what it costs.

    `earlier`: shards with scores by other selectors, by fingerprint. `counted`: shards by state. Times are UTC.
    """
    to = f"`{selector[:_SHORT]}`"
    before = ", ".join(f"`{fingerprint[:_SHORT]}` ({shards:,} shards)" for fingerprint, shards in earlier.items())
    if progress.is_complete and not earlier:
        what = f"**Every indexed document is scored by {to}**"
    else:
        what = f"**Rescoring: {before} → {to}**" if earlier else f"**Scoring by {to}**"
    lines = [f"{what}: {progress}.", f"Shards: {counted}."]
    if not progress.is_complete:
        lines.append(_speed(progress, now))
    lines.append(_cost(progress, price_per_device_hour))
    return "\n\n".join(lines)


def _speed(progress: ScoringProgress, now: datetime) -> str:
    rate = progress.tokens_per_second
    measured = "the rate was not measured yet" if rate is None else f"{rate:,.0f} tokens/s on a device"
    if not progress.n_at_work:
        return f"Nothing is being scored now; {measured}."
    runs = f"{progress.n_at_work:,} {'run' if progress.n_at_work == 1 else 'runs'} at work"
    if progress.seconds_left is None:
        return f"{runs}; {measured}."
    end = now + timedelta(seconds=progress.seconds_left)
    left = _duration(progress.seconds_left)
    return f"{runs}, {measured}: about {left} left, until {end:%Y-%m-%d %H:%M} UTC."


def _cost(progress: ScoringProgress, price_per_device_hour: float) -> str:
    told = [f"So far {_hours(progress.device_hours, price_per_device_hour)}"]
    if not progress.is_complete and progress.device_hours_left is not None:
        told.append(f"the rest about {_hours(progress.device_hours_left, price_per_device_hour)}")
    return f"{', '.join(told)}; committed shards are counted, those at work are not."


def _hours(device_hours: float, price: float) -> str:
    hours = (
        f"{device_hours:,.2f} device-hours" if device_hours >= 0.01 else f"{3600 * device_hours:,.0f} device-seconds"
    )
    return f"{hours} ({device_hours * price:,.2f} money)" if price else hours


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 120:
        return f"{minutes} min"
    hours, days = minutes / 60, minutes / 60 / 24
    return f"{hours:.1f} h" if hours < 48 else f"{days:.1f} days"
