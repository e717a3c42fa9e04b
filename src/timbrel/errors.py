"""Every error Timbrel raises on purpose.

    TimbrelError
    ├── InputError
    │   ├── AudioError
    │   ├── AudioTooLarge
    │   ├── UnsuitableQuery
    │   └── NotFound
    ├── Unauthorized
    ├── TooManyRequests
    ├── ConfigurationError
    ├── DataError
    ├── BundleError
    ├── Unavailable
    │   ├── DeadlineExceeded
    │   └── Unreachable
    └── ProtocolError

``code`` is stable: clients may compare it. The message is one line and says what to do next.
`docs/reference/errors.md` has codes and statuses, from here.
"""

from __future__ import annotations


class TimbrelError(Exception):
    """Base of the tree. ``code`` and ``http_status`` are fixed per class."""

    code = "internal_error"
    http_status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InputError(TimbrelError):
    """The caller can mend it."""

    code = "invalid_input"
    http_status = 400


class AudioError(InputError):
    """The recording is not audio, or empty, or has samples that are no numbers."""

    code = "unreadable_audio"


class AudioTooLarge(InputError):
    """The recording has too many bytes, or lasts too long."""

    code = "audio_too_large"
    http_status = 413


class UnsuitableQuery(InputError):
    """The recording does not suit the question: no pitch where one is required, or nothing that sounds."""

    code = "unsuitable_query"
    http_status = 422


class NotFound(InputError):
    """There is no such patch."""

    code = "not_found"
    http_status = 404


class Unauthorized(TimbrelError):
    """An API key is needed: none was sent, or one that is not known."""

    code = "unauthorized"
    http_status = 401


class TooManyRequests(TimbrelError):
    """The API key has asked more often than it may; ``retry_after``: seconds until its next request is answered."""

    code = "too_many_requests"
    http_status = 429
    # Where a service sent the error without saying.
    retry_after = 1

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ConfigurationError(TimbrelError):
    """A params file, the environment, a port or an option is wrong, or something has to be installed first."""

    code = "invalid_configuration"


class DataError(TimbrelError):
    """Notes, banks or soundfonts are not what they should be."""

    code = "invalid_data"


class BundleError(TimbrelError):
    """The bundle is torn, foreign or missing."""

    code = "invalid_bundle"
    http_status = 503


class Unavailable(TimbrelError):
    """Too many requests wait, or a model server does not answer; later it may."""

    code = "unavailable"
    http_status = 503


class DeadlineExceeded(Unavailable):
    """It did not answer in time."""

    code = "deadline_exceeded"
    http_status = 504


class Unreachable(Unavailable):
    """No service answers there, its certificate is not trusted, or the connection broke."""

    code = "unreachable"


class ProtocolError(TimbrelError):
    """What answers there is no Timbrel, or another version of it."""

    code = "protocol_error"


def error_of(code: str, message: str, http_status: int) -> TimbrelError:
    """The error that a service sent: of the class with this code, else of the nearest one for the status.

    A newer service's own codes are kept, though no class has them.
    """
    known = _by_code(TimbrelError).get(code)
    kind = known or _by_status(http_status)
    # A class may want to be told more at its making than what a service tells of it.
    error = kind.__new__(kind, message)
    TimbrelError.__init__(error, message)
    if known is None:
        error.code, error.http_status = code, http_status
    return error


def _by_code(base: type[TimbrelError]) -> dict[str, type[TimbrelError]]:
    known = {base.code: base}
    for kind in base.__subclasses__():
        known |= _by_code(kind)
    return known


def _by_status(status: int) -> type[TimbrelError]:
    nearest = {404: NotFound, 413: AudioTooLarge, 503: Unavailable, 504: DeadlineExceeded}
    return nearest.get(status) or (InputError if 400 <= status < 500 else TimbrelError)
