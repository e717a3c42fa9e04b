"""Which pitch sounds, and whether the search may lean on it.

``estimate.estimate`` measures a fundamental frequency; ``gate.decide`` says what the search does with it.
"""
