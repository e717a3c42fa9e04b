from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Gate(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GATE_UNSPECIFIED: _ClassVar[Gate]
    GATE_AUTO: _ClassVar[Gate]
    GATE_REQUIRE: _ClassVar[Gate]
    GATE_OFF: _ClassVar[Gate]

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_FILE: _ClassVar[Encoding]
    ENCODING_PCM_S16LE: _ClassVar[Encoding]
    ENCODING_PCM_F32LE: _ClassVar[Encoding]
GATE_UNSPECIFIED: Gate
GATE_AUTO: Gate
GATE_REQUIRE: Gate
GATE_OFF: Gate
ENCODING_FILE: Encoding
ENCODING_PCM_S16LE: Encoding
ENCODING_PCM_F32LE: Encoding

class SearchRequest(_message.Message):
    __slots__ = ("recordings", "like", "vectors", "options")
    RECORDINGS_FIELD_NUMBER: _ClassVar[int]
    LIKE_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    recordings: Recordings
    like: str
    vectors: Vectors
    options: SearchOptions
    def __init__(self, recordings: _Optional[_Union[Recordings, _Mapping]] = ..., like: _Optional[str] = ..., vectors: _Optional[_Union[Vectors, _Mapping]] = ..., options: _Optional[_Union[SearchOptions, _Mapping]] = ...) -> None: ...

class Recordings(_message.Message):
    __slots__ = ("audio",)
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    audio: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, audio: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Vectors(_message.Message):
    __slots__ = ("stage1", "stage2")
    STAGE1_FIELD_NUMBER: _ClassVar[int]
    STAGE2_FIELD_NUMBER: _ClassVar[int]
    stage1: _containers.RepeatedScalarFieldContainer[float]
    stage2: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, stage1: _Optional[_Iterable[float]] = ..., stage2: _Optional[_Iterable[float]] = ...) -> None: ...

class SearchOptions(_message.Message):
    __slots__ = ("k", "offset", "gate", "pitch", "octaves", "families", "banks", "min_confidence", "fold")
    K_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    PITCH_FIELD_NUMBER: _ClassVar[int]
    OCTAVES_FIELD_NUMBER: _ClassVar[int]
    FAMILIES_FIELD_NUMBER: _ClassVar[int]
    BANKS_FIELD_NUMBER: _ClassVar[int]
    MIN_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    FOLD_FIELD_NUMBER: _ClassVar[int]
    k: int
    offset: int
    gate: Gate
    pitch: float
    octaves: bool
    families: _containers.RepeatedScalarFieldContainer[str]
    banks: _containers.RepeatedScalarFieldContainer[str]
    min_confidence: float
    fold: bool
    def __init__(self, k: _Optional[int] = ..., offset: _Optional[int] = ..., gate: _Optional[_Union[Gate, str]] = ..., pitch: _Optional[float] = ..., octaves: _Optional[bool] = ..., families: _Optional[_Iterable[str]] = ..., banks: _Optional[_Iterable[str]] = ..., min_confidence: _Optional[float] = ..., fold: _Optional[bool] = ...) -> None: ...

class SearchUploadRequest(_message.Message):
    __slots__ = ("options", "recording")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    RECORDING_FIELD_NUMBER: _ClassVar[int]
    options: SearchOptions
    recording: RecordingPart
    def __init__(self, options: _Optional[_Union[SearchOptions, _Mapping]] = ..., recording: _Optional[_Union[RecordingPart, _Mapping]] = ...) -> None: ...

class RecordingPart(_message.Message):
    __slots__ = ("data", "format")
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    format: RecordingFormat
    def __init__(self, data: _Optional[bytes] = ..., format: _Optional[_Union[RecordingFormat, _Mapping]] = ...) -> None: ...

class RecordingFormat(_message.Message):
    __slots__ = ("encoding", "sample_rate", "channels")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    encoding: Encoding
    sample_rate: int
    channels: int
    def __init__(self, encoding: _Optional[_Union[Encoding, str]] = ..., sample_rate: _Optional[int] = ..., channels: _Optional[int] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("query", "total", "offset", "hits")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    query: Query
    total: int
    offset: int
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    def __init__(self, query: _Optional[_Union[Query, _Mapping]] = ..., total: _Optional[int] = ..., offset: _Optional[int] = ..., hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ...) -> None: ...

class Query(_message.Message):
    __slots__ = ("f0_hz", "midi", "confidence", "gate")
    F0_HZ_FIELD_NUMBER: _ClassVar[int]
    MIDI_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    f0_hz: float
    midi: float
    confidence: float
    gate: GateDecision
    def __init__(self, f0_hz: _Optional[float] = ..., midi: _Optional[float] = ..., confidence: _Optional[float] = ..., gate: _Optional[_Union[GateDecision, _Mapping]] = ...) -> None: ...

class GateDecision(_message.Message):
    __slots__ = ("decision", "reason", "midi", "confidence")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MIDI_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    decision: str
    reason: str
    midi: float
    confidence: float
    def __init__(self, decision: _Optional[str] = ..., reason: _Optional[str] = ..., midi: _Optional[float] = ..., confidence: _Optional[float] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("patch_id", "name", "family", "bank", "pitch", "stage1_distance", "stage2_distance", "distance", "x", "y", "also")
    PATCH_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    PITCH_FIELD_NUMBER: _ClassVar[int]
    STAGE1_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    STAGE2_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    ALSO_FIELD_NUMBER: _ClassVar[int]
    patch_id: str
    name: str
    family: str
    bank: str
    pitch: float
    stage1_distance: float
    stage2_distance: float
    distance: float
    x: float
    y: float
    also: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, patch_id: _Optional[str] = ..., name: _Optional[str] = ..., family: _Optional[str] = ..., bank: _Optional[str] = ..., pitch: _Optional[float] = ..., stage1_distance: _Optional[float] = ..., stage2_distance: _Optional[float] = ..., distance: _Optional[float] = ..., x: _Optional[float] = ..., y: _Optional[float] = ..., also: _Optional[_Iterable[str]] = ...) -> None: ...

class SearchBatchResponse(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: SearchResponse
    error: Error
    def __init__(self, response: _Optional[_Union[SearchResponse, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "retry_after_seconds")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    retry_after_seconds: int
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., retry_after_seconds: _Optional[int] = ...) -> None: ...

class LocateRequest(_message.Message):
    __slots__ = ("audio", "options")
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    audio: bytes
    options: LocateOptions
    def __init__(self, audio: _Optional[bytes] = ..., options: _Optional[_Union[LocateOptions, _Mapping]] = ...) -> None: ...

class LocateOptions(_message.Message):
    __slots__ = ("refine",)
    REFINE_FIELD_NUMBER: _ClassVar[int]
    refine: bool
    def __init__(self, refine: _Optional[bool] = ...) -> None: ...

class LocateUploadRequest(_message.Message):
    __slots__ = ("options", "recording")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    RECORDING_FIELD_NUMBER: _ClassVar[int]
    options: LocateOptions
    recording: RecordingPart
    def __init__(self, options: _Optional[_Union[LocateOptions, _Mapping]] = ..., recording: _Optional[_Union[RecordingPart, _Mapping]] = ...) -> None: ...

class LocateResponse(_message.Message):
    __slots__ = ("x", "y", "query", "nearest")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    NEAREST_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    query: Query
    nearest: _containers.RepeatedCompositeFieldContainer[Neighbour]
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., query: _Optional[_Union[Query, _Mapping]] = ..., nearest: _Optional[_Iterable[_Union[Neighbour, _Mapping]]] = ...) -> None: ...

class Neighbour(_message.Message):
    __slots__ = ("patch_id", "name", "family", "bank", "x", "y", "distance")
    PATCH_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    patch_id: str
    name: str
    family: str
    bank: str
    x: float
    y: float
    distance: float
    def __init__(self, patch_id: _Optional[str] = ..., name: _Optional[str] = ..., family: _Optional[str] = ..., bank: _Optional[str] = ..., x: _Optional[float] = ..., y: _Optional[float] = ..., distance: _Optional[float] = ...) -> None: ...

class SynthesizeRequest(_message.Message):
    __slots__ = ("x", "y", "pitch", "velocity", "seconds")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    PITCH_FIELD_NUMBER: _ClassVar[int]
    VELOCITY_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    pitch: int
    velocity: int
    seconds: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., pitch: _Optional[int] = ..., velocity: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class SynthesizeResponse(_message.Message):
    __slots__ = ("wav",)
    WAV_FIELD_NUMBER: _ClassVar[int]
    wav: bytes
    def __init__(self, wav: _Optional[bytes] = ...) -> None: ...

class PcmPart(_message.Message):
    __slots__ = ("data", "sample_rate", "total_samples")
    DATA_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    sample_rate: int
    total_samples: int
    def __init__(self, data: _Optional[bytes] = ..., sample_rate: _Optional[int] = ..., total_samples: _Optional[int] = ...) -> None: ...

class SynthesizeBatchResponse(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: SynthesizeResponse
    error: Error
    def __init__(self, response: _Optional[_Union[SynthesizeResponse, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class ExportInstrumentRequest(_message.Message):
    __slots__ = ("x", "y", "seconds")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    seconds: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., seconds: _Optional[float] = ...) -> None: ...

class FilePart(_message.Message):
    __slots__ = ("data", "filename", "media_type", "total_bytes")
    DATA_FIELD_NUMBER: _ClassVar[int]
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    filename: str
    media_type: str
    total_bytes: int
    def __init__(self, data: _Optional[bytes] = ..., filename: _Optional[str] = ..., media_type: _Optional[str] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class ListPatchesRequest(_message.Message):
    __slots__ = ("families", "banks", "offset", "limit")
    FAMILIES_FIELD_NUMBER: _ClassVar[int]
    BANKS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    families: _containers.RepeatedScalarFieldContainer[str]
    banks: _containers.RepeatedScalarFieldContainer[str]
    offset: int
    limit: int
    def __init__(self, families: _Optional[_Iterable[str]] = ..., banks: _Optional[_Iterable[str]] = ..., offset: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListPatchesResponse(_message.Message):
    __slots__ = ("total", "patches", "offset")
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    total: int
    patches: _containers.RepeatedCompositeFieldContainer[Patch]
    offset: int
    def __init__(self, total: _Optional[int] = ..., patches: _Optional[_Iterable[_Union[Patch, _Mapping]]] = ..., offset: _Optional[int] = ...) -> None: ...

class Patch(_message.Message):
    __slots__ = ("patch_id", "name", "family", "bank", "engine", "x", "y", "pitches")
    PATCH_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    PITCHES_FIELD_NUMBER: _ClassVar[int]
    patch_id: str
    name: str
    family: str
    bank: str
    engine: str
    x: float
    y: float
    pitches: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, patch_id: _Optional[str] = ..., name: _Optional[str] = ..., family: _Optional[str] = ..., bank: _Optional[str] = ..., engine: _Optional[str] = ..., x: _Optional[float] = ..., y: _Optional[float] = ..., pitches: _Optional[_Iterable[float]] = ...) -> None: ...

class GetPatchRequest(_message.Message):
    __slots__ = ("patch_id",)
    PATCH_ID_FIELD_NUMBER: _ClassVar[int]
    patch_id: str
    def __init__(self, patch_id: _Optional[str] = ...) -> None: ...

class GetPatchFileRequest(_message.Message):
    __slots__ = ("patch_id",)
    PATCH_ID_FIELD_NUMBER: _ClassVar[int]
    patch_id: str
    def __init__(self, patch_id: _Optional[str] = ...) -> None: ...

class GetPatchPreviewRequest(_message.Message):
    __slots__ = ("patch_id",)
    PATCH_ID_FIELD_NUMBER: _ClassVar[int]
    patch_id: str
    def __init__(self, patch_id: _Optional[str] = ...) -> None: ...

class File(_message.Message):
    __slots__ = ("filename", "media_type", "data")
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    filename: str
    media_type: str
    data: bytes
    def __init__(self, filename: _Optional[str] = ..., media_type: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ("version", "bundle_id", "bundle_revision", "engine", "patches", "renders", "families", "banks", "map", "stage1_dimension", "stage2_dimension", "max_upload_bytes", "max_seconds", "deadline_seconds")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_REVISION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    RENDERS_FIELD_NUMBER: _ClassVar[int]
    FAMILIES_FIELD_NUMBER: _ClassVar[int]
    BANKS_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    STAGE1_DIMENSION_FIELD_NUMBER: _ClassVar[int]
    STAGE2_DIMENSION_FIELD_NUMBER: _ClassVar[int]
    MAX_UPLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    version: str
    bundle_id: str
    bundle_revision: str
    engine: str
    patches: int
    renders: int
    families: _containers.RepeatedScalarFieldContainer[str]
    banks: _containers.RepeatedScalarFieldContainer[str]
    map: Map
    stage1_dimension: int
    stage2_dimension: int
    max_upload_bytes: int
    max_seconds: float
    deadline_seconds: float
    def __init__(self, version: _Optional[str] = ..., bundle_id: _Optional[str] = ..., bundle_revision: _Optional[str] = ..., engine: _Optional[str] = ..., patches: _Optional[int] = ..., renders: _Optional[int] = ..., families: _Optional[_Iterable[str]] = ..., banks: _Optional[_Iterable[str]] = ..., map: _Optional[_Union[Map, _Mapping]] = ..., stage1_dimension: _Optional[int] = ..., stage2_dimension: _Optional[int] = ..., max_upload_bytes: _Optional[int] = ..., max_seconds: _Optional[float] = ..., deadline_seconds: _Optional[float] = ...) -> None: ...

class Map(_message.Message):
    __slots__ = ("radius", "pitch_low", "pitch_high", "velocity_low", "velocity_high")
    RADIUS_FIELD_NUMBER: _ClassVar[int]
    PITCH_LOW_FIELD_NUMBER: _ClassVar[int]
    PITCH_HIGH_FIELD_NUMBER: _ClassVar[int]
    VELOCITY_LOW_FIELD_NUMBER: _ClassVar[int]
    VELOCITY_HIGH_FIELD_NUMBER: _ClassVar[int]
    radius: float
    pitch_low: int
    pitch_high: int
    velocity_low: int
    velocity_high: int
    def __init__(self, radius: _Optional[float] = ..., pitch_low: _Optional[int] = ..., pitch_high: _Optional[int] = ..., velocity_low: _Optional[int] = ..., velocity_high: _Optional[int] = ...) -> None: ...
