"""The token service's RPCs: unpack, one transaction on the ledger, pack."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any, TypeVar

from google.protobuf.message import Message
from sqlalchemy import Connection

from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool.values import Fields, parse_address, parse_integer, parse_positive_quantity
from evalpool.values import parse_transfer_id as parse_id
from evalpool_runtime.call import current_call
from evalpool_runtime.database import Database
from evalpool_runtime.errors import NotFound, PermissionDenied, reasons
from evalpool_runtime.protobuf import duration
from evalpool_runtime.replay import once
from evalpool_runtime.service import Runtime
from evalpool_runtime.watch import Changes
from evalpool_token import store
from evalpool_token.entries import Entry
from evalpool_token.ledger import Draft, Payment, may_release
from evalpool_token.messages import hold_message, notice_message, transfer_message
from evalpool_token.metrics import TokenMetrics
from evalpool_token.requests import (
    parse_batch,
    parse_burn,
    parse_hold,
    parse_mint,
    parse_transfer,
)
from evalpool_token.settings import TokenSettings

M = TypeVar("M", bound=Message)

MAX_TAGS = 32
MAX_TAG_VALUE_BYTES = 1024
NOTICES_A_READ = 500
# Other replicas commit too; their notices are seen at the next look.
LOOK_AGAIN_SECONDS = 1.0


class TokenServicer(token_pb2_grpc.TokenServiceServicer):
    """Answers TokenService."""

    def __init__(
        self,
        runtime: Runtime[TokenSettings],
        database: Database,
        changes: Changes,
        metrics: TokenMetrics,
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._changes = changes
        self._metrics = metrics
        self._ledger = runtime.identity.address

    async def GetInfo(
        self, request: token_pb2.GetInfoRequest, context: Any
    ) -> token_pb2.GetInfoResponse:
        """Name, ticker, denomination, supply, address and limits."""
        settings = self._runtime.settings
        head = await self._database.read(store.read_head)
        return token_pb2.GetInfoResponse(
            info=self._runtime.service_info(),
            name=settings.currency_name,
            ticker=settings.ticker,
            denomination=settings.denomination,
            total_supply=str(head.supply),
            limits=token_pb2.Limits(
                max_tags=MAX_TAGS,
                max_tag_value_bytes=MAX_TAG_VALUE_BYTES,
                max_batch_transfers=settings.max_batch_transfers,
                max_hold=duration(timedelta(seconds=settings.max_hold_seconds)),
            ),
            head_sequence=head.sequence,
            head_hash=head.hash,
        )

    async def GetTotalSupply(
        self, request: token_pb2.GetTotalSupplyRequest, context: Any
    ) -> token_pb2.GetTotalSupplyResponse:
        """Units in existence."""
        head = await self._database.read(store.read_head)
        return token_pb2.GetTotalSupplyResponse(
            total_supply=str(head.supply), sequence=head.sequence
        )

    async def GetBalance(
        self, request: token_pb2.GetBalanceRequest, context: Any
    ) -> token_pb2.GetBalanceResponse:
        """The caller's balance; the operator may name any account."""
        call = current_call()
        fields = Fields()
        account = (
            fields.parse("account", parse_address, request.account)
            if request.account
            else call.address
        )
        fields.check()
        if account != call.address and not call.is_operator:
            raise PermissionDenied(
                reasons.ERROR_REASON_NOT_ALLOWED,
                "account: only the operator may see the balance of another; leave it empty",
            )
        found, head = await self._database.read(
            lambda connection: (
                store.read_account(connection, account),
                store.read_head(connection),
            )
        )
        return token_pb2.GetBalanceResponse(
            account=account,
            balance=str(found.balance),
            held=str(found.held),
            sequence=head.sequence,
        )

    async def Transfer(
        self, request: token_pb2.TransferRequest, context: Any
    ) -> token_pb2.TransferResponse:
        """Move units from the caller to a recipient."""
        sender = current_call().address
        order = parse_transfer(request, sender)

        def pack(entries: list[Entry]) -> token_pb2.TransferResponse:
            return token_pb2.TransferResponse(
                transfer=transfer_message(entries[0], sender),
                balance=_balance_after(entries, sender),
            )

        return await self._pay(
            token_pb2.TransferResponse, list(order.payments), order.request_id,
            order.fingerprint, pack,
        )  # fmt: skip

    async def TransferBatch(
        self, request: token_pb2.TransferBatchRequest, context: Any
    ) -> token_pb2.TransferBatchResponse:
        """Make transfers from the caller, all or none."""
        sender = current_call().address
        order = parse_batch(request, sender, self._runtime.settings.max_batch_transfers)

        def pack(entries: list[Entry]) -> token_pb2.TransferBatchResponse:
            return token_pb2.TransferBatchResponse(
                transfers=[transfer_message(entry, sender) for entry in entries],
                balance=_balance_after(entries, sender),
            )

        return await self._pay(
            token_pb2.TransferBatchResponse, list(order.payments), order.request_id,
            order.fingerprint, pack,
        )  # fmt: skip

    async def Mint(self, request: token_pb2.MintRequest, context: Any) -> token_pb2.MintResponse:
        """Create units."""
        operator = current_call().address
        order = parse_mint(request)

        def pack(connection: Connection, entries: list[Entry]) -> token_pb2.MintResponse:
            return token_pb2.MintResponse(
                transfer=transfer_message(entries[0], operator),
                total_supply=str(store.read_head(connection).supply),
            )

        return await self._order(
            token_pb2.MintResponse,
            operator,
            order.request_id,
            order.fingerprint,
            [order.recipient],
            lambda d: d.mint(operator, order.recipient, order.quantity, order.request_id),
            pack,
        )

    async def Burn(self, request: token_pb2.BurnRequest, context: Any) -> token_pb2.BurnResponse:
        """Destroy units of the caller's own."""
        sender = current_call().address
        order = parse_burn(request)

        def pack(connection: Connection, entries: list[Entry]) -> token_pb2.BurnResponse:
            return token_pb2.BurnResponse(
                transfer=transfer_message(entries[0], sender),
                total_supply=str(store.read_head(connection).supply),
            )

        return await self._order(
            token_pb2.BurnResponse,
            sender,
            order.request_id,
            order.fingerprint,
            [sender],
            lambda d: d.burn(sender, order.quantity, order.request_id),
            pack,
        )

    async def GetTransfer(
        self, request: token_pb2.GetTransferRequest, context: Any
    ) -> token_pb2.GetTransferResponse:
        """One transfer, for its parties."""
        caller = current_call().address
        fields = Fields()
        wanted = fields.parse("id", parse_id, request.id)
        fields.check()
        entry = await self._database.read(lambda c: store.find_transfer(c, wanted))
        if entry is None or caller not in (entry.sender, entry.recipient):
            raise NotFound(
                reasons.ERROR_REASON_TRANSFER_NOT_FOUND,
                "id: you are party to no transfer with this id; check it",
            )
        return token_pb2.GetTransferResponse(transfer=transfer_message(entry, caller))

    async def ListTransfers(
        self, request: token_pb2.ListTransfersRequest, context: Any
    ) -> token_pb2.ListTransfersResponse:
        """The caller's transfers, newest first."""
        caller = current_call().address
        fields = Fields()
        size = fields.attempt(
            "page_size",
            lambda: parse_integer(request.page_size, at_least=1, at_most=1000, default=100),
        )
        fields.check()
        tokens = self._runtime.page_tokens
        before = tokens.decode("ListTransfers", caller, request.page_token)
        found = await self._database.read(
            lambda c: store.account_entries_before(c, caller, before, size + 1)
        )
        page = found[:size]
        more = len(found) > size
        return token_pb2.ListTransfersResponse(
            transfers=[transfer_message(seen.entry, caller) for seen in page],
            next_page_token=tokens.encode("ListTransfers", caller, page[-1].entry.sequence)
            if more
            else "",
        )

    async def WatchNotices(
        self, request: token_pb2.WatchNoticesRequest, context: Any
    ) -> AsyncIterator[token_pb2.WatchNoticesResponse]:
        """Stream the caller's notices after a cursor."""
        caller = current_call().address
        fields = Fields()
        cursor = fields.attempt(
            "after_sequence",
            lambda: parse_integer(request.after_sequence, at_least=0, at_most=2**62),
        )
        fields.check()
        while not self._runtime.stopping.is_set():
            version = self._changes.version
            found = await self._notices(caller, cursor)
            for seen in found:
                cursor = seen.entry.sequence
                yield token_pb2.WatchNoticesResponse(notice=notice_message(seen), cursor=cursor)
            if len(found) == NOTICES_A_READ:
                continue
            if request.until_current:
                return
            await self._changes.wait(version, LOOK_AGAIN_SECONDS)
        raise self._runtime.stopping_error()

    async def Hold(self, request: token_pb2.HoldRequest, context: Any) -> token_pb2.HoldResponse:
        """Set units of the caller's aside for a recipient."""
        holder = current_call().address
        longest = timedelta(seconds=self._runtime.settings.max_hold_seconds)
        order = parse_hold(request, holder, longest)
        now = self._runtime.clock.now()

        def make(draft: Draft) -> None:
            expire_time = now + order.time_to_live
            draft.hold(holder, order.recipient, order.quantity, expire_time, order.request_id)

        def pack(connection: Connection, entries: list[Entry]) -> token_pb2.HoldResponse:
            made = store.require_hold(connection, entries[0].id, holder)
            return token_pb2.HoldResponse(
                hold=hold_message(made), balance=_balance_after(entries, holder)
            )

        return await self._order(
            token_pb2.HoldResponse,
            holder,
            order.request_id,
            order.fingerprint,
            [holder],
            make,
            pack,
        )

    async def CaptureHold(
        self, request: token_pb2.CaptureHoldRequest, context: Any
    ) -> token_pb2.CaptureHoldResponse:
        """Take all or a part of a hold."""
        caller = current_call().address
        fields = Fields()
        wanted = fields.parse("id", parse_id, request.id)
        quantity = fields.parse("quantity", parse_positive_quantity, request.quantity)
        fields.check()

        def work(connection: Connection) -> token_pb2.CaptureHoldResponse:
            store.lock_head(connection)
            hold = store.require_hold(connection, wanted, caller)
            if caller != hold.recipient:
                raise PermissionDenied(
                    reasons.ERROR_REASON_NOT_ALLOWED,
                    "id: only the hold's recipient may capture it",
                )
            draft = self._draft(connection, [hold.holder, hold.recipient])
            captured = draft.capture(hold, quantity)
            store.commit(connection, draft)
            return token_pb2.CaptureHoldResponse(
                hold=hold_message(captured), transfer=transfer_message(draft.entries[0], caller)
            )

        response = await once(self._database, token_pb2.CaptureHoldResponse, work)
        self._changes.notify()
        return response

    async def ReleaseHold(
        self, request: token_pb2.ReleaseHoldRequest, context: Any
    ) -> token_pb2.ReleaseHoldResponse:
        """Return a hold to its holder."""
        caller = current_call().address
        fields = Fields()
        wanted = fields.parse("id", parse_id, request.id)
        fields.check()
        now = self._runtime.clock.now()

        def work(connection: Connection) -> token_pb2.ReleaseHoldResponse:
            store.lock_head(connection)
            hold = store.require_hold(connection, wanted, caller)
            may_release(hold, caller, now)
            draft = self._draft(connection, [hold.holder])
            released = draft.release(hold)
            store.commit(connection, draft)
            return token_pb2.ReleaseHoldResponse(hold=hold_message(released))

        return await once(self._database, token_pb2.ReleaseHoldResponse, work)

    async def GetHold(
        self, request: token_pb2.GetHoldRequest, context: Any
    ) -> token_pb2.GetHoldResponse:
        """One hold, for its parties."""
        caller = current_call().address
        fields = Fields()
        wanted = fields.parse("id", parse_id, request.id)
        fields.check()
        hold = await self._database.read(lambda c: store.require_hold(c, wanted, caller))
        return token_pb2.GetHoldResponse(hold=hold_message(hold))

    async def _notices(self, account: str, after: int) -> list[store.AccountEntry]:
        return await self._database.read(
            lambda c: store.account_entries_after(c, account, after, NOTICES_A_READ)
        )

    async def _pay(
        self,
        response_type: type[M],
        payments: list[Payment],
        request_id: str,
        fingerprint: str,
        pack: Callable[[list[Entry]], M],
    ) -> M:
        sender = current_call().address
        return await self._order(
            response_type,
            sender,
            request_id,
            fingerprint,
            [sender, *(payment.recipient for payment in payments)],
            lambda draft: draft.transfer(sender, payments, request_id),
            lambda _, entries: pack(entries),
        )

    async def _order(
        self,
        response_type: type[M],
        sender: str,
        request_id: str,
        fingerprint: str,
        accounts: list[str],
        make: Callable[[Draft], None],
        pack: Callable[[Connection, list[Entry]], M],
    ) -> M:
        """Carry out a request with a request id, once, in one transaction."""

        def work(connection: Connection) -> M:
            draft = self._draft(connection, accounts)
            known = store.find_request(connection, sender, request_id, fingerprint)
            if known is not None:
                return pack(connection, known)
            make(draft)
            store.commit(connection, draft)
            store.record_request(connection, sender, request_id, fingerprint, draft)
            return pack(connection, draft.entries)

        response = await once(self._database, response_type, work)
        self._metrics.committed(response_type.DESCRIPTOR.name.removesuffix("Response"))
        self._changes.notify()
        return response

    def _draft(self, connection: Connection, accounts: list[str]) -> Draft:
        return store.draft(connection, self._ledger, accounts, self._runtime.clock.now())


def _balance_after(entries: list[Entry], account: str) -> str:
    for entry in reversed(entries):
        for posting in entry.postings:
            if posting.account == account:
                return str(posting.balance)
    raise LookupError(f"no entry touches {account}")
