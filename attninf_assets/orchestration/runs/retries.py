"""Which errors are transient, and the decorator that retries an asset after them; a bad file ends it."""

import errno
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import dagster as dg
from deltalake.exceptions import CommitFailedError, DeltaError

from attninf_assets.corpus.documents import BadFileError
from attninf_assets.corpus.printable import printable
from attninf_assets.influence.runtime.device_locks import DevicesBusyError
from attninf_assets.store.uris import redacted

MAX_RETRIES = 3
FIRST_PAUSE = 10  # seconds; doubled for each further retry

_Result = TypeVar("_Result")

_LASTING = {
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EROFS,
    errno.ENOSPC, errno.EDQUOT,
}  # fmt: skip
_LASTING_KINDS = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
# How a system's error number shows in words that carry none otherwise: delta-rs's, Arrow's.
_NUMBER = re.compile(r"\((?:os )?error (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)
# Storage libraries raise a plain OSError whose words alone tell a refusal (Arrow's, then delta-rs's) from an outage.
_REFUSED = re.compile(
    r"AWS Error (ACCESS_DENIED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|SIGNATURE_DOES_NOT_MATCH"
    r"|MISSING_AUTHENTICATION_TOKEN|UNRECOGNIZED_CLIENT|OPT_IN_REQUIRED)\b"
    r"|HTTP status 40[13]\b|\b40[13] (Forbidden|Unauthorized|Client Error)|lacked the necessary privileges"
    r"|No space left on device"
)
_OF_STORAGE = re.compile(r"Generic \S+ error")  # delta-rs's DeltaError where a request to the object store failed
# DuckDB's error where our filesystem failed under it: a traceback, as text, that ends with an error of Python's.
_UNDER_DUCKDB = re.compile(r"^Traceback .*\n(OSError|ConnectionError|TimeoutError): ", re.DOTALL)


def is_transient(error: BaseException) -> bool:
    """Whether the same run may well succeed later: storage or network that failed, a lost race, a busy device.

    Not transient are bad input (`ValueError`), our own mistakes, a file that is missing or may not be read, storage
    that refuses us or our credentials, and a full disk. Of several errors one that is transient is enough.
    """
    if isinstance(error, ExceptionGroup):
        return any(map(is_transient, error.exceptions))
    if isinstance(error, CommitFailedError | DevicesBusyError):
        return True
    if isinstance(error, OSError):
        return not isinstance(error, _LASTING_KINDS) and error.errno not in _LASTING and not _is_refusal(error)
    if isinstance(error, DeltaError):
        return bool(_OF_STORAGE.search(str(error))) and not _is_refusal(error)
    if type(error).__module__ in {"duckdb", "_duckdb"}:
        return bool(_UNDER_DUCKDB.search(str(error))) and not _is_refusal(error)
    return isinstance(error, RuntimeError) and isinstance(error.__cause__, CommitFailedError)


def _is_refusal(error: BaseException) -> bool:
    words = str(error)
    numbers = {int(number) for found in _NUMBER.findall(words) for number in found if number}
    return bool(_REFUSED.search(words)) or not numbers.isdisjoint(_LASTING)


def failure_of_file(error: BadFileError) -> dg.Failure:
    """The end of a run by a bad file: file, row where one is at fault, and reason in its metadata."""
    row = {} if error.row is None else {"row": error.row}
    reason = printable(redacted(error), lines=True)
    return dg.Failure(reason, metadata={"file": printable(error.uri), **row, "reason": reason}, allow_retries=False)


def transient_faults_retried(asset: Callable[..., _Result]) -> Callable[..., _Result]:
    """The asset's function, tried again after transient faults: at most 3 times, after 10, 20 and 40 seconds.

    A `BadFileError` ends in a `dg.Failure` with file, row and reason."""

    @functools.wraps(asset)
    def attempted(context: dg.AssetExecutionContext, **resources: Any) -> Any:
        with _retries(context):
            return asset(context, **resources)

    @functools.wraps(asset)
    def events_attempted(context: dg.AssetExecutionContext, **resources: Any) -> Any:
        with _retries(context):
            yield from asset(context, **resources)  # type: ignore[misc]

    return events_attempted if inspect.isgeneratorfunction(asset) else attempted


@contextmanager
def _retries(context: dg.AssetExecutionContext) -> Iterator[None]:
    try:
        yield
    except BadFileError as error:
        raise failure_of_file(error) from None
    except Exception as error:
        if not is_transient(error):
            raise
        pause = FIRST_PAUSE * 2**context.retry_number
        if context.retry_number < MAX_RETRIES:
            again = f"tried again in {pause} s, {context.retry_number + 1} of {MAX_RETRIES} times"
            context.log.warning(f"{type(error).__name__}: {printable(redacted(error), lines=True)}; {again}")
        raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=pause) from error
