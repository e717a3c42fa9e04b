"""The codec: 24 kHz sound to 75 frames a second of 128 numbers, and back.

    audio ─► spectrum.log_magnitude ─► encoder ─► embedding [frames, 128]
    audio ◄─ phase.reconstruct      ◄─ decoder ◄─┘

The code is free of phase: the network stores only magnitudes, and the phase is found again from them. Modules that
serving uses (``spectrum``, ``phase``, ``runtime``) are numpy only; ``network``, ``train`` and ``export`` need torch.
"""
