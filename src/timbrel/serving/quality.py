"""What the metrics learn of each search: how near its hits are, how many are hubs, and where its query falls.

Told by the engine after each search, on the thread that answered it; it costs some tens of microseconds.
"""

from __future__ import annotations

from timbrel.engine.asking import Asked, Like, Question, Vectors
from timbrel.engine.results import SearchResult
from timbrel.library.bundle import Bundle
from timbrel.library.reference import Reference
from timbrel.pitch.gate import Decision
from timbrel.serving import metrics

_TENTH = 10


class Quality:
    """Of the searches over one bundle. Thread-safe."""

    def __init__(self, bundle: Bundle) -> None:
        self.reference = Reference.of(bundle)

    def searched(self, asked: Asked, question: Question, result: SearchResult) -> None:
        """Count a search. A further page of one that was counted asks nothing new."""
        if result.offset:
            return
        hits = result.hits
        metrics.search_answered(
            hits=len(hits), hub_hits=sum(hit.patch_id in self.reference.hubs for hit in hits)
        )
        # A patch of the library is no news of those who ask: it lies where the library lies.
        if isinstance(asked, Like):
            return
        if hits:
            metrics.hit_found("best", hits[0].distance)
        if len(hits) >= _TENTH:
            metrics.hit_found("tenth", hits[_TENTH - 1].distance)
        if question.stage1 is None:
            return
        metrics.query_fell("embedding", self.reference.embedding_cell(question.stage1))
        # Vectors have no pitch of their own; several recordings that do not agree on one have too many.
        gate = question.query.gate
        if isinstance(asked, Vectors) or gate.decision is Decision.MIXED:
            return
        if gate.midi is not None:
            metrics.pitch_accepted(gate.midi)
        midi = question.query.midi if gate.midi is None else gate.midi
        metrics.query_fell("pitch", self.reference.pitch_cell(midi))
