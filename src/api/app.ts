import type { IncomingMessage } from 'node:http'
import { OpenAPIHono } from '@hono/zod-openapi'
import { HTTPException } from 'hono/http-exception'
import { routePath } from 'hono/route'
import {
  API_BODY_BYTES_MAX, LimitExceededError, NodeStoppedError, ShoalError, UnknownRouteError, UsageError, asError, systemClock, type Logger
} from '../base/index.ts'
import type { NodeStatus, ShoalNode } from '../node/types.ts'
import { guard, type GuardInit } from './guard.ts'
import { errorJson, statusOf } from './http-errors.ts'
import type { Metrics } from './metrics.ts'
import { addRoutes, type ApiEnv } from './routes.ts'

export interface WatchInit {
  logger: Logger
  metrics: Metrics
  stopping: AbortSignal
  /** Who may ask: differs from listener to listener. */
  guard: GuardInit
}

export interface AppInit extends WatchInit {
  node: ShoalNode
  onShutdown: (() => void) | undefined
  version: NodeStatus['version']
}

const DOCUMENT = '/v1/openapi.json'
/** Paths that answer while the server stops, so that whoever watches sees it. */
const WATCHED = ['/livez', '/readyz', '/metrics']

/** The API as an application: guard, limits, routes, document, health and metrics. Server and sockets are server.ts. */
export function createApp (init: AppInit): OpenAPIHono<ApiEnv> {
  const { node, logger, stopping, onShutdown } = init
  const app = createWatchApp(init, 'the API')
  const logged = (error: unknown): object => {
    if (!(error instanceof ShoalError)) logger.error({ error: asError(error).stack }, 'the API failed unexpectedly')
    return { type: 'error', error: errorJson(error) }
  }
  addRoutes(app, { node, stopping, errorLine: logged, onShutdown })
  app.doc31(DOCUMENT, {
    openapi: '3.1.0',
    info: {
      title: 'Shoal node',
      version: init.version,
      license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' },
      description: 'The local API of a Shoal node, on a Unix socket by default. Streams are NDJSON: one JSON object a line, the last of type `done` or `error`.'
    }
  })
  return app
}

/** Health and metrics alone, behind the same guard. `name` is what messages call it. */
export function createWatchApp ({ logger, metrics, stopping, guard: who }: WatchInit, name: string): OpenAPIHono<ApiEnv> {
  const app = new OpenAPIHono<ApiEnv>({
    defaultHook: result => {
      if (!result.success) throw new UsageError(`the request is wrong: ${issues(result.error.issues)}`)
    }
  })

  app.use(async (c, next) => {
    const startedAt = systemClock.monotonic()
    await next()
    c.header('x-content-type-options', 'nosniff')
    const route = routePath(c, -1)
    metrics.request(c.req.method, route === '/*' || route === '*' ? 'none' : route, c.res.status, (systemClock.monotonic() - startedAt) / 1000)
    logger.debug({ method: c.req.method, path: c.req.path, status: c.res.status }, 'request')
  })
  app.use(async (c, next) => {
    guard(c.env.incoming, who)
    checkBodySize(c.env.incoming)
    if (stopping.aborted && !WATCHED.includes(c.req.path)) throw new NodeStoppedError('the daemon is stopping; ask again when it is back')
    await next()
  })

  app.get('/livez', c => c.json({ status: 'alive' }))
  app.get('/readyz', c => stopping.aborted ? c.json({ status: 'stopping' }, 503) : c.json({ status: 'ready' }))
  app.get('/metrics', async c => c.body(await metrics.text(), 200, { 'content-type': metrics.contentType }))

  app.notFound(c => { throw new UnknownRouteError(`${name} has no ${c.req.method} ${c.req.path.slice(0, 200)}; see ${app.routes.some(({ path }) => path === DOCUMENT) ? DOCUMENT : WATCHED.join(', ')}`) })
  app.onError((error, c) => {
    const known = error instanceof HTTPException ? new UsageError(`the request is wrong: ${error.message}`, { cause: error }) : error
    if (!(known instanceof ShoalError)) logger.error({ error: known.stack, path: c.req.path }, 'a request failed unexpectedly')
    const json = errorJson(known)
    // What is left of a refused body is not read, so its connection cannot go on.
    if (!c.env.incoming.complete) c.header('connection', 'close')
    return c.json({ error: json }, statusOf(json))
  })
  return app
}

/** Node reads no more of a body than its Content-Length says, so that is all there is to check. */
function checkBodySize ({ headers }: IncomingMessage): void {
  if (headers['transfer-encoding'] !== undefined) throw new UsageError('send the body in one piece, with a Content-Length; this API takes no chunked bodies')
  if (Number(headers['content-length'] ?? 0) > API_BODY_BYTES_MAX) {
    throw new LimitExceededError(`the body of a request may have ${API_BODY_BYTES_MAX} bytes at most`)
  }
}

/** What the schemas say of each field; one that is wrong in two ways may say the same twice. */
function issues (list: ReadonlyArray<{ path: PropertyKey[], message: string }>): string {
  const found = list.map(({ path, message }) => `${path.length === 0 ? 'it' : path.map(String).join('.')} ${message}`)
  return [...new Set(found)].slice(0, 3).join('; ')
}
