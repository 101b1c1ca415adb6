import { once } from 'node:events'
import { createRoute, type OpenAPIHono, type z } from '@hono/zod-openapi'
import type { HttpBindings } from '@hono/node-server'
import type { Context, MiddlewareHandler, TypedResponse } from 'hono'
import { UsageError, systemClock } from '../base/index.ts'
import { DEFAULT_REVISION, parseModelCid } from '../model/index.ts'
import type { ModelDetails, ShoalNode, ShowOptions } from '../node/types.ts'
import { jsonStream } from './json-pieces.ts'
import { OpenLoads } from './open-loads.ts'
import { knownShards, shownModelReplication, shownShard, shownStatus } from './replication.ts'
import * as schemas from './schemas.ts'
import { ndjson, type Sink } from './stream.ts'
import type { AddMessage, DrainMessage, OpenMessage, ReplicatedMessage, ShownModel, VerifyMessage } from './types.ts'

export interface ApiEnv { Bindings: HttpBindings }

export interface RoutesInit {
  node: ShoalNode
  /** Aborts when the server stops: what is open ends. */
  stopping: AbortSignal
  /** The last line of a stream that failed. */
  errorLine: (error: unknown) => object
  onShutdown: (() => void) | undefined
}

const json = <Schema extends z.ZodType>(description: string, schema: Schema): { description: string, content: { 'application/json': { schema: Schema } } } =>
  ({ description, content: { 'application/json': { schema } } })
const lines = <Schema extends z.ZodType>(description: string, schema: Schema): { description: string, content: { 'application/x-ndjson': { schema: Schema } } } =>
  ({ description, content: { 'application/x-ndjson': { schema } } })
const body = <Schema extends z.ZodType>(schema: Schema): { required: true, content: { 'application/json': { schema: Schema } } } =>
  ({ required: true, content: { 'application/json': { schema } } })
const mayHaveBody = <Schema extends z.ZodType>(schema: Schema): { required: false, content: { 'application/json': { schema: Schema } } } =>
  ({ required: false, content: { 'application/json': { schema } } })
const failed = { default: json('What went wrong; nothing else has happened', schemas.ErrorBody) }

type ApiContext = Context<ApiEnv>

/** All routes under /v1. Each is a sentence over the node; what a route accepts and answers stands beside it. */
export function addRoutes (app: OpenAPIHono<ApiEnv>, init: RoutesInit): void {
  addModelRoutes(app, init)
  addLoadRoutes(app, init)
  addReplicationRoutes(app, init)
  addCareRoutes(app, init)
  addLinkRoutes(app, init)
  addNodeRoutes(app, init)
}

function addModelRoutes (app: OpenAPIHono<ApiEnv>, { node, ...init }: RoutesInit): void {
  app.openapi(createRoute({
    method: 'post', path: '/v1/models', summary: 'Add a file or directory',
    request: { body: body(schemas.AddBody) },
    responses: { 200: lines('Progress, then the result', schemas.AddLine), ...failed }
  }), c => {
    const { path, ...options } = c.req.valid('json')
    return stream<AddMessage>(c, init, async (sink, signal) => {
      const result = await node.add(path, { ...options, signal, onProgress: progress => { sink.progress({ type: 'progress', progress }) } })
      sink.send({ type: 'done', result })
    })
  })

  app.openapi(createRoute({
    method: 'get', path: '/v1/models', summary: 'The models held here', responses: { 200: json('In no order', schemas.Models), ...failed }
  }), c => c.json(node.models(), 200))

  app.openapi(createRoute({
    method: 'get', path: '/v1/models/{cid}', summary: 'Files, blocks, tensors, holders and replicas of a model held here',
    request: { params: schemas.CidParam, query: schemas.ShowQuery },
    responses: { 200: json('The model', schemas.ModelDetails), ...failed }
  }), async c => inPieces(c, await shown(node, cidOf(c.req.valid('param')), { tensors: c.req.valid('query').tensors === 'true', signal: c.req.raw.signal })))

  app.openapi(createRoute({
    method: 'delete', path: '/v1/models/{cid}', summary: 'Delete a model here',
    request: { params: schemas.CidParam }, responses: { 200: json('What that freed', schemas.RemovedModel), ...failed }
  }), async c => c.json(await node.remove(cidOf(c.req.valid('param'))), 200))

  app.openapi(createRoute({
    method: 'put', path: '/v1/models/{cid}/pin', summary: 'Keep a model from being evicted, and say how many replicas the swarm keeps',
    middleware: [bodyOrNone] as const,
    request: { params: schemas.CidParam, body: mayHaveBody(schemas.PinBody) }, responses: { 200: json('Pinned', schemas.PinResult), ...failed }
  }), async c => {
    const cid = cidOf(c.req.valid('param'))
    const { replicas } = c.req.valid('json')
    await node.pin(cid, { replicas })
    return c.json({ cid, pinned: true, replicas }, 200)
  })

  app.openapi(createRoute({
    method: 'delete', path: '/v1/models/{cid}/pin', summary: 'Let a model be evicted again; of one that was published here, everywhere',
    request: { params: schemas.CidParam }, responses: { 200: json('Not pinned', schemas.PinResult), ...failed }
  }), async c => {
    const cid = cidOf(c.req.valid('param'))
    await node.unpin(cid)
    return c.json({ cid, pinned: false }, 200)
  })
}

function addLoadRoutes (app: OpenAPIHono<ApiEnv>, { node, ...init }: RoutesInit): void {
  const loads = new OpenLoads()

  app.openapi(createRoute({
    method: 'post', path: '/v1/models/{cid}/load', summary: 'Open a model and load what is missing',
    description: 'The load is joined for as long as the answer is read: closing the connection leaves it. What was fetched stays.',
    request: { params: schemas.CidParam, body: body(schemas.LoadBody) },
    responses: { 200: lines('The files, progress, then the result', schemas.LoadLine), ...failed }
  }), c => {
    const cid = cidOf(c.req.valid('param'))
    const { hold, ...options } = c.req.valid('json')
    return stream<OpenMessage>(c, init, async (sink, signal) => {
      const model = await node.open(cid, { ...options, reserve: options.onDemand !== true, signal, onProgress: progress => { sink.progress({ type: 'progress', progress }) } })
      loads.add(model)
      try {
        sink.send({ type: 'files', files: [...model.files], path: node.models().find(held => held.cid === model.cid)?.path })
        sink.send({ type: 'done', result: await model.done })
        if (hold === true && !signal.aborted) await once(signal, 'abort')
      } finally {
        loads.delete(model)
        model.close()
      }
    })
  })

  app.openapi(createRoute({
    method: 'post', path: '/v1/models/{cid}/wait', summary: 'Wait until a range of a file is verified and on disk',
    description: 'Moves the range to the front of the fetch. The model must be complete, or a load of it open.',
    request: { params: schemas.CidParam, body: body(schemas.WaitBody) },
    responses: { 200: json('It is there', schemas.Waited), ...failed }
  }), async c => {
    const cid = cidOf(c.req.valid('param'))
    await loads.wait(node, cid, c.req.valid('json'), { signal: AbortSignal.any([c.req.raw.signal, init.stopping]) })
    return c.json({ ready: true as const }, 200)
  })
}

function addReplicationRoutes (app: OpenAPIHono<ApiEnv>, { node, ...init }: RoutesInit): void {
  app.openapi(createRoute({
    method: 'post', path: '/v1/models/{cid}/replicated', summary: 'Wait until every shard has its target of proven replicas',
    description: 'Waits as long as the answer is read. Replication goes on all the same when nobody waits.',
    request: { params: schemas.CidParam },
    responses: { 200: lines('Progress, then that it is done', schemas.ReplicatedLine), ...failed }
  }), c => {
    const cid = cidOf(c.req.valid('param'))
    return stream<ReplicatedMessage>(c, init, async (sink, signal) => {
      const startedAt = systemClock.monotonic()
      await node.replicated(cid, { signal, onProgress: progress => { sink.progress({ type: 'progress', progress }) } })
      sink.send({ type: 'done', result: { cid, seconds: (systemClock.monotonic() - startedAt) / 1000 } })
    })
  })

  app.openapi(createRoute({
    method: 'post', path: '/v1/drain', summary: 'Hand over everything this node promised to keep',
    description: 'It serves meanwhile. Closing the connection stops the waiting; the node stays drained until it is started again.',
    request: { body: body(schemas.DrainBody) },
    responses: { 200: lines('Progress, then what is left', schemas.DrainLine), ...failed }
  }), c => {
    const { deadlineMs } = c.req.valid('json')
    return stream<DrainMessage>(c, init, async (sink, signal) => {
      const result = await node.drain({ deadlineMs, signal, onProgress: progress => { sink.progress({ type: 'progress', progress }) } })
      sink.send({ type: 'done', result })
    })
  })
}

function addCareRoutes (app: OpenAPIHono<ApiEnv>, { node, ...init }: RoutesInit): void {
  app.openapi(createRoute({
    method: 'post', path: '/v1/verify', summary: 'Re-hash one model, or all that is held',
    request: { body: body(schemas.VerifyBody) },
    responses: { 200: lines('Progress, then what is bad', schemas.VerifyLine), ...failed }
  }), c => {
    const { cid: text } = c.req.valid('json')
    const cid = text === undefined ? undefined : cidOf({ cid: text })
    return stream<VerifyMessage>(c, init, async (sink, signal) => {
      const result = await node.verify(cid, { signal, onProgress: progress => { sink.progress({ type: 'progress', progress }) } })
      sink.send({ type: 'done', result })
    })
  })

  app.openapi(createRoute({
    method: 'post', path: '/v1/gc', summary: 'Evict cached models down to the quota and remove leftovers',
    request: { body: body(schemas.GcBody) }, responses: { 200: json('What went, or would go', schemas.GcResult), ...failed }
  }), async c => c.json(await node.gc(c.req.valid('json')), 200))

  app.openapi(createRoute({
    method: 'get', path: '/v1/transfers', summary: 'Running loads', responses: { 200: json('Now', schemas.Transfers), ...failed }
  }), c => c.json(node.transfers(), 200))
}

function addLinkRoutes (app: OpenAPIHono<ApiEnv>, { node }: RoutesInit): void {
  app.openapi(createRoute({
    method: 'get', path: '/v1/links', summary: 'Repository names that stand for models here', responses: { 200: json('By name', schemas.Links), ...failed }
  }), c => c.json(node.links(), 200))

  app.openapi(createRoute({
    method: 'put', path: '/v1/links', summary: 'Let a repository name stand for a model, for Hugging Face clients of this node',
    request: { body: body(schemas.LinkBody) }, responses: { 200: json('Linked', schemas.Link), ...failed }
  }), async c => {
    const { repo, revision = DEFAULT_REVISION, cid } = c.req.valid('json')
    return c.json(await node.link({ repo, revision }, cid), 200)
  })

  app.openapi(createRoute({
    method: 'delete', path: '/v1/links', summary: 'Take a repository name away; the model stays',
    request: { query: schemas.LinkQuery }, responses: { 200: json('What it stood for', schemas.Link), ...failed }
  }), async c => {
    const { repo, revision = DEFAULT_REVISION } = c.req.valid('query')
    return c.json(await node.unlink({ repo, revision }), 200)
  })
}

function addNodeRoutes (app: OpenAPIHono<ApiEnv>, { node, stopping, onShutdown }: RoutesInit): void {
  app.openapi(createRoute({
    method: 'get', path: '/v1/peers', summary: 'Peers with their rates and scores', responses: { 200: json('Now', schemas.Peers), ...failed }
  }), c => c.json(node.peers(), 200))

  app.openapi(createRoute({
    method: 'get', path: '/v1/status', summary: 'Everything in short, problems included', responses: { 200: json('Now', schemas.Status), ...failed }
  }), async c => c.json(shownStatus(await node.status(), systemClock.now()), 200))

  app.openapi(createRoute({
    method: 'get', path: '/v1/invite', summary: 'A token with which others join; it holds the swarm key, keep it secret',
    responses: { 200: json('The token', schemas.InviteResult), ...failed }
  }), c => c.json({ invite: node.invite() }, 200))

  app.openapi(createRoute({
    method: 'post', path: '/v1/connect', summary: 'Connect to a peer by its address',
    request: { body: body(schemas.ConnectBody) }, responses: { 200: json('Connected', schemas.ConnectResult), ...failed }
  }), async c => {
    const { multiaddr } = c.req.valid('json')
    return c.json({ peerId: await node.connect(multiaddr, { signal: AbortSignal.any([c.req.raw.signal, stopping]) }) }, 200)
  })

  app.openapi(createRoute({
    method: 'post', path: '/v1/shutdown', summary: 'Stop the daemon', responses: { 202: json('It will stop now', schemas.ShutdownResult), ...failed }
  }), c => {
    if (onShutdown === undefined) throw new UsageError('this node runs inside another program: stop that one')
    // After the answer is out, so that the caller learns of it.
    c.env.outgoing.once('close', onShutdown)
    return c.json({ status: 'stopping' as const, pid: process.pid }, 202)
  })
}

/** For a route whose body may be left out: clients that call every body JSON send an empty one, which no parser takes. */
const bodyOrNone: MiddlewareHandler<ApiEnv> = async (c, next) => {
  if (Number(c.req.header('content-length') ?? 0) === 0) c.req.bodyCache.json = Promise.resolve({})
  await next()
}

/** A model CID in the one form everything else compares. Throws InvalidCidError. */
function cidOf (param: { cid: string }): string {
  return parseModelCid(param.cid).toString()
}

/** The framework has no type for NDJSON answers: `never` fits where it looks for one; the messages are typed by the sink. */
type Lines = Response & TypedResponse<never, never, 'json'>

function stream<Message extends object> (
  c: ApiContext, init: Pick<RoutesInit, 'stopping' | 'errorLine'>, work: (sink: Sink<Message>, signal: AbortSignal) => Promise<void>
): Lines {
  const body = ndjson(work, { reader: c.req.raw.signal, stopping: init.stopping, onError: init.errorLine })
  const response: Response = c.body(body, 200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' })
  return response as Lines
}

/** The tensors of a model may be a million. */
function inPieces<Answer extends object> (c: ApiContext, answer: Answer): Response & TypedResponse<Answer, 200, 'json'> {
  const response: Response = c.body(jsonStream(answer), 200, { 'content-type': 'application/json' })
  return response as Response & TypedResponse<Answer, 200, 'json'>
}

async function shown (node: ShoalNode, cid: string, options: ShowOptions): Promise<ShownModel> {
  const { shards: shardCount, ...details }: ModelDetails = await node.show(cid, options)
  const { replication } = await node.status()
  const now = systemClock.now()
  const policy = replication.models.find(({ model }) => model === cid)
  return {
    ...details,
    shardCount,
    shards: knownShards(node, cid).map(shard => shownShard(shard, now)),
    replication: policy === undefined ? undefined : shownModelReplication(policy, now)
  }
}
