import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import {
  HF_BODY_BYTES_MAX, HF_CONNECTIONS_MAX, NodeStoppedError, asError, silentLogger, systemClock, type Clock, type Logger
} from '../base/index.ts'
import { guard } from '../api/guard.ts'
import { HUGGING_FACE, bracketed, checkListen, listen, type ListenInit } from '../api/listen.ts'
import type { EndpointTraffic } from '../api/endpoint-metrics.ts'
import type { ShoalNode } from '../node/types.ts'
import { parseAddress } from './address.ts'
import { Buffers } from './buffers.ts'
import { HubError, headerText, hubError } from './errors.ts'
import { Repos } from './repos.ts'
import { answer } from './routes.ts'
import { Turns } from './turns.ts'

export interface HfServerInit extends ListenInit {
  node: ShoalNode
  logger?: Logger
  clock?: Clock
  /** A connection whose reader takes nothing of an answer for so long is closed, after twice that at the latest. Default a minute. */
  stallTimeoutMs?: number
  /** Told of each answer. */
  traffic?: EndpointTraffic
}

export interface HfServer {
  /** What HF_ENDPOINT is set to, once it listens: `http://127.0.0.1:8765`. */
  readonly url: string | undefined
  /** Listens. Throws ConfigError. */
  start: () => Promise<void>
  /** Refuses new work, cuts open answers, closes all. Idempotent. */
  stop: () => Promise<void>
}

/** A head that takes longer than this to arrive is no client's. */
const HEADERS_TIMEOUT_MS = 10_000
/** A whole request: a megabyte of paths over a slow link. */
const REQUEST_TIMEOUT_MS = 30_000
/** Clients keep connections for the next file. */
const KEEP_ALIVE_MS = 30_000
/** A reader whose disk stands still comes back within this, or goes on by a range. */
const STALL_MS = 60_000

/** Answers Hugging Face clients as the Hub would, for the models this node has or can get. */
export function createHfServer (init: HfServerInit): HfServer {
  return new HfHttpServer(init)
}

class HfHttpServer implements HfServer {
  readonly #init: HfServerInit
  readonly #logger: Logger
  readonly #repos: Repos
  readonly #buffers = new Buffers()
  readonly #turns = new Turns()
  readonly #stopping = new AbortController()
  readonly #server: Server
  #url: string | undefined
  #stopped: Promise<void> | undefined

  constructor (init: HfServerInit) {
    checkListen(init, HUGGING_FACE)
    this.#init = init
    this.#logger = init.logger ?? silentLogger
    this.#repos = new Repos(init.node)
    this.#server = createServer({
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connectionsCheckingInterval: 1_000,
      noDelay: true
    }, (request, response) => { this.#turns.take(request.socket, response, () => { void this.#serve(request, response) }) })
    this.#server.maxConnections = HF_CONNECTIONS_MAX
    // Node calls this when nothing went in or out for so long; of a write that goes on in pieces, something did.
    this.#server.setTimeout(init.stallTimeoutMs ?? STALL_MS, socket => {
      // An answer that waits for its model has nothing to write, and limits of its own.
      if (!this.#turns.isBusy(socket) || socket.writableLength > 0) socket.destroy()
    })
  }

  get url (): string | undefined { return this.#url }

  async start (): Promise<void> {
    this.#url = await listen(this.#server, this.#init, HUGGING_FACE)
    // A failed accept (no descriptor left) is the loss of that connection only.
    this.#server.on('error', error => { this.#logger.warn({ error: error.message }, 'a connection was not taken') })
  }

  async stop (): Promise<void> {
    this.#stopped ??= this.#stop()
    await this.#stopped
  }

  async #stop (): Promise<void> {
    this.#stopping.abort(new NodeStoppedError('the daemon is stopping; ask again when it is back'))
    if (!this.#server.listening) return
    const closed = new Promise<void>(resolve => { this.#server.close(() => { resolve() }) })
    // Clients resume where they were cut.
    this.#server.closeAllConnections()
    await closed
  }

  async #serve (request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController()
    const began = this.#count(request, response)
    response.once('close', () => { gone.abort(new NodeStoppedError('the reader is gone')) })
    request.on('error', () => undefined)
    response.on('error', () => undefined) // told by its close
    const { node, hosts, host, allowRemote } = this.#init
    try {
      if ((request.headersDistinct.host?.length ?? 0) > 1) throw new HubError(400, 'the request names two hosts')
      guard(request, { hosts: [...hosts ?? [], bracketed(host)], ownAddress: allowRemote ?? false })
      if (this.#stopping.signal.aborted) throw this.#stopping.signal.reason
      await answer({
        node,
        repos: this.#repos,
        buffers: this.#buffers,
        clock: this.#init.clock ?? systemClock,
        request,
        response,
        asked: parseAddress(request.url ?? '/'),
        began,
        body: async () => await readBody(request),
        signal: AbortSignal.any([gone.signal, this.#stopping.signal])
      })
      this.#logger.debug({ method: request.method, url: request.url, status: response.statusCode }, 'request')
    } catch (error) {
      this.#fail(request, response, error)
    }
  }

  /** Tells of the answer when it has ended. What is returned is to be called when the first byte of a file is there. */
  #count ({ socket }: IncomingMessage, response: ServerResponse): () => void {
    const { traffic, clock = systemClock } = this.#init
    if (traffic === undefined) return () => undefined
    const startedAt = clock.monotonic()
    const sentBefore = socket.bytesWritten
    let firstByteSeconds: number | undefined
    response.once('close', () => {
      if (response.headersSent) traffic.answered({ status: response.statusCode, bytes: socket.bytesWritten - sentBefore, firstByteSeconds })
    })
    return () => { firstByteSeconds ??= (clock.monotonic() - startedAt) / 1_000 }
  }

  #fail (request: IncomingMessage, response: ServerResponse, thrown: unknown): void {
    const error = hubError(thrown)
    if (error.status === 500) this.#logger.error({ error: asError(thrown).stack, url: request.url }, 'a request failed unexpectedly')
    this.#logger.debug({ method: request.method, url: request.url, status: error.status, error: error.message }, 'request failed')
    if (response.destroyed) return
    if (response.headersSent) {
      // Never a short success: the client sees that the connection broke, and resumes.
      response.destroy()
      return
    }
    const body = Buffer.from(JSON.stringify({ error: error.message }))
    response.writeHead(error.status, {
      ...error.headers,
      'content-type': 'application/json; charset=utf-8',
      'content-length': body.length,
      'x-content-type-options': 'nosniff',
      'x-error-message': headerText(error.message),
      ...(error.code === undefined ? {} : { 'x-error-code': error.code }),
      // What is left of a body is not read, so its connection cannot go on.
      ...(request.complete ? {} : { connection: 'close' })
    })
    response.end(request.method === 'HEAD' ? undefined : body)
  }
}

/** Throws HubError beyond HF_BODY_BYTES_MAX. */
async function readBody (request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request) {
    const piece = chunk as Buffer
    bytes += piece.length
    if (bytes > HF_BODY_BYTES_MAX) throw new HubError(413, `the body of a request may have ${HF_BODY_BYTES_MAX} bytes at most`)
    chunks.push(piece)
  }
  return Buffer.concat(chunks)
}
