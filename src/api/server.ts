import { createServer, type Server } from 'node:http'
import { connect } from 'node:net'
import { chmodSync } from 'node:fs'
import { lstat, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { getRequestListener } from '@hono/node-server'
import {
  API_CONNECTIONS_MAX, ApiSocketInUseError, ConfigError, DiskError, NodeStoppedError, asError, makeDirectories, silentLogger, systemCode, type Logger
} from '../base/index.ts'
import { version } from '../node/version.ts'
import type { ShoalNode } from '../node/types.ts'
import { createApp, createWatchApp } from './app.ts'
import { ConnectionLimit, closeOldestBeyond } from './connection-limit.ts'
import type { GuardInit } from './guard.ts'
import type { EndpointTraffic } from './endpoint-metrics.ts'
import { API_TCP, METRICS, bracketed, checkListen, listen, type ListenInit } from './listen.ts'
import { createMetrics, type Metrics } from './metrics.ts'
import { checkSocketPath } from './paths.ts'

export interface TcpInit extends ListenInit {
  token: string
}

export interface ApiServerInit {
  node: ShoalNode
  socketPath: string
  tcp?: TcpInit
  /** Where metrics and health are told to whoever asks, without a token: nothing there commands the node. */
  watch?: ListenInit
  logger?: Logger
  /** Report on the endpoint for Hugging Face clients that tells of its answers there. */
  endpoint?: EndpointTraffic
  /** Report on the whole process too (CPU, memory, event loop). Its observers live as long as the process. Default false. */
  processMetrics?: boolean
  /** Called when a client asks the daemon to stop. Without it such requests are refused. */
  onShutdown?: () => void
}

export interface ApiServer {
  readonly socketPath: string
  /** Where TCP listens, when it does: `http://127.0.0.1:4110`. */
  readonly url: string | undefined
  /** What Prometheus reads, when `watch` is given: `http://10.0.0.7:4110/metrics`. */
  readonly metricsUrl: string | undefined
  /** Listens. Throws ConfigError, ApiSocketInUseError, DiskError. */
  start: () => Promise<void>
  /** Refuses new work, ends open streams, closes all; under two seconds. Idempotent. */
  stop: () => Promise<void>
}

/** Answers in flight get this long when the server stops; streams are ended at once and only have to be read. */
const STOP_GRACE_MS = 1_500
/** A head that takes longer than this to arrive is no client's of ours. */
const HEADERS_TIMEOUT_MS = 10_000
/** Node looks every half a minute, and until then keeps those who are too slow. */
const TIMEOUTS_CHECKED_MS = 1_000
/** Anybody may connect to the metrics: of those who say or take nothing, few are kept, and not for long. */
const WATCH_CONNECTIONS_MAX = 64
const WATCH_TIMEOUT_MS = 15_000

export function createApiServer (init: ApiServerInit): ApiServer {
  return new NodeApiServer(init)
}

class NodeApiServer implements ApiServer {
  readonly socketPath: string
  readonly #init: ApiServerInit
  readonly #logger: Logger
  readonly #stopping = new AbortController()
  readonly #servers: Server[] = []
  #metrics: Metrics | undefined
  #url: string | undefined
  #metricsUrl: string | undefined
  #stopped: Promise<void> | undefined

  constructor (init: ApiServerInit) {
    checkSocketPath(init.socketPath)
    if (init.tcp !== undefined) checkTcp(init.tcp)
    if (init.watch !== undefined) checkListen(init.watch, METRICS)
    this.socketPath = init.socketPath
    this.#init = init
    this.#logger = init.logger ?? silentLogger
  }

  get url (): string | undefined { return this.#url }

  get metricsUrl (): string | undefined { return this.#metricsUrl }

  async start (): Promise<void> {
    const { node, tcp, watch, processMetrics, endpoint } = this.#init
    const metrics = this.#metrics = createMetrics(node, { processMetrics: processMetrics ?? false, endpoint })
    const common = { logger: this.#logger, metrics, stopping: this.#stopping.signal }
    const api = (guard: GuardInit): Server => httpServer(createApp({ ...common, guard, node, version, onShutdown: this.#init.onShutdown }))
    try {
      const local = api({})
      await listenOnSocket(local, this.socketPath)
      this.#serve(local)
      if (tcp !== undefined) {
        const remote = api({ token: tcp.token, ...guardOf(tcp) })
        this.#url = await listen(remote, tcp, API_TCP)
        this.#serve(remote)
      }
      if (watch !== undefined) {
        const watched = httpServer(createWatchApp({ ...common, guard: guardOf(watch) }, 'the metrics listener'))
        closeOldestBeyond(watched, WATCH_CONNECTIONS_MAX)
        watched.setTimeout(WATCH_TIMEOUT_MS)
        this.#metricsUrl = `${await listen(watched, watch, METRICS)}/metrics`
        this.#serve(watched)
      }
    } catch (error) {
      await this.stop()
      throw error
    }
  }

  async stop (): Promise<void> {
    this.#stopped ??= this.#stop()
    await this.#stopped
  }

  #serve (server: Server): void {
    // A failed accept (no descriptor left) is the loss of that connection only.
    server.on('error', error => { this.#logger.warn({ error: error.message }, 'a connection to the API was not taken') })
    this.#servers.push(server)
  }

  async #stop (): Promise<void> {
    this.#metrics?.stop()
    this.#stopping.abort(new NodeStoppedError('the daemon is stopping; what was done is kept, ask again when it is back'))
    await Promise.all(this.#servers.map(async server => {
      // The socket file goes with its server: libuv unlinks what it has bound.
      const closed = new Promise<void>(resolve => { server.close(() => { resolve() }) })
      server.closeIdleConnections()
      const timer = setTimeout(() => { server.closeAllConnections() }, STOP_GRACE_MS)
      await closed
      clearTimeout(timer)
    }))
  }
}

function httpServer ({ fetch }: ReturnType<typeof createApp>): Server {
  // The globals of the process stay as they are: other nodes and other programs live in it.
  const listener = getRequestListener(fetch, { overrideGlobalObjects: false })
  const limit = new ConnectionLimit(API_CONNECTIONS_MAX)
  const server = createServer({ headersTimeout: HEADERS_TIMEOUT_MS, connectionsCheckingInterval: TIMEOUTS_CHECKED_MS }, (request, response) => {
    if (!limit.refuses(response)) void listener(request, response)
  })
  limit.watch(server)
  return server
}

function guardOf ({ host, hosts, allowRemote }: ListenInit): GuardInit {
  return { hosts: [...hosts ?? [], bracketed(host)], ownAddress: allowRemote ?? false }
}

function checkTcp (tcp: TcpInit): void {
  checkListen(tcp, API_TCP)
  if (tcp.token.length < 16) throw new ConfigError('the token of the API over TCP must have 16 characters or more')
}

/** Listens on a Unix socket that only this user may use. A socket that a dead daemon left is replaced, a live one never. */
async function listenOnSocket (server: Server, path: string): Promise<void> {
  await makeDirectories(dirname(path), { mode: 0o700 }).catch(error => {
    throw new DiskError(`cannot make ${dirname(path)} for the API socket: ${asError(error).message}`, { cause: error })
  })
  await removeStale(path)
  await new Promise<void>((resolve, reject) => {
    server.once('error', error => {
      reject(systemCode(error) === 'EADDRINUSE'
        ? inUse(path, error)
        : new DiskError(`cannot listen on ${path}: ${error.message}; give another path with --api`, { cause: error }))
    })
    // listen() binds before it returns. Others could connect before a chmod, so the socket is made with its mode.
    const umask = process.umask(0o177)
    try {
      server.listen(path, resolve)
    } finally {
      process.umask(umask)
    }
    if (server.listening) chmodSync(path, 0o600)
  })
  server.removeAllListeners('error')
}

async function removeStale (path: string): Promise<void> {
  const there = await lstat(path).catch(error => {
    if (systemCode(error) === 'ENOENT') return undefined
    throw new DiskError(`cannot look at ${path}: ${asError(error).message}`, { cause: error })
  })
  if (there === undefined) return
  if (!there.isSocket()) throw new ConfigError(`${path} is there and is no socket; move it away, or give another path with --api`)
  if (await answers(path)) throw inUse(path)
  await unlink(path)
}

async function answers (path: string): Promise<boolean> {
  return await new Promise((resolve, reject) => {
    const socket = connect(path)
    socket.once('connect', () => { socket.destroy(); resolve(true) })
    socket.once('error', error => {
      const code = systemCode(error)
      if (code === 'ECONNREFUSED' || code === 'ENOENT') resolve(false)
      else if (code === 'EAGAIN') resolve(true) // its queue is full: somebody is there
      else reject(new DiskError(`cannot tell whether a daemon listens on ${path}: ${error.message}`, { cause: error }))
    })
  })
}

function inUse (path: string, cause?: Error): ApiSocketInUseError {
  return new ApiSocketInUseError(`another daemon listens on ${path}; stop it, or give this one another --data and --api`, cause === undefined ? undefined : { cause })
}
