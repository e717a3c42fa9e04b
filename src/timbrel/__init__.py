"""Timbrel: timbre search and synthesis, self-hosted."""
