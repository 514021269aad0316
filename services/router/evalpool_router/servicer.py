"""The router's RPCs: unpack, call the domain, pack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool.values import Fields
from evalpool_router.caller import Caller
from evalpool_router.inference import Inference
from evalpool_router.judging import Judging
from evalpool_router.membership import Membership
from evalpool_router.packing import (
    pack_model,
    pack_multiplier,
    pack_reference,
    pack_statistics,
)
from evalpool_router.prompts import JUDGE_PROMPT
from evalpool_router.repository import Repository
from evalpool_router.requests import (
    parse_candidate,
    parse_kinds,
    parse_loaded,
    parse_model_digest,
    parse_model_name,
    parse_page_size,
    parse_upload_chunk,
    parse_upload_header,
    parse_worker,
)
from evalpool_router.roster import Roster
from evalpool_router.settings import RouterSettings
from evalpool_router.toll import Toll
from evalpool_router.uploads import Uploads
from evalpool_runtime.call import current_call
from evalpool_runtime.protobuf import timestamp
from evalpool_runtime.service import Runtime


class RouterServicer(router_pb2_grpc.RouterServiceServicer):
    """Answers RouterService."""

    def __init__(
        self,
        runtime: Runtime[RouterSettings],
        inference: Inference,
        judging: Judging,
        toll: Toll,
        repository: Repository,
        uploads: Uploads,
        membership: Membership,
        roster: Roster,
    ) -> None:
        self._runtime = runtime
        self._inference = inference
        self._judging = judging
        self._toll = toll
        self._repository = repository
        self._uploads = uploads
        self._membership = membership
        self._roster = roster

    async def GetInfo(
        self, request: router_pb2.GetInfoRequest, context: Any
    ) -> router_pb2.GetInfoResponse:
        """Who this server is, and what it answers and grades by."""
        settings = self._runtime.settings
        return router_pb2.GetInfoResponse(
            info=self._runtime.service_info(),
            upload_quota_bytes=settings.upload_quota,
            chat_model=pack_reference(await self._repository.named(settings.chat_model)),
            judge_model=pack_reference(await self._repository.named(settings.judge_model)),
            judge_prompt=JUDGE_PROMPT,
        )

    async def GetPricing(
        self, request: router_pb2.GetPricingRequest, context: Any
    ) -> router_pb2.GetPricingResponse:
        """What inference costs."""
        settings, prices = self._runtime.settings, self._toll.prices
        priced = router_pb2.GetPricingResponse(
            paid=prices.paid,
            base_fee=str(prices.base_fee),
            token_fee=str(prices.token_fee),
            last_multiplier=pack_multiplier(self._toll.weight(self._inference.last_multiplier)),
        )
        if prices.paid:
            priced.token_address = settings.token_address
            priced.hold_time.FromTimedelta(self._toll.hold_time(settings.longest_request))
        return priced

    def Infer(
        self, request: inference_pb2.InferRequest, context: Any
    ) -> AsyncIterator[inference_pb2.InferResponse]:
        """Go on with a prompt or a conversation."""
        return self._inference.infer(request, self._caller(context))

    def ScoreChoices(
        self, request: inference_pb2.ScoreChoicesRequest, context: Any
    ) -> AsyncIterator[inference_pb2.ScoreChoicesResponse]:
        """Score the choices of many questions."""
        return self._inference.score(request, self._caller(context))

    def Chat(
        self, request: router_pb2.ChatRequest, context: Any
    ) -> AsyncIterator[router_pb2.ChatResponse]:
        """Answer a question."""
        return self._inference.chat(request, self._caller(context))

    async def Evaluate(
        self, request: router_pb2.EvaluateRequest, context: Any
    ) -> router_pb2.EvaluateResponse:
        """Grade a response."""
        return await self._judging.evaluate(request, self._caller(context))

    async def UploadModel(
        self, request_iterator: AsyncIterator[router_pb2.UploadModelRequest], context: Any
    ) -> router_pb2.UploadModelResponse:
        """Bring a GGUF into the repository."""
        call = current_call()
        messages = aiter(request_iterator)
        # A stream has no request to tell a repeat by: its header, with the digest, stands for it.
        call.request = await anext(messages, None)
        announced = parse_upload_header(call.request)
        chunks = (parse_upload_chunk(message) async for message in messages)
        return await self._uploads.take(call.address, announced, chunks)

    async def GetUpload(
        self, request: router_pb2.GetUploadRequest, context: Any
    ) -> router_pb2.GetUploadResponse:
        """How much of an upload is stored."""
        offset, complete = await self._uploads.offset(
            current_call().address, parse_model_digest(request.digest)
        )
        return router_pb2.GetUploadResponse(offset=offset, complete=complete)

    async def DownloadModel(
        self, request: router_pb2.DownloadModelRequest, context: Any
    ) -> AsyncIterator[router_pb2.DownloadModelResponse]:
        """Stream a model of the repository."""
        call = current_call()
        size, chunks = await self._repository.download(
            parse_model_digest(request.digest),
            request.offset,
            caller=call.address,
            trusted=self._membership.is_admitted(call.address),
        )
        yield router_pb2.DownloadModelResponse(size_bytes=size)
        async for chunk in chunks:
            yield router_pb2.DownloadModelResponse(chunk=chunk)

    async def GetModel(
        self, request: router_pb2.GetModelRequest, context: Any
    ) -> router_pb2.GetModelResponse:
        """One model that the herd can run."""
        model = await self._repository.find(
            parse_model_name(request.model), field="model", caller=current_call().address
        )
        return router_pb2.GetModelResponse(model=pack_model(model))

    async def ListModels(
        self, request: router_pb2.ListModelsRequest, context: Any
    ) -> router_pb2.ListModelsResponse:
        """The models that the herd can run."""
        size = parse_page_size(request.page_size)
        tokens = self._runtime.page_tokens
        cursor = tokens.decode("ListModels", None, request.page_token)
        models, following = await self._repository.list(tuple(cursor) if cursor else None, size)
        return router_pb2.ListModelsResponse(
            models=[pack_model(model) for model in models],
            next_page_token=tokens.encode("ListModels", None, following) if following else "",
        )

    async def ListWorkers(
        self, request: router_pb2.ListWorkersRequest, context: Any
    ) -> router_pb2.ListWorkersResponse:
        """The workers."""
        size = parse_page_size(request.page_size)
        tokens = self._runtime.page_tokens
        after = tokens.decode("ListWorkers", None, request.page_token) or ""
        workers = [worker for worker in self._roster.workers() if worker.address > after]
        more = len(workers) > size
        return router_pb2.ListWorkersResponse(
            workers=workers[:size],
            next_page_token=tokens.encode("ListWorkers", None, workers[size - 1].address)
            if more
            else "",
        )

    async def GetStatistics(
        self, request: router_pb2.GetStatisticsRequest, context: Any
    ) -> router_pb2.GetStatisticsResponse:
        """Queue, load and rates; by model and worker for the operator."""
        return pack_statistics(
            self._roster.scheduler,
            self._roster.workers(),
            self._runtime.clock.monotonic(),
            details=current_call().is_operator,
        )

    async def RegisterWorker(
        self, request: router_pb2.RegisterWorkerRequest, context: Any
    ) -> router_pb2.RegisterWorkerResponse:
        """Enter a worker in the herd."""
        return await self._roster.register(parse_candidate(request, current_call().address))

    async def Heartbeat(
        self, request: router_pb2.HeartbeatRequest, context: Any
    ) -> router_pb2.HeartbeatResponse:
        """Keep a worker's lease."""
        fields = Fields()
        models = parse_loaded(fields, request.models)
        fields.check()
        until, draining = self._roster.heartbeat(
            current_call().address,
            request.generation,
            models=models,
            computed_tokens=request.computed_tokens,
            leaving=request.draining,
        )
        return router_pb2.HeartbeatResponse(lease_expire_time=timestamp(until), draining=draining)

    async def UnregisterWorker(
        self, request: router_pb2.UnregisterWorkerRequest, context: Any
    ) -> router_pb2.UnregisterWorkerResponse:
        """Take a worker out of the herd."""
        self._roster.unregister(current_call().address, request.generation)
        return router_pb2.UnregisterWorkerResponse()

    async def DrainWorker(
        self, request: router_pb2.DrainWorkerRequest, context: Any
    ) -> router_pb2.DrainWorkerResponse:
        """Let a worker finish and give it nothing new, or let it take work again."""
        return await self._roster.drain(parse_worker(request.worker), request.drain)

    async def AdmitWorker(
        self, request: router_pb2.AdmitWorkerRequest, context: Any
    ) -> router_pb2.AdmitWorkerResponse:
        """Admit an address as a worker."""
        address = parse_worker(request.worker)
        fields = Fields()
        kinds = fields.attempt("kinds", lambda: parse_kinds(request.kinds))
        fields.check()
        return await self._roster.admit(address, kinds)

    def _caller(self, context: Any) -> Caller:
        call = current_call()
        evaluates = bool(call.address) and call.address == self._runtime.settings.dataset_address
        return Caller(
            address=call.address,
            trusted=evaluates or call.is_operator,
            evaluates=evaluates,
            remaining=context.time_remaining(),
        )
