"""What the finished bundle does, measured on real renders and real decoded audio.

``patch_recall``: does a note find its patch? ``synthesis_pitch``: does a synthesised note have the pitch
asked for? ``instruments``, ``conditions``, ``ratings``: how far the encoders are to be trusted, baselines beside them;
``stage_worth``, ``hubness``: what the second stage and its scales add. All are deterministic: the same bundle and
settings give the same report.
"""
