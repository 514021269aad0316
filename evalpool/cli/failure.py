"""Failures that end a command with one clear line."""

from __future__ import annotations


class Failure(Exception):
    """What went wrong and what to do, in one sentence for the user."""
