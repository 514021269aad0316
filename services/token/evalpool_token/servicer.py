"""The token service's RPCs: unpack, one transaction on the ledger, pack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from google.protobuf.message import Message
from sqlalchemy import Connection

from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool.values import (
    MAX_TAG_VALUE_BYTES,
    MAX_TAGS,
    Fields,
    parse_address,
    parse_integer,
    parse_positive_quantity,
)
from evalpool.values import parse_transfer_id as parse_id
from evalpool_runtime.call import current_call
from evalpool_runtime.database import Database
from evalpool_runtime.errors import NotFound, PermissionDenied, reasons
from evalpool_runtime.protobuf import duration
from evalpool_runtime.replay import once
from evalpool_runtime.service import Runtime
from evalpool_runtime.watch import Changes
from evalpool_token import store
from evalpool_token.commits import Commits, Receipt
from evalpool_token.entries import Entry, EntryKind, Head, HoldState
from evalpool_token.ledger import Draft, made_hold
from evalpool_token.messages import hold_message, notice_message, transfer_message
from evalpool_token.metrics import TokenMetrics
from evalpool_token.requests import (
    TransferOrder,
    parse_batch,
    parse_burn,
    parse_hold,
    parse_mint,
    parse_transfer,
)
from evalpool_token.settings import TokenSettings

M = TypeVar("M", bound=Message)

NOTICES_A_READ = 500
# A page ends here even where more transfers were asked for: it must fit into a message.
PAGE_BYTES = 4 * 1024 * 1024
# Other replicas commit too; their notices are seen at the next look.
LOOK_AGAIN_SECONDS = 1.0


class TokenServicer(token_pb2_grpc.TokenServiceServicer):
    """Answers TokenService."""

    def __init__(
        self,
        runtime: Runtime[TokenSettings],
        database: Database,
        commits: Commits,
        changes: Changes,
        metrics: TokenMetrics,
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._commits = commits
        self._changes = changes
        self._metrics = metrics

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
        await self._expire_due(account)
        found, sequence = await self._database.read(lambda c: store.read_account(c, account))
        return token_pb2.GetBalanceResponse(
            account=account,
            balance=str(found.balance),
            held=str(found.held),
            sequence=sequence,
        )

    async def Transfer(
        self, request: token_pb2.TransferRequest, context: Any
    ) -> token_pb2.TransferResponse:
        """Move units from the caller to a recipient."""
        sender = current_call().address

        def pack(receipt: Receipt) -> token_pb2.TransferResponse:
            return token_pb2.TransferResponse(
                transfer=transfer_message(receipt.entries[0], sender),
                balance=str(receipt.balance_of(sender)),
            )

        return await self._pay(
            token_pb2.TransferResponse, sender, parse_transfer(request, sender), pack
        )

    async def TransferBatch(
        self, request: token_pb2.TransferBatchRequest, context: Any
    ) -> token_pb2.TransferBatchResponse:
        """Make transfers from the caller, all or none."""
        sender = current_call().address
        # Ten thousand take a while, and others call meanwhile.
        order = await asyncio.to_thread(
            parse_batch, request, sender, self._runtime.settings.max_batch_transfers
        )

        def pack(receipt: Receipt) -> token_pb2.TransferBatchResponse:
            return token_pb2.TransferBatchResponse(
                transfers=[transfer_message(entry, sender) for entry in receipt.entries],
                balance=str(receipt.balance_of(sender)),
            )

        return await self._pay(token_pb2.TransferBatchResponse, sender, order, pack)

    async def Mint(self, request: token_pb2.MintRequest, context: Any) -> token_pb2.MintResponse:
        """Create units."""
        operator = current_call().address
        order = parse_mint(request)

        def pack(receipt: Receipt) -> token_pb2.MintResponse:
            return token_pb2.MintResponse(
                transfer=transfer_message(receipt.entries[0], operator),
                total_supply=str(receipt.supply),
            )

        return await self._request(
            token_pb2.MintResponse,
            lambda connection: self._commits.request(
                connection,
                operator,
                order.request_id,
                order.fingerprint,
                [order.recipient],
                lambda d: d.mint(operator, order.recipient, order.quantity, order.request_id),
            ),
            pack,
        )

    async def Burn(self, request: token_pb2.BurnRequest, context: Any) -> token_pb2.BurnResponse:
        """Destroy units of the caller's own."""
        sender = current_call().address
        order = parse_burn(request)

        def pack(receipt: Receipt) -> token_pb2.BurnResponse:
            return token_pb2.BurnResponse(
                transfer=transfer_message(receipt.entries[0], sender),
                total_supply=str(receipt.supply),
            )

        return await self._request(
            token_pb2.BurnResponse,
            lambda connection: self._commits.request(
                connection,
                sender,
                order.request_id,
                order.fingerprint,
                [],
                lambda draft: draft.burn(sender, order.quantity, order.request_id),
            ),
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
        if entry is None or caller not in (
            entry.sender,
            entry.recipient,
            entry.author,
        ):
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
        response = token_pb2.ListTransfersResponse()
        total = 0
        for seen in found[:size]:
            message = transfer_message(seen.entry, caller)
            total += message.ByteSize()
            if response.transfers and total > PAGE_BYTES:
                break
            response.transfers.append(message)
        count = len(response.transfers)
        if count < len(found):
            last = found[count - 1].entry.sequence
            response.next_page_token = tokens.encode("ListTransfers", caller, last)
        return response

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
        head, _ = await self._notices(caller, cursor)
        if cursor > head.sequence:
            fields.refuse(
                "after_sequence",
                f"it is {cursor}, and the ledger is at {head.sequence}; give the last sequence "
                "that you have seen of this ledger",
            )
            fields.check()
        woken = False
        while not self._runtime.stopping.is_set():
            version = self._changes.version
            head, found = await self._notices(caller, cursor)
            for seen in found:
                cursor = seen.entry.sequence
                yield token_pb2.WatchNoticesResponse(notice=notice_message(seen), cursor=cursor)
            if len(found) == NOTICES_A_READ:
                continue
            # Told at first and whenever nothing happened for a while, not at each commit of others.
            if cursor < head.sequence and not woken:
                cursor = head.sequence
                yield token_pb2.WatchNoticesResponse(cursor=cursor)
            if request.until_current:
                return
            woken = await self._changes.wait(version, LOOK_AGAIN_SECONDS)
        raise self._runtime.stopping_error()

    async def Hold(self, request: token_pb2.HoldRequest, context: Any) -> token_pb2.HoldResponse:
        """Set units of the caller's aside for a recipient."""
        holder = current_call().address
        longest = timedelta(seconds=self._runtime.settings.max_hold_seconds)
        order = parse_hold(request, holder, longest)

        def make(draft: Draft) -> None:
            draft.hold(
                holder, order.recipient, order.quantity, order.time_to_live, order.request_id
            )

        def pack(receipt: Receipt) -> token_pb2.HoldResponse:
            return token_pb2.HoldResponse(
                hold=hold_message(made_hold(receipt.entries[0])),
                balance=str(receipt.balance_of(holder)),
            )

        return await self._request(
            token_pb2.HoldResponse,
            lambda connection: self._commits.request(
                connection, holder, order.request_id, order.fingerprint, [], make
            ),
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

        def work(
            connection: Connection,
        ) -> tuple[token_pb2.CaptureHoldResponse, Sequence[Entry]]:
            hold, entries = self._commits.capture(connection, wanted, caller, quantity)
            response = token_pb2.CaptureHoldResponse(
                hold=hold_message(hold), transfer=transfer_message(entries[0], caller)
            )
            return response, entries

        return await self._once(token_pb2.CaptureHoldResponse, work)

    async def ReleaseHold(
        self, request: token_pb2.ReleaseHoldRequest, context: Any
    ) -> token_pb2.ReleaseHoldResponse:
        """Return a hold to its holder."""
        caller = current_call().address
        fields = Fields()
        wanted = fields.parse("id", parse_id, request.id)
        fields.check()

        def work(
            connection: Connection,
        ) -> tuple[token_pb2.ReleaseHoldResponse, Sequence[Entry]]:
            hold, entries = self._commits.release(connection, wanted, caller)
            return token_pb2.ReleaseHoldResponse(hold=hold_message(hold)), entries

        return await self._once(token_pb2.ReleaseHoldResponse, work)

    async def GetHold(
        self, request: token_pb2.GetHoldRequest, context: Any
    ) -> token_pb2.GetHoldResponse:
        """One hold, for its parties."""
        caller = current_call().address
        fields = Fields()
        wanted = fields.parse("id", parse_id, request.id)
        fields.check()
        hold = await self._database.read(lambda c: store.require_hold(c, wanted, caller))
        if hold.state is HoldState.OPEN and hold.expire_time <= self._runtime.clock.now():
            await self._expire_due(hold.holder)
            hold = await self._database.read(lambda c: store.require_hold(c, wanted, caller))
        return token_pb2.GetHoldResponse(hold=hold_message(hold))

    async def _notices(self, account: str, after: int) -> tuple[Head, list[store.AccountEntry]]:
        def read(connection: Connection) -> tuple[Head, list[store.AccountEntry]]:
            # The head first: everything up to it is committed, and nothing after it is sent.
            head = store.read_head(connection)
            return head, store.account_entries_after(
                connection, account, after, head.sequence, NOTICES_A_READ
            )

        return await self._database.read(read)

    async def _expire_due(self, holder: str) -> None:
        """Give a holder back what has lapsed, so that a reader sees what the clock says."""
        if await self._database.read(lambda c: self._commits.has_due(c, holder)):
            expired = await self._database.write(lambda c: self._commits.expire_due(c, holder))
            self._metrics.committed([EntryKind.EXPIRE] * expired)

    async def _pay(
        self,
        response_type: type[M],
        sender: str,
        order: TransferOrder,
        pack: Callable[[Receipt], M],
    ) -> M:
        return await self._request(
            response_type,
            lambda connection: self._commits.request(
                connection,
                sender,
                order.request_id,
                order.fingerprint,
                [payment.recipient for payment in order.payments],
                lambda draft: draft.transfer(sender, order.payments, order.request_id),
            ),
            pack,
        )

    async def _request(
        self,
        response_type: type[M],
        commit: Callable[[Connection], Receipt],
        pack: Callable[[Receipt], M],
    ) -> M:
        def work(connection: Connection) -> tuple[M, Sequence[Entry]]:
            receipt = commit(connection)
            return pack(receipt), receipt.committed

        return await self._once(response_type, work)

    async def _once(
        self,
        response_type: type[M],
        work: Callable[[Connection], tuple[M, Sequence[Entry]]],
    ) -> M:
        """Do the call's work in one transaction, count what it wrote and wake the watches."""
        written: list[EntryKind] = []

        def transact(connection: Connection) -> M:
            response, entries = work(connection)
            # The database may run it again: only the last run counts.
            written[:] = [entry.kind for entry in entries]
            return response

        response = await once(self._database, response_type, transact)
        if written:
            self._metrics.committed(written)
            self._changes.notify()
        return response
