"""evalkit: does a vision-language model look where it should, and does it answer better for it?"""

__version__ = "0.1.0"
