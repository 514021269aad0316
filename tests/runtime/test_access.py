"""The table of who may call what, against the contract itself."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from evalpool.endpoints import PORTS
from evalpool.identity import Identity
from evalpool_runtime.access import ACCESS, CHECKED_BY_DOMAIN, Who
from evalpool_runtime.authentication import Authenticator
from evalpool_runtime.clock import SystemClock
from evalpool_runtime.errors import PermissionDenied, Unauthenticated
from evalpool_runtime.gatekeeper import Gatekeeper

SERVER = Identity.generate()
CALLER = Identity.generate()


def descriptors() -> list[ServiceDescriptor]:
    modules = [
        *(importlib.import_module(f"evalpool.{name}.v1.{name}_pb2") for name in PORTS),
        health_pb2,
        reflection_pb2,
    ]
    return [
        service for module in modules for service in module.DESCRIPTOR.services_by_name.values()
    ]


METHODS = sorted(
    f"/{service.full_name}/{method.name}" for service in descriptors() for method in service.methods
)
# The newer name of server reflection, for the day when the library serves it too.
NOT_SERVED = {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"}


def admit(method: str, caller: Identity | None, roles: Iterable[Who] = ()) -> str:
    """Let a caller with these roles in, or not; gives the address that the handler would see."""
    gatekeeper = Gatekeeper(
        Authenticator(SERVER.address, SystemClock()),
        dict.fromkeys(roles, CALLER.address.__eq__),
    )
    metadata = {}
    if caller is not None:
        metadata["authorization"] = f"Bearer {caller.token(SERVER.address)}"
    return gatekeeper.admit(method, metadata).address


def test_the_table_has_every_method_of_every_service_and_no_other() -> None:
    assert sorted(set(ACCESS) - NOT_SERVED) == METHODS


def test_every_method_is_for_somebody() -> None:
    assert all(ACCESS.values())


@pytest.mark.parametrize("method", METHODS)
def test_without_a_token_only_public_methods_answer(method: str) -> None:
    if Who.ANYONE in ACCESS[method]:
        assert admit(method, None) == ""
    else:
        with pytest.raises(Unauthenticated) as caught:
            admit(method, None)
        assert caught.value.reason_name == "TOKEN_MISSING"


@pytest.mark.parametrize("method", METHODS)
def test_a_stranger_who_signs_gets_what_everybody_may_have(method: str) -> None:
    if ACCESS[method] & (CHECKED_BY_DOMAIN | {Who.ANYONE}):
        assert admit(method, CALLER) == CALLER.address
    else:
        with pytest.raises(PermissionDenied) as caught:
            admit(method, CALLER)
        assert caught.value.reason_name == "NOT_ALLOWED"
        assert CALLER.address in caught.value.message


@pytest.mark.parametrize("who", sorted(set(Who) - CHECKED_BY_DOMAIN - {Who.ANYONE}, key=str))
def test_a_role_opens_its_own_methods_and_no_others(who: Who) -> None:
    closed = [m for m in METHODS if not ACCESS[m] & (CHECKED_BY_DOMAIN | {Who.ANYONE})]
    for method in closed:
        if who in ACCESS[method]:
            assert admit(method, CALLER, {who}) == CALLER.address
            with pytest.raises(PermissionDenied):
                admit(method, Identity.generate(), {who})
        else:
            with pytest.raises(PermissionDenied):
                admit(method, CALLER, {who})


@pytest.mark.parametrize(
    "method",
    ["", "/", "/evalpool.token.v1.TokenService/", "/evalpool.token.v1.TokenService/mint", "/x/Y"],
)
def test_a_method_that_is_not_in_the_table_is_refused_to_everybody(method: str) -> None:
    with pytest.raises(PermissionDenied, match="nobody"):
        admit(method, CALLER, set(Who))


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "bearer\tabc", "abc"])
def test_what_is_no_bearer_token_counts_as_none(header: str) -> None:
    gatekeeper = Gatekeeper(Authenticator(SERVER.address, SystemClock()), {})
    with pytest.raises(Unauthenticated) as caught:
        gatekeeper.admit("/evalpool.token.v1.TokenService/Transfer", {"authorization": header})
    assert caught.value.reason_name == "TOKEN_MISSING"


def test_a_bad_token_is_refused_at_public_methods_too() -> None:
    """Otherwise somebody who signs wrongly would find out only at the first call that matters."""
    gatekeeper = Gatekeeper(Authenticator(SERVER.address, SystemClock()), {})
    with pytest.raises(Unauthenticated):
        gatekeeper.admit(
            "/evalpool.token.v1.TokenService/GetInfo", {"authorization": "Bearer nonsense"}
        )


def test_the_operator_is_known_as_such_wherever_it_calls() -> None:
    gatekeeper = Gatekeeper(
        Authenticator(SERVER.address, SystemClock()), {Who.OPERATOR: CALLER.address.__eq__}
    )
    for person, is_operator in ((CALLER, True), (SERVER, False)):
        token = person.token(SERVER.address)
        call = gatekeeper.admit(
            "/evalpool.token.v1.TokenService/GetBalance", {"authorization": f"Bearer {token}"}
        )
        assert call.is_operator is is_operator
