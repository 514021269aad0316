"""Who calls, and whether they may: the bearer token first, then the table of access."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from evalpool_runtime.access import ACCESS, CHECKED_BY_DOMAIN, Who
from evalpool_runtime.authentication import Authenticator
from evalpool_runtime.call import Call
from evalpool_runtime.errors import PermissionDenied, Unauthenticated, reasons

Roles = Mapping[Who, Callable[[str], bool]]
"""For each class of callers that is known by address: whether an address belongs to it."""


class Gatekeeper:
    """Decides who calls, and whether they may."""

    def __init__(self, authenticator: Authenticator, roles: Roles) -> None:
        self._authenticator = authenticator
        self._roles = roles

    def admit(self, method: str, metadata: Mapping[str, str]) -> Call:
        """The call that a method and its metadata stand for.

        Raises:
            Unauthenticated: No token, or one that is not valid.
            PermissionDenied: The caller may not call this method.
        """
        allowed = ACCESS.get(method, frozenset())
        header = metadata.get("authorization", "")
        if not header and Who.ANYONE in allowed:
            return Call(address="", method=method)
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated(
                reasons.ERROR_REASON_TOKEN_MISSING,
                'authorization: the call has no bearer token; send "Bearer <token>" with a token '
                "from `evalpool wallet token`",
            )
        verified = self._authenticator.verify(token.strip())
        call = Call(
            address=verified.address,
            method=method,
            jti=verified.jti,
            expires=verified.expires,
            is_operator=self._is(Who.OPERATOR, verified.address),
        )
        if (
            Who.ANYONE in allowed
            or allowed & CHECKED_BY_DOMAIN
            or any(self._is(who, verified.address) for who in allowed)
        ):
            return call
        raise PermissionDenied(
            reasons.ERROR_REASON_NOT_ALLOWED,
            f"authorization: {verified.address} may not call {method.rpartition('/')[2]}; it is "
            f"for {' and '.join(sorted(_NAMES[who] for who in allowed)) or 'nobody'}",
            address=verified.address,
        )

    def _is(self, who: Who, address: str) -> bool:
        predicate = self._roles.get(who)
        return predicate is not None and predicate(address)


_NAMES = {
    Who.OPERATOR: "the operator",
    Who.BENCHMARK: "the benchmark service",
    Who.DATASET: "the dataset service",
    Who.ADMITTED_WORKER: "admitted workers",
    Who.ADMITTED_ROUTER: "admitted routers",
}
