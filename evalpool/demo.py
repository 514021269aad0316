"""The demonstration: a funded pool on real models, from the money to the payout.

A second run finds what the first one did: minted units, the dataset, uploaded models and finished
runs. Only the pool is new each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from evalpool.benchmark.v1 import benchmark_pb2
from evalpool.client import Client
from evalpool.client.datasets import load_file
from evalpool.client.models import push, sha256_of
from evalpool.client.pools import PoolTerms, fund, watch_entry, watch_leaderboard
from evalpool.dataset.v1 import dataset_pb2
from evalpool.endpoints import PORTS
from evalpool.identity import Identity
from evalpool.models import ModelStore, ensure, find_model, quantise
from evalpool.router.v1 import router_pb2
from evalpool.samples import everyday_questions
from evalpool.token.v1 import token_pb2
from evalpool.wallet import AddressBook, Wallets

DATASET = "everyday"
MINTED = 1_000_000
FUNDS = 10_000
JOIN_TIME = "PT12S"
BASE_MODEL = "SmolLM2-135M-Instruct.Q4_1"
SECOND_MODEL = "gemma-3-270m-q4_k_m"
FUNDER = "funder"
PARTICIPANTS = ("ada", "ben")

Tell = Callable[[str], None]
ShowProgress = Callable[[str, str, int, int | None], None]
"""Called with what is done, its stage, how much is done and how much there is."""


@dataclass(frozen=True, slots=True)
class Competitor:
    """An entry of the demonstration.

    Attributes:
        participant: Whose it is.
        name: The model's name.
        digest: Its digest.
        upload: Its file, where the participant uploads it.
    """

    participant: str
    name: str
    digest: str
    upload: Path | None


@dataclass(frozen=True, slots=True)
class Result:
    """How the demonstration ended.

    Attributes:
        leaderboard: The final leaderboard.
        before: Balances by name before the pool was funded.
        after: Balances by name after the payout.
        supply: Units in existence.
        names: Names by address.
        evaluated: Questions that the herd answered for it; what was known is not asked again.
    """

    leaderboard: benchmark_pb2.Leaderboard
    before: dict[str, int]
    after: dict[str, int]
    supply: int
    names: dict[str, str]
    evaluated: int


class DemonstrationFailed(Exception):
    """The story did not end as it should; the message says where."""


class Demonstration:
    """Tells the story against a running deployment.

    Args:
        data: The deployment's data directory.
        wallets: Where the demonstration's people keep their keys; has the operator's.
        addresses: The deployment's servers.
        tell: Called with a line for people.
        progress: Called as long work gets on.
    """

    def __init__(
        self,
        data: Path,
        wallets: Wallets,
        addresses: AddressBook,
        tell: Tell,
        progress: ShowProgress,
    ) -> None:
        self._data = data
        self._tell = tell
        self._progress = progress
        self._people = {name: _wallet(wallets, name) for name in (FUNDER, *PARTICIPANTS)} | {
            "operator": wallets.get("operator")
        }
        self._clients = {
            name: Client(identity, addresses=addresses) for name, identity in self._people.items()
        }

    async def close(self) -> None:
        """Close the channels."""
        for client in self._clients.values():
            await client.close()

    async def tell_all(self) -> Result:
        """Run the story to its end.

        Raises:
            DemonstrationFailed: The pool was not made, or an entry not scored.
            ModelError: A model could not be had.
        """
        await self._mint()
        await self._load_questions()
        competitors = await self._ready_models()
        before = await self._balances()
        answered_before = await self._answered()
        pool = await self._fund()
        entries = await asyncio.gather(*(self._join(pool, c) for c in competitors))
        await asyncio.gather(
            *(self._follow(c, entry) for c, entry in zip(competitors, entries, strict=True))
        )
        evaluated = await self._answered() - answered_before
        self._tell(
            f"every entry is scored; {evaluated:,} questions had to be asked"
            if evaluated
            else "every entry is scored; all answers were known, and none was asked for again"
        )
        self._tell("the pool pays out when its time has ended")
        leaderboard = await self._await_payout(pool)
        return Result(
            leaderboard,
            before,
            await self._balances(),
            await self._supply(),
            {identity.address: name for name, identity in self._people.items()},
            evaluated,
        )

    async def _mint(self) -> None:
        present = await self._clients[FUNDER].token.GetBalance(token_pb2.GetBalanceRequest())
        if int(present.balance) >= FUNDS:
            self._tell(f"{FUNDER} has {int(present.balance):,} units")
            return
        await self._clients["operator"].token.Mint(
            token_pb2.MintRequest(
                recipient=self._people[FUNDER].address,
                quantity=str(MINTED),
                # As long as the supply is the same, it is the same request.
                request_id=f"demo-mint-{await self._supply()}",
            )
        )
        self._tell(f"the operator has minted {MINTED:,} units for {FUNDER}")

    async def _load_questions(self) -> None:
        client = self._clients[FUNDER]
        await client.dataset.CreateDataset(
            dataset_pb2.CreateDatasetRequest(
                id=DATASET,
                kind="siqa",
                title="Everyday situations",
                description="Three-way questions about everyday social situations.",
                license="CC0-1.0",
            )
        )
        loaded = await load_file(client, DATASET, everyday_questions())
        how = "had" if loaded.unchanged else "has"
        self._tell(f"{FUNDER} {how} loaded {loaded.dataset.question_count} questions as {DATASET}")

    async def _ready_models(self) -> list[Competitor]:
        store = ModelStore(self._data / "models")
        base = await self._pull(store, BASE_MODEL)
        second = await self._pull(store, SECOND_MODEL)
        ada, ben = PARTICIPANTS
        made = [
            Competitor(ada, BASE_MODEL, base.name, None),
            Competitor(ben, SECOND_MODEL, second.name, None),
            await self._quantised(base, "Q8_0", ada),
            await self._quantised(base, "Q4_0", ben),
            await self._quantised(base, "Q2_K", ben),
        ]
        for competitor in made:
            if competitor.upload is not None:
                await self._upload(competitor, competitor.upload)
        return made

    async def _pull(self, store: ModelStore, name: str) -> Path:
        loop = asyncio.get_running_loop()

        def report(done: int, total: int | None) -> None:
            loop.call_soon_threadsafe(self._progress, name, "fetching", done, total)

        model = find_model(name)
        path = await asyncio.to_thread(ensure, store, model, report)
        self._progress(name, "fetched", path.stat().st_size, path.stat().st_size)
        return path

    async def _quantised(self, base: Path, kind: str, participant: str) -> Competitor:
        name = f"SmolLM2-135M-Instruct.{kind}"
        target = self._data / "competitors" / f"{name}.gguf"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            self._progress(name, "quantising", 0, None)
            unfinished = target.with_suffix(".part")
            await asyncio.to_thread(quantise, base, unfinished, kind)
            unfinished.replace(target)
        size = target.stat().st_size
        self._progress(name, "quantised", size, size)
        digest = await asyncio.to_thread(sha256_of, target)
        return Competitor(participant, name, digest, target)

    async def _upload(self, competitor: Competitor, path: Path) -> None:
        await push(
            self._clients[competitor.participant],
            path,
            name=competitor.name,
            progress=lambda sent, size: self._progress(competitor.name, "uploading", sent, size),
        )
        size = path.stat().st_size
        self._progress(competitor.name, f"uploaded by {competitor.participant}", size, size)

    async def _fund(self) -> str:
        terms = PoolTerms(
            dataset=DATASET, title="Who knows everyday life?", duration=JOIN_TIME, grace="PT1H"
        )
        funding = await fund(self._clients[FUNDER], str(FUNDS), terms.tags())
        if funding.state != benchmark_pb2.FUNDING_STATE_CREATED:
            why = funding.reason or "no decision yet"
            raise DemonstrationFailed(f"the pool was not made: {why}")
        self._tell(f"{FUNDER} has put {FUNDS:,} units into the pool {funding.pool}")
        return funding.pool

    async def _join(self, pool: str, competitor: Competitor) -> str:
        response = await self._clients[competitor.participant].benchmark.JoinPool(
            benchmark_pb2.JoinPoolRequest(
                pool=pool, subject=competitor.digest, request_id=f"demo-join-{uuid4()}"
            )
        )
        self._tell(f"{competitor.participant} has entered {competitor.name}")
        return response.entry.id

    async def _follow(self, competitor: Competitor, entry: str) -> None:
        client = self._clients[competitor.participant]
        async for seen in watch_entry(client, entry):
            state = benchmark_pb2.EntryState.Name(seen.state).removeprefix("ENTRY_STATE_").lower()
            self._progress(competitor.name, state, seen.done, seen.total or None)
            if seen.state == benchmark_pb2.ENTRY_STATE_SCORED:
                self._tell(f"{competitor.name} has {seen.correct} of {seen.total} right")
            if seen.state == benchmark_pb2.ENTRY_STATE_FAILED:
                raise DemonstrationFailed(f"{competitor.name} failed: {seen.reason}")

    async def _await_payout(self, pool: str) -> benchmark_pb2.Leaderboard:
        client = self._clients[FUNDER]
        async for _ in watch_leaderboard(client, pool):
            pass
        response = await client.benchmark.GetLeaderboard(
            benchmark_pb2.GetLeaderboardRequest(pool=pool)
        )
        return response.leaderboard

    async def _answered(self) -> int:
        """Questions that the herd has answered since its router was started."""
        found = await self._clients["operator"].router.GetStatistics(
            router_pb2.GetStatisticsRequest()
        )
        return found.completed

    async def _supply(self) -> int:
        found = await self._clients["operator"].token.GetTotalSupply(
            token_pb2.GetTotalSupplyRequest()
        )
        return int(found.total_supply)

    async def _balances(self) -> dict[str, int]:
        operator = self._clients["operator"]
        accounts = {name: identity.address for name, identity in self._people.items()}
        for service in PORTS:
            accounts[service] = await operator.address(service)
        balances = {}
        for name, address in accounts.items():
            response = await operator.token.GetBalance(token_pb2.GetBalanceRequest(account=address))
            balances[name] = int(response.balance) + int(response.held)
        return balances


def _wallet(wallets: Wallets, name: str) -> Identity:
    return wallets.get(name) if name in wallets.names() else wallets.new(name)
