"""What a grammar may be before anybody reads it."""

from __future__ import annotations

from .errors import InvalidParametersError

_LONGEST_BYTES = 64 * 1024
_DEEPEST_GROUPS = 100


def check_grammar(text: str) -> None:
    """Refuse a grammar by its size alone.

    Raises:
        InvalidParametersError: It is too long, or its groups are nested too deeply.
    """
    if len(text.encode(errors="replace")) > _LONGEST_BYTES:
        raise InvalidParametersError(
            "grammar", f"grammar must be at most {_LONGEST_BYTES} bytes long."
        )
    depth = deepest = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if deepest > _DEEPEST_GROUPS:
        raise InvalidParametersError(
            "grammar", f"grammar must not nest groups more than {_DEEPEST_GROUPS} deep."
        )
