"""The version of this distribution, as daemons and clients tell it."""

__version__ = "0.1.0"
