/**
 * The in-process API. A node adds models, loads them from its peers, and serves what it holds:
 *
 * ```ts
 * import { createNode } from 'shoal'
 *
 * const a = await createNode({ dataDirectory: '/tmp/a', settings: { listen: ['/ip4/127.0.0.1/tcp/0'] } })
 * const { cid } = await a.add('/models/llama')
 *
 * const { addresses, swarmKey } = decodeInvite(a.invite())
 * const b = await createNode({ dataDirectory: '/tmp/b', swarmKey, settings: { listen: ['/ip4/127.0.0.1/tcp/0'], join: addresses } })
 * const { path, peers } = await b.load(cid)
 *
 * await Promise.all([a.stop(), b.stop()])
 * ```
 *
 * docs/examples/two-nodes.ts is a program that does this, and test/e2e runs it. Many nodes may live in one process; nothing is shared between them.
 */
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { mkdtemp } from 'node:fs/promises'
import { ConfigError, Emitter, REPLICAS_MAX, asError, makeDirectories, silentLogger, systemClock, systemRandom, throwIfAborted } from '../base/index.ts'
import { createDhtRouter, createNetwork, loadIdentity, loadSwarmKey } from '../discovery/index.ts'
import { createFileStore, createMemoryStore } from '../storage/index.ts'
import { Leftovers } from '../origin/index.ts'
import { checkLabels } from '../replication/messages.ts'
import { ShardsByModel } from '../replication/model-shards.ts'
import { Replication } from '../replication/service.ts'
import { createExchange, hashThreadsFor, laneThreadsFor } from '../transfer/index.ts'
import { Adds } from './adds.ts'
import { Announcer } from './announcer.ts'
import { Descriptions } from './describe.ts'
import { Links } from './links.ts'
import { Loads } from './load.ts'
import { Node } from './node.ts'
import { createOrigin, discardModel } from './origin.ts'
import { PeerBook } from './peer-book.ts'
import { pullShard } from './replicate.ts'
import { checkNumbers } from './setting-bounds.ts'
import { resolveSettings } from './settings.ts'
import { Tensors } from './tensors.ts'
import type { NodeInit } from './init.ts'
import type { NodeEvents, NodeSettings, ShoalNode } from './types.ts'

export { decodeInvite, encodeInvite } from '../discovery/index.ts'
export { defaultSettings, resolveSettings } from './settings.ts'
export { version } from './version.ts'
export type * from './init.ts'
export type * from './types.ts'

/**
 * Starts a node; it is ready when this resolves. Throws StoreLockedError (another process has the data directory),
 * StoreVersionError (written by a newer version), DiskError, ConfigError; the reason of
 * `signal` when that fires before: a start after a crash looks through all that is held, which may take hours.
 *
 * The order below is the order of dependence: what is started later uses what was started before, and stop() goes the
 * other way. If a part fails to start, the ones before it are stopped again.
 */
export async function createNode (init: NodeInit = {}): Promise<ShoalNode> {
  const settings = resolveSettings(init.settings)
  checkNumbers(settings)
  checkReplication(settings)
  const clock = init.clock ?? systemClock
  const random = init.random ?? systemRandom
  const logger = init.logger ?? silentLogger
  const directory = init.dataDirectory
  const transport = init.transport ?? 'tcp'
  const { signal } = init
  const started: Array<() => Promise<void>> = []
  try {
    if (directory !== undefined) await makeDirectories(directory, { mode: 0o700 })

    const hashThreads = settings.transfer.hashThreads ?? (directory === undefined ? 0 : hashThreadsFor(availableParallelism()))
    const laneThreads = settings.lane.threads ?? (directory === undefined ? 0 : laneThreadsFor(availableParallelism()))
    const storage = { ...settings.storage, sharedSlots: hashThreads > 0 }
    const store = init.store ?? (directory === undefined
      ? createMemoryStore({ clock, random, logger: logger.child({ component: 'storage' }), settings: storage })
      : createFileStore({ directory, clock, random, logger: logger.child({ component: 'storage' }), settings: storage }))
    await store.start(signal === undefined ? {} : { signal })
    started.push(async () => { await store.stop() })
    throwIfAborted(signal)

    const swarmKey = settings.network.openSwarm ? undefined : init.swarmKey ?? await loadSwarmKey(directory, random)
    const privateKey = await loadIdentity(directory)
    const network = await createNetwork({
      privateKey,
      clock,
      transport,
      logger: logger.child({ component: 'network' }),
      listen: settings.listen,
      announceAddresses: settings.announceAddresses,
      openSwarm: settings.network.openSwarm,
      maxConnections: settings.network.maxConnections,
      inboundPerSecond: settings.network.inboundPerSecond,
      ...(directory === undefined ? {} : { dataDirectory: directory }),
      ...(swarmKey === undefined ? {} : { swarmKey }),
      ...(init.linkLimiter === undefined ? {} : { linkLimiter: init.linkLimiter })
    })
    try {
      await network.start()
    } catch (error) {
      try { await network.stop() } catch { /* what matters is why it did not start */ }
      throw listenError(error) ?? error
    }
    started.push(async () => { await network.stop() })
    throwIfAborted(signal)

    const exchange = createExchange({ network, store, clock, random, logger: logger.child({ component: 'exchange' }), linkLimiter: init.linkLimiter }, { ...settings.transfer, hashThreads, lane: { ...settings.lane, threads: laneThreads, listen: settings.listen } })
    await exchange.start()
    started.push(async () => { await exchange.stop() })

    const router = init.router ?? createDhtRouter({
      network,
      clock,
      random,
      logger: logger.child({ component: 'router' }),
      settings: settings.announce,
      ...(directory === undefined ? {} : { queueFile: join(directory, 'announce.sqlite') })
    })
    await router.start()
    started.push(async () => { await router.stop() })

    const peers = new PeerBook({ network, clock, logger: logger.child({ component: 'peers' }) }, { join: settings.join })
    const announcer = new Announcer({ store, router, exchange }, settings.announce.mode)
    const events = new Emitter<NodeEvents>(error => { logger.error({ error: asError(error).message }, 'a listener threw') })
    const loads = new Loads({ store, exchange, router, peers, clock, random, logger: logger.child({ component: 'loads' }) }, settings.transfer, {
      onRegistered: model => { announcer.model(model) },
      onBegun: model => { events.emit('load:started', { cid: model.cid }) },
      onEnded: (model, files) => { announcer.files(model, files) },
      onLoaded: model => { events.emit('model:loaded', { cid: model.cid }) },
      onFailed: (cid, error) => { events.emit('load:failed', { cid, error }) }
    })
    network.addEventListener('peer:connect', event => { events.emit('peer:connected', { peerId: event.detail.toString() }) })
    network.addEventListener('peer:disconnect', event => { events.emit('peer:disconnected', { peerId: event.detail.toString() }) })
    exchange.events.on('peer:banned', detail => { events.emit('peer:banned', detail) })
    store.events.on('model:removed', detail => { events.emit('model:removed', detail) })
    store.events.on('volume:state', detail => { events.emit('volume:state', detail) })
    const descriptions = new Descriptions({ store, exchange, router, peers, clock, random, logger: logger.child({ component: 'loads' }) }, settings.transfer)
    const links = await Links.load(directory, clock)
    const shards = new ShardsByModel()
    const replication = new Replication({
      network,
      store,
      router,
      clock,
      random,
      logger: logger.child({ component: 'replication' }),
      privateKey,
      shards,
      pullShard: async (job, context) => await pullShard({ loads, store, shards }, job, context),
      learn: async provider => { await peers.learn(provider) },
      isBanned: peerId => exchange.isBanned(peerId),
      noted: event => { if (event.type === 'restored') events.emit('replication:restored', { cid: event.model, ms: event.ms }) }
    }, {
      settings: { ...settings.replication, donateBytes: settings.storage.donate },
      backgroundRates: settings.transfer.backgroundRates,
      labels: settings.labels,
      ledgerFile: directory === undefined ? undefined : join(directory, 'replication.sqlite')
    })
    const adds = new Adds({ store, announcer, replication, clock, events }, { settings: settings.replication, ownDirectory: directory })
    started.push(async () => { await replication.stop() })
    await replication.start()
    announcer.start()
    peers.start()
    // There may be some of an upstream that is no longer set.
    const { upstream } = settings.origin
    const isTemporary = directory === undefined
    const place = isTemporary ? upstream === undefined ? undefined : await mkdtemp(join(tmpdir(), 'shoal-origin-')) : join(directory, 'origin')
    const originLogger = logger.child({ component: 'origin' })
    const discard = async (cid: string): Promise<boolean> => await discardModel({ store, announcer, loads, links, logger: originLogger }, cid)
    const leftovers = place === undefined ? undefined : new Leftovers({ clock, logger: originLogger, discard }, place)
    const origin = upstream === undefined || leftovers === undefined
      ? undefined
      : createOrigin({
          network,
          router,
          clock,
          random,
          logger: originLogger,
          isBanned: peerId => exchange.isBanned(peerId),
          learn: async provider => { await peers.learn(provider) },
          store,
          loads,
          adds,
          descriptions,
          links,
          discard
        }, { upstream, leftovers, isTemporary })
    const tensors = new Tensors(store)
    const node = new Node({ network, store, router, exchange, peers, loads, adds, descriptions, tensors, links, announcer, replication, origin, leftovers, clock, logger: logger.child({ component: 'node' }) }, { settings, swarmKey, events })
    started.push(async () => { await origin?.stop() })
    started.push(async () => { await leftovers?.instalments.stop() })
    await leftovers?.instalments.load()
    await origin?.start()
    throwIfAborted(signal)
    return node
  } catch (error) {
    for (const stop of started.reverse()) await stop().catch(stopError => { logger.warn({ error: asError(stopError).message }, 'a part did not stop cleanly') })
    throw error
  }
}

/** What other nodes would refuse, and what contradicts itself. */
function checkReplication ({ labels, replication: { min, target, max } }: NodeSettings): void {
  try {
    checkLabels(labels)
  } catch (error) {
    throw new ConfigError(asError(error).message, { cause: error })
  }
  if (!(min <= target && target <= max && max <= REPLICAS_MAX)) {
    throw new ConfigError(`replication.min, target and max must rise and be at most ${REPLICAS_MAX}; they are ${min}, ${target} and ${max}`)
  }
}

/** libp2p tells which addresses it cannot listen on, and why, in its message alone: `  <address>: <stack>` for each. */
function listenError (error: unknown): ConfigError | undefined {
  const { name, message } = asError(error)
  if (name !== 'UnsupportedListenAddressesError') return undefined
  const causes = [...message.matchAll(/^ {2}(\/\S+): (?:\w*Error: )?(?:listen )?(.*)$/gm)].map(([, address, cause]) => `${address}: ${cause}`)
  return new ConfigError(`cannot listen on ${causes.join('; ') || message}; give another --listen, or stop what uses it`, { cause: error })
}
