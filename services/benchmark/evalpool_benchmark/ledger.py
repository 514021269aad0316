"""The token service, in the terms of this service's domain."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from evalpool.common.v1 import service_info_pb2
from evalpool.token.v1 import token_pb2
from evalpool.values import Tag
from evalpool_benchmark.funding import Credit
from evalpool_benchmark.peers import PeerRefused, peer_error
from evalpool_runtime.protobuf import from_timestamp

if TYPE_CHECKING:
    from evalpool.token.v1.token_pb2_grpc import TokenServiceAsyncStub


@dataclass(frozen=True, slots=True)
class NoticeRead:
    """One message of the ledger's notices: a credit, or nothing of interest, and the cursor."""

    credit: Credit | None
    cursor: int


@dataclass(frozen=True, slots=True)
class Payment:
    """One transfer to make."""

    recipient: str
    quantity: int
    tags: tuple[Tag, ...]


class Ledger:
    """The token service, as this service uses it.

    Args:
        stub: Calls to it, signed by this service.
        address: This service's own address.
        timeout: Seconds that a call may take.
    """

    def __init__(self, stub: TokenServiceAsyncStub, address: str, timeout: float) -> None:
        self._stub = stub
        self._address = address
        self._timeout = timeout

    async def notices(self, after: int) -> AsyncGenerator[NoticeRead, None]:
        """This service's notices after a cursor, as long as the stream lasts.

        Raises:
            PeerUnavailable: The stream has ended; go on from the last cursor.
        """
        request = token_pb2.WatchNoticesRequest(after_sequence=after)
        try:
            async for message in self._stub.WatchNotices(request):
                credit = None
                if message.notice.kind == token_pb2.NOTICE_KIND_CREDIT:
                    credit = _credit(message.notice.transfer)
                yield NoticeRead(credit, message.cursor)
        except grpc.aio.AioRpcError as error:
            raise peer_error(error) from error

    async def credit(self, transfer: str) -> Credit | None:
        """The credit that a transfer made to this service, or None where there is no such transfer.

        Raises:
            PeerUnavailable: It could not be asked.
        """
        request = token_pb2.GetTransferRequest(id=transfer)
        try:
            response = await self._stub.GetTransfer(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            refusal = peer_error(error)
            if isinstance(refusal, PeerRefused) and refusal.not_found:
                return None
            raise refusal from error
        if response.transfer.recipient != self._address:
            return None
        return _credit(response.transfer)

    async def pay(self, payment: Payment, request_id: str) -> str:
        """Make one transfer, once for all repeats under its request id.

        Returns:
            The transfer's id.

        Raises:
            PeerUnavailable: It is not known whether it was made; repeat it.
            PeerRefused: It was not made.
        """
        request = token_pb2.TransferRequest(
            recipient=payment.recipient,
            quantity=str(payment.quantity),
            tags=[_tag(tag) for tag in payment.tags],
            request_id=request_id,
        )
        try:
            response = await self._stub.Transfer(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise peer_error(error) from error
        return response.transfer.id

    async def max_batch(self) -> int:
        """Transfers that it takes in one batch at most.

        Raises:
            PeerUnavailable: It could not be asked.
        """
        try:
            info = await self._stub.GetInfo(token_pb2.GetInfoRequest(), timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise peer_error(error) from error
        return info.limits.max_batch_transfers

    async def pay_all(self, payments: Sequence[Payment], request_id: str) -> list[str]:
        """Make up to `max_batch` transfers, all or none, once for all repeats under the request id.

        Returns:
            The transfers' ids, in the order of the payments.

        Raises:
            PeerUnavailable: It is not known whether they were made; repeat them.
            PeerRefused: None was made.
        """
        request = token_pb2.TransferBatchRequest(
            transfers=[
                token_pb2.BatchTransfer(
                    recipient=payment.recipient,
                    quantity=str(payment.quantity),
                    tags=[_tag(tag) for tag in payment.tags],
                )
                for payment in payments
            ],
            request_id=request_id,
        )
        # A large batch takes the ledger longer.
        timeout = self._timeout + len(payments) / 100
        try:
            response = await self._stub.TransferBatch(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise peer_error(error) from error
        return [transfer.id for transfer in response.transfers]


def _credit(transfer: token_pb2.Transfer) -> Credit:
    return Credit(
        transfer=transfer.id,
        payer=transfer.sender,
        quantity=int(transfer.quantity),
        tags=tuple(Tag(tag.name, tag.value) for tag in transfer.tags),
        time=from_timestamp(transfer.commit_time),
        sequence=transfer.sequence,
    )


def _tag(tag: Tag) -> service_info_pb2.Tag:
    return service_info_pb2.Tag(name=tag.name, value=tag.value)
