"""The token service: its parts put together."""

from __future__ import annotations

from sqlalchemy import Connection

from evalpool.token.v1 import token_pb2_grpc
from evalpool_runtime.replay import forget_expired
from evalpool_runtime.service import Runtime, ServiceDefinition
from evalpool_runtime.watch import Changes
from evalpool_token import store
from evalpool_token.metrics import TokenMetrics
from evalpool_token.servicer import TokenServicer
from evalpool_token.settings import TokenSettings

EXPIRE_SECONDS = 5.0
FORGET_SECONDS = 300.0
HOLDS_A_SWEEP = 500


async def build(runtime: Runtime[TokenSettings]) -> None:
    """Build the token service on its runtime."""
    database = await runtime.open_database("evalpool_token.migrations", durable=True)
    changes = Changes()
    metrics = TokenMetrics(runtime.metrics)
    token_pb2_grpc.add_TokenServiceServicer_to_server(
        TokenServicer(runtime, database, changes, metrics), runtime.server
    )

    def expire(connection: Connection) -> int:
        now = runtime.clock.now()
        # Locked before it looks: two replicas must not return the same hold.
        store.lock_head(connection)
        due = store.due_holds(connection, now, HOLDS_A_SWEEP)
        if due:
            holders = [hold.holder for hold in due]
            draft = store.draft(connection, runtime.identity.address, holders, now)
            for hold in due:
                draft.expire(hold)
            store.commit(connection, draft)
        return len(due)

    async def expire_holds() -> None:
        expired = await database.write(expire)
        if expired:
            metrics.expired(expired)
            changes.notify()

    async def forget_tokens() -> None:
        await database.write(lambda connection: forget_expired(connection, runtime.clock.now()))

    runtime.every("expire-holds", EXPIRE_SECONDS, expire_holds)
    runtime.every("forget-tokens", FORGET_SECONDS, forget_tokens)


SERVICE = ServiceDefinition(
    name="token",
    port=50051,
    settings_type=TokenSettings,
    grpc_service="evalpool.token.v1.TokenService",
    build=build,
)
