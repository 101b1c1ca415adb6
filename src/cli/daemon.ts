import { randomBytes } from 'node:crypto'
import { join, resolve } from 'node:path'
import type { ListenInit } from '../api/listen.ts'
import type { ApiServer, TcpInit } from '../api/server.ts'
import { ConfigError, NodeStoppedError, asError, withSignal, type Logger } from '../base/index.ts'
import { holdHeap, tuneForBulk } from '../base/runtime.ts'
import { readOrCreateSecret } from '../discovery/secret-file.ts'
import type { HfServer } from '../hf/index.ts'
import type { ShoalNode } from '../node/types.ts'
import type { DaemonSettings } from './config.ts'
import type { Context } from './context.ts'
import { EXIT } from './exit-codes.ts'
import { startHf } from './hf-endpoint.ts'
import { keepSwarmKey, makeDataDirectory, planJoin } from './join.ts'
import { loadConfig } from './load-config.ts'
import { createLogger } from './log.ts'
import { shortStatus } from './short-status.ts'
import { Supervisor, supervisionOf } from './systemd.ts'

export interface DaemonOptions {
  listen?: string[]
  join?: string[]
  config?: string
  set?: string[]
  label?: string[]
}

/** From the first signal on; what systemd and users wait before they kill. Nothing recorded is lost by being cut off. */
const STOP_DEADLINE_MS = 5_000

/** Runs a node and its API until a signal or a client stops it; resolves with the exit code. */
export async function runDaemon (context: Context, options: DaemonOptions, env: Record<string, string | undefined> = process.env): Promise<number> {
  // Who started it may stop reading; that is no reason to go.
  process.stdout.removeAllListeners('error').on('error', () => undefined)
  const config = await loadConfig(options, env)
  const logger = createLogger(config.daemon.log, { json: context.json })
  crashLoudly(logger)
  const stop = new StopRequest(logger)
  const plan = planJoin([...config.node.join ?? [], ...options.join ?? split(env.SHOAL_JOIN)], config.node.network?.openSwarm ?? false)
  await makeDataDirectory(context.dataDirectory)
  if (plan.swarmKey !== undefined) await keepSwarmKey(context.dataDirectory, plan.swarmKey)
  const tcp = await tcpInit(config.daemon.api.tcp, context.dataDirectory)

  tuneForBulk()
  // Loaded only now: what is wrong with the configuration is told at once.
  const [{ createNode }, { createApiServer }, { EndpointTraffic }] = await Promise.all([import('../node/index.ts'), import('../api/server.ts'), import('../api/endpoint-metrics.ts')])
  const node = await createNode({ dataDirectory: context.dataDirectory, settings: { ...config.node, join: plan.addresses }, logger, signal: stop.signal }).catch(error => {
    if (error !== stop.signal.reason) throw error
  })
  if (node === undefined) {
    logger.info({}, 'stopped before it had started')
    return EXIT.done
  }
  const supervisor = createSupervisor(node, env, logger)
  const traffic = new EndpointTraffic()
  let api: ApiServer | undefined
  let hf: HfServer | undefined
  let stopping: Promise<void> | undefined
  try {
    api = createApiServer({
      node,
      tcp,
      watch: watchInit(config.daemon.metrics),
      socketPath: context.socketPath,
      logger: logger.child({ component: 'api' }),
      processMetrics: true,
      endpoint: traffic,
      onShutdown: () => { stop.now('asked for over the API') }
    })
    await api.start()
    hf = await startHf(config.daemon.hf, node, { logger, traffic })
    holdHeap()
    if (!stop.requested) {
      announceReady(context, node, api, hf)
      void supervisor?.start()
    }
    await stop.wait
    stopping = supervisor?.stop()
  } finally {
    await Promise.all([api?.stop(), hf?.stop()])
    await node.stop()
    await stopping
  }
  logger.info({}, 'stopped')
  return EXIT.done
}

/**
 * For a service manager, if one started this. It asks the node itself: clients may hold every connection that the API takes,
 * and that is no reason to kill it.
 */
function createSupervisor (node: ShoalNode, env: Record<string, string | undefined>, logger: Logger): Supervisor | undefined {
  const supervision = supervisionOf(env, process)
  if (supervision === undefined) return undefined
  return new Supervisor({
    supervision,
    check: async signal => shortStatus(await withSignal(node.status(), signal)),
    logger: logger.child({ component: 'systemd' })
  })
}

function announceReady (context: Context, node: ShoalNode, api: ApiServer, hf: HfServer | undefined): void {
  const listen = node.multiaddrs()
  const { url, metricsUrl } = api
  context.print(
    { event: 'ready', peerId: node.peerId, listen, api: api.socketPath, ...(url === undefined ? {} : { url }), ...(metricsUrl === undefined ? {} : { metrics: metricsUrl }), ...(hf === undefined ? {} : { hf: hf.url }) },
    `ready: peer ${node.peerId}, listening on ${listen.join(', ') || 'no address'}, API on ${api.socketPath}${url === undefined ? '' : ` and ${url}`}${metricsUrl === undefined ? '' : `, metrics on ${metricsUrl}`}${hf === undefined ? '' : `, for Hugging Face clients: HF_ENDPOINT=${hf.url ?? ''}`}`
  )
}

function watchInit ({ listen, ...init }: DaemonSettings['metrics']): ListenInit | undefined {
  return listen === undefined ? undefined : { ...init, ...listen }
}

async function tcpInit ({ host, port, tokenFile, allowRemote, hosts }: DaemonSettings['api']['tcp'], dataDirectory: string): Promise<TcpInit | undefined> {
  if (port === undefined) return undefined
  const path = tokenFile === undefined ? join(dataDirectory, 'api.token') : resolve(tokenFile)
  const content = await readOrCreateSecret(path, () => Buffer.from(`${randomBytes(32).toString('base64url')}\n`))
  const token = Buffer.from(content).toString('latin1').trim()
  if (!/^[\x21-\x7e]{16,1024}$/.test(token)) throw new ConfigError(`${path} must hold one token of 16 to 1024 printable characters; delete it to have one made`)
  return { host, port, token, allowRemote, hosts }
}

/** The first request to stop starts the clock; a second signal, or the deadline, ends the process at once. */
class StopRequest {
  readonly wait: Promise<void>
  readonly #logger: Logger
  readonly #controller = new AbortController()
  #resolve: () => void = () => undefined

  constructor (logger: Logger) {
    this.#logger = logger
    this.wait = new Promise(resolve => { this.#resolve = resolve })
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
      process.on(signal, () => {
        if (this.requested) process.exit(EXIT.interrupted)
        this.now(signal)
      })
    }
  }

  get requested (): boolean { return this.signal.aborted }
  get signal (): AbortSignal { return this.#controller.signal }

  now (why: string): void {
    if (this.requested) return
    this.#logger.info({ why }, 'stopping')
    setTimeout(() => {
      this.#logger.error({ deadlineMs: STOP_DEADLINE_MS }, 'did not stop in time; leaving as it is, nothing recorded is lost')
      process.exit(EXIT.failed)
    }, STOP_DEADLINE_MS)
    this.#controller.abort(new NodeStoppedError('the daemon is stopping'))
    this.#resolve()
  }
}

/** A broken invariant ends the process; its story goes to the log, where operators look. */
function crashLoudly (logger: Logger): void {
  process.on('uncaughtException', (error, origin) => {
    logger.error({ origin, error: asError(error).stack }, 'crashed')
    process.exit(EXIT.failed)
  })
}

/** Invites in a variable: separated by spaces or commas. */
function split (text: string | undefined): string[] {
  return (text ?? '').split(/[\s,]+/).filter(part => part !== '')
}
