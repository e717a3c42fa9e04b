"""Every error Timbrel raises on purpose.

    TimbrelError                     code                  HTTP
    ├── InputError                   invalid_input         400   the caller can mend it
    │   ├── AudioError               unreadable_audio      400   not audio, empty, NaN, …
    │   ├── AudioTooLarge            audio_too_large       413   too many bytes or seconds
    │   ├── UnsuitableQuery          unsuitable_query      422   the gate refuses (gate=require)
    │   └── NotFound                 not_found             404   no such patch
    ├── Unauthorized                 unauthorized          401   no API key, or one that is not known
    ├── TooManyRequests              too_many_requests     429   more than the API key may ask
    ├── ConfigurationError           invalid_configuration  –    params.yaml, environment, ports
    ├── DataError                    invalid_data           –    notes, banks, soundfonts
    ├── BundleError                  invalid_bundle        503   torn, foreign or missing bundle
    ├── Unavailable                  unavailable           503   a model server does not answer
    │   ├── DeadlineExceeded         deadline_exceeded     504   it answers too slowly
    │   └── Unreachable              unreachable            –    no service, no trust, or the connection broke (client)
    └── ProtocolError                protocol_error         –    what answers is no Timbrel (client)

``code`` is stable: clients may compare it. The message is one line and says what to do next.
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
    code = "invalid_input"
    http_status = 400


class AudioError(InputError):
    code = "unreadable_audio"


class AudioTooLarge(InputError):
    code = "audio_too_large"
    http_status = 413


class UnsuitableQuery(InputError):
    code = "unsuitable_query"
    http_status = 422


class NotFound(InputError):
    code = "not_found"
    http_status = 404


class Unauthorized(TimbrelError):
    code = "unauthorized"
    http_status = 401


class TooManyRequests(TimbrelError):
    """``retry_after``: seconds until the next request is answered."""

    code = "too_many_requests"
    http_status = 429
    # Where a service sent the error without saying.
    retry_after = 1

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ConfigurationError(TimbrelError):
    code = "invalid_configuration"


class DataError(TimbrelError):
    code = "invalid_data"


class BundleError(TimbrelError):
    code = "invalid_bundle"
    http_status = 503


class Unavailable(TimbrelError):
    code = "unavailable"
    http_status = 503


class DeadlineExceeded(Unavailable):
    code = "deadline_exceeded"
    http_status = 504


class Unreachable(Unavailable):
    code = "unreachable"


class ProtocolError(TimbrelError):
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
