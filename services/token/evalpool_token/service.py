"""The token service: its parts put together."""

from __future__ import annotations

from evalpool.token.v1 import token_pb2_grpc
from evalpool_runtime.replay import forget_expired
from evalpool_runtime.service import Runtime, ServiceDefinition
from evalpool_runtime.watch import Changes
from evalpool_token import store
from evalpool_token.commits import Commits
from evalpool_token.effects import Effects
from evalpool_token.metrics import TokenMetrics
from evalpool_token.notices import Notices
from evalpool_token.servicer import TokenServicer
from evalpool_token.settings import TokenSettings

EXPIRE_SECONDS = 5.0
FORGET_SECONDS = 300.0


async def build(runtime: Runtime[TokenSettings]) -> None:
    """Build the token service on its runtime."""
    database = await runtime.open_database("evalpool_token.migrations", durable=True)
    await database.write(lambda connection: store.head.claim(connection, runtime.identity.address))
    commits = Commits(runtime.identity.address, runtime.clock)
    changes = Changes()
    effects = Effects(database, commits, changes, TokenMetrics(runtime.metrics))
    notices = Notices(runtime, database, changes)
    token_pb2_grpc.add_TokenServiceServicer_to_server(
        TokenServicer(runtime, database, commits, effects, notices), runtime.server
    )

    async def forget_tokens() -> None:
        await database.write(lambda connection: forget_expired(connection, runtime.clock.now()))

    async def end_watches() -> None:
        await runtime.stopping.wait()
        changes.notify()

    runtime.spawn("end-watches", end_watches)
    runtime.every("expire-holds", EXPIRE_SECONDS, effects.expire_due)
    runtime.every("forget-tokens", FORGET_SECONDS, forget_tokens)


SERVICE = ServiceDefinition(
    name="token",
    port=50051,
    settings_type=TokenSettings,
    grpc_service="evalpool.token.v1.TokenService",
    build=build,
)
