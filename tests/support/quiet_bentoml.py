"""Imports what subclasses BentoML once, without the warnings of BentoML's own code: it calls pathspec and pydantic by
names that are on their way out.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from timbrel.serving import requests

__all__ = ["requests"]
