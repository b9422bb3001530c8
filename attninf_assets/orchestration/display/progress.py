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

    Its lines are short: the UI does not wrap them beside the definition, and cuts them at some 60 characters.
    `earlier`: shards with scores by other selectors, by fingerprint. `counted`: shards by state. Times are UTC.
    """
    to = f"`{selector[:_SHORT]}`"
    if progress.is_complete and not earlier:
        title = f"Every indexed document is scored by {to}"
    elif earlier:
        title = f"Rescoring: {', '.join(f'`{fingerprint[:_SHORT]}`' for fingerprint in earlier)} → {to}"
    else:
        title = f"Scoring by {to}"
    share = f" ({progress.documents_done / progress.documents:.0%})" if progress.documents else ""
    lines = [f"{progress.documents_done:,} of {progress.documents:,} documents{share}", _tokens(progress)]
    if not progress.is_complete:
        lines += _speed(progress, now)
    lines.append(f"so far {_hours(progress.device_hours, price_per_device_hour)}, committed shards alone")
    if not progress.is_complete and progress.device_hours_left is not None:
        lines.append(f"the rest about {_hours(progress.device_hours_left, price_per_device_hour)}")
    lines.append(f"shards: {counted}")
    lines += [f"still by `{name[:_SHORT]}`: {shards:,} shards" for name, shards in earlier.items()]
    return "\n".join([f"**{title}**", "", *(f"- {line}" for line in lines)])


def _tokens(progress: ScoringProgress) -> str:
    left = "unknown how many left" if progress.tokens_left is None else f"about {progress.tokens_left:,} left"
    return f"{progress.tokens_done:,} tokens done" + ("" if progress.is_complete else f", {left}")


def _speed(progress: ScoringProgress, now: datetime) -> list[str]:
    rate = progress.tokens_per_second
    measured = "rate not measured yet" if rate is None else f"{rate:,.0f} tokens/s on a device"
    if not progress.n_at_work:
        return ["nothing is being scored now", measured]
    lines = [f"{progress.n_at_work:,} {'run' if progress.n_at_work == 1 else 'runs'} at work, {measured}"]
    if progress.seconds_left is not None:
        end = now + timedelta(seconds=progress.seconds_left)
        lines.append(f"about {_duration(progress.seconds_left)} left, until {end:%Y-%m-%d %H:%M} UTC")
    return lines


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
