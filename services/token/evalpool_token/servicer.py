"""The token service's RPCs: unpack, one transaction on the ledger, pack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import Message
from sqlalchemy import Connection

from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool.values import MAX_TAG_VALUE_BYTES, MAX_TAGS
from evalpool_runtime.call import current_call
from evalpool_runtime.database import Database
from evalpool_runtime.protobuf import duration
from evalpool_runtime.service import Runtime
from evalpool_token import store
from evalpool_token.commits import Commits, Receipt
from evalpool_token.effects import Effects
from evalpool_token.entries import Entry
from evalpool_token.ledger import Draft, made_hold
from evalpool_token.messages import (
    hold_message,
    notice_message,
    transfer_message,
    transfers_that_fit,
)
from evalpool_token.notices import Notices
from evalpool_token.requests import (
    TransferOrder,
    parse_account,
    parse_batch,
    parse_burn,
    parse_capture,
    parse_hold,
    parse_id,
    parse_mint,
    parse_page_size,
    parse_transfer,
    parse_watch,
)
from evalpool_token.settings import TokenSettings

M = TypeVar("M", bound=Message)


class TokenServicer(token_pb2_grpc.TokenServiceServicer):
    """Answers TokenService.

    Args:
        runtime: What the service runs on.
        database: The ledger's database.
        commits: What a transaction does.
        effects: Has transactions made, once.
        notices: Follows accounts.
    """

    def __init__(
        self,
        runtime: Runtime[TokenSettings],
        database: Database,
        commits: Commits,
        effects: Effects,
        notices: Notices,
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._commits = commits
        self._effects = effects
        self._notices = notices

    async def GetInfo(
        self, request: token_pb2.GetInfoRequest, context: Any
    ) -> token_pb2.GetInfoResponse:
        """Name, ticker, denomination, supply, address and limits."""
        settings = self._runtime.settings
        head = await self._database.read(store.head.read)
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
        head = await self._database.read(store.head.read)
        return token_pb2.GetTotalSupplyResponse(
            total_supply=str(head.supply), sequence=head.sequence
        )

    async def GetBalance(
        self, request: token_pb2.GetBalanceRequest, context: Any
    ) -> token_pb2.GetBalanceResponse:
        """The caller's balance; the operator may name any account."""
        call = current_call()
        account = parse_account(request, call.address, is_operator=call.is_operator)
        # So that a reader sees what the clock says.
        await self._effects.expire_due(account)
        found, sequence = await self._database.read(partial(store.accounts.read, address=account))
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

        def make(draft: Draft) -> None:
            draft.mint(operator, order.recipient, order.quantity, order.request_id)

        def pack(receipt: Receipt) -> token_pb2.MintResponse:
            return token_pb2.MintResponse(
                transfer=transfer_message(receipt.entries[0], operator),
                total_supply=str(receipt.supply),
            )

        return await self._effects.request(
            token_pb2.MintResponse,
            lambda connection: self._commits.request(
                connection, operator, order.request_id, order.fingerprint, [order.recipient], make
            ),
            pack,
        )

    async def Burn(self, request: token_pb2.BurnRequest, context: Any) -> token_pb2.BurnResponse:
        """Destroy units of the caller's own."""
        sender = current_call().address
        order = parse_burn(request)

        def make(draft: Draft) -> None:
            draft.burn(sender, order.quantity, order.request_id)

        def pack(receipt: Receipt) -> token_pb2.BurnResponse:
            return token_pb2.BurnResponse(
                transfer=transfer_message(receipt.entries[0], sender),
                total_supply=str(receipt.supply),
            )

        return await self._effects.request(
            token_pb2.BurnResponse,
            lambda connection: self._commits.request(
                connection, sender, order.request_id, order.fingerprint, [], make
            ),
            pack,
        )

    async def GetTransfer(
        self, request: token_pb2.GetTransferRequest, context: Any
    ) -> token_pb2.GetTransferResponse:
        """One transfer, for its parties."""
        caller = current_call().address
        wanted = parse_id(request.id)
        entry = await self._database.read(
            partial(store.log.require_transfer, transfer=wanted, party=caller)
        )
        return token_pb2.GetTransferResponse(transfer=transfer_message(entry, caller))

    async def ListTransfers(
        self, request: token_pb2.ListTransfersRequest, context: Any
    ) -> token_pb2.ListTransfersResponse:
        """The caller's transfers, newest first."""
        caller = current_call().address
        size = parse_page_size(request)
        tokens = self._runtime.page_tokens
        before = tokens.decode("ListTransfers", caller, request.page_token)
        found = await self._database.read(
            partial(store.log.movements_before, account=caller, before=before, limit=size + 1)
        )
        response = token_pb2.ListTransfersResponse(
            transfers=transfers_that_fit(found[:size], caller)
        )
        count = len(response.transfers)
        if count < len(found):
            last = found[count - 1].entry.sequence
            response.next_page_token = tokens.encode("ListTransfers", caller, last)
        return response

    async def WatchNotices(
        self, request: token_pb2.WatchNoticesRequest, context: Any
    ) -> AsyncIterator[token_pb2.WatchNoticesResponse]:
        """Stream the caller's notices after a cursor."""
        watch = self._notices.watch(
            current_call().address, parse_watch(request), until_current=request.until_current
        )
        async with aclosing(watch) as steps:
            async for seen in steps:
                notice = None if seen.movement is None else notice_message(seen.movement)
                yield token_pb2.WatchNoticesResponse(notice=notice, cursor=seen.cursor)

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

        return await self._effects.request(
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
        order = parse_capture(request)

        def work(
            connection: Connection,
        ) -> tuple[token_pb2.CaptureHoldResponse, Sequence[Entry]]:
            hold, entries = self._commits.capture(connection, order.hold, caller, order.quantity)
            response = token_pb2.CaptureHoldResponse(
                hold=hold_message(hold), transfer=transfer_message(entries[0], caller)
            )
            return response, entries

        return await self._effects.once(token_pb2.CaptureHoldResponse, work)

    async def ReleaseHold(
        self, request: token_pb2.ReleaseHoldRequest, context: Any
    ) -> token_pb2.ReleaseHoldResponse:
        """Return a hold to its holder."""
        caller = current_call().address
        wanted = parse_id(request.id)

        def work(
            connection: Connection,
        ) -> tuple[token_pb2.ReleaseHoldResponse, Sequence[Entry]]:
            hold, entries = self._commits.release(connection, wanted, caller)
            return token_pb2.ReleaseHoldResponse(hold=hold_message(hold)), entries

        return await self._effects.once(token_pb2.ReleaseHoldResponse, work)

    async def GetHold(
        self, request: token_pb2.GetHoldRequest, context: Any
    ) -> token_pb2.GetHoldResponse:
        """One hold, for its parties."""
        read = partial(store.holds.require, hold=parse_id(request.id), party=current_call().address)
        hold = await self._database.read(read)
        # So that a reader sees what the clock says.
        await self._effects.expire_due(hold.holder)
        return token_pb2.GetHoldResponse(hold=hold_message(await self._database.read(read)))

    async def _pay(
        self,
        response_type: type[M],
        sender: str,
        order: TransferOrder,
        pack: Callable[[Receipt], M],
    ) -> M:
        return await self._effects.request(
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
