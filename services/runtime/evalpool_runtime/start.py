"""What keeps a service from starting."""

from __future__ import annotations


class CannotStart(Exception):
    """The service cannot start with what it was given.

    Its message is for the operator: one sentence that says why, and what to do. No traceback would
    add to it. Base of every failure of a start that an operator can mend.
    """
