# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.echo`: a bare grpc.aio server that sends every message back unread. It prints its port."""

from __future__ import annotations

import asyncio

import grpc

from sfumato.deploy.protocol import SERVICE


async def _echo(request: bytes, context: object) -> bytes:
    return request


async def _serve() -> None:
    server = grpc.aio.server()
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(_echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
