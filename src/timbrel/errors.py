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
    └── Unavailable                  unavailable           503   a model server does not answer
        └── DeadlineExceeded         deadline_exceeded     504   it answers too slowly

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
