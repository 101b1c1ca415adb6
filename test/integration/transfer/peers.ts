import type { CID } from 'multiformats/cid'
import { seededRandom, silentLogger, systemClock, type Clock, type Logger } from '../../../src/base/index.ts'
import { createNetwork, type LinkLimiter, type Network } from '../../../src/discovery/index.ts'
import { createMemoryStore, type ModelStore } from '../../../src/storage/index.ts'
import { createExchange, type Exchange, type ExchangeSettings, type ModelFetch, type ModelFetchInit } from '../../../src/transfer/index.ts'
import { LANE_PROTOCOL } from '../../../src/transfer/lanes/messages.ts'
import { load, type Sample } from '../../compliance/store-fixtures.ts'

/** One node as far as this room is concerned: a network, a store and an exchange, all real. */
export interface TestPeer {
  readonly id: string
  readonly network: Network
  readonly store: ModelStore
  readonly exchange: Exchange
}

export interface PeersInit {
  settings?: Partial<ExchangeSettings>
  slots?: number
  transport?: 'memory' | 'tcp'
  logger?: Logger
  linkLimiter?: LinkLimiter
  clock?: Clock
  /** Lanes: on a free port, or on this one. Over TCP only; default none. */
  lane?: boolean | number
  /** Threads that keep them. */
  laneThreads?: number | undefined
  /** It answers so late when it is asked for a lane. */
  laneAfterMs?: number
}

export const exchangeSettings: ExchangeSettings = {
  requestTimeoutMs: 5_000,
  peersMax: 32,
  serverRequestsPerPeer: 256,
  uploadBytesPerSecond: undefined,
  downloadBytesPerSecond: undefined,
  lane: { enabled: false, port: 0, listen: [] }
}

let made = 0

/** Any number of peers in one process, over libp2p's memory transport or TCP on loopback. */
export class Peers implements AsyncDisposable {
  readonly all: TestPeer[] = []

  async add (init: PeersInit = {}): Promise<TestPeer> {
    const { network, store } = await this.#host(init)
    const { lane = false, laneThreads, laneAfterMs } = init
    if (laneAfterMs !== undefined) {
      const handle = network.handle.bind(network)
      network.handle = async (protocol, handler, options) => {
        await handle(protocol, protocol !== LANE_PROTOCOL ? handler : (stream, connection) => { setTimeout(() => { void handler(stream, connection) }, laneAfterMs) }, options)
      }
    }
    const exchange = createExchange({ network, store, clock: init.clock ?? systemClock, random: seededRandom(++made), logger: init.logger ?? silentLogger, linkLimiter: init.linkLimiter }, {
      ...exchangeSettings,
      ...(lane === false ? {} : { lane: { enabled: true, port: lane === true ? 0 : lane, threads: laneThreads, listen: ['/ip4/127.0.0.1/tcp/0'] } }),
      ...init.settings
    })
    await exchange.start()
    const peer = { id: network.peerId.toString(), network, store, exchange }
    this.all.push(peer)
    return peer
  }

  async addMany (count: number, init: PeersInit = {}): Promise<TestPeer[]> {
    const peers: TestPeer[] = []
    for (let i = 0; i < count; i++) peers.push(await this.add(init))
    return peers
  }

  /** A host that speaks whatever the test wants it to. */
  async addBare (init: PeersInit = {}): Promise<{ id: string, network: Network }> {
    const { network, store } = await this.#host(init)
    this.all.push({ id: network.peerId.toString(), network, store, exchange: createExchange({ network, store, clock: systemClock, random: seededRandom(1), logger: silentLogger }, exchangeSettings) })
    return { id: network.peerId.toString(), network }
  }

  async [Symbol.asyncDispose] (): Promise<void> {
    await Promise.all(this.all.map(async peer => { await this.kill(peer) }))
  }

  async kill (peer: TestPeer): Promise<void> {
    await peer.exchange.stop()
    await peer.network.stop()
    await peer.store.stop()
  }

  async #host (init: PeersInit): Promise<{ network: Network, store: ModelStore }> {
    const transport = init.transport ?? 'memory'
    const network = await createNetwork({
      transport,
      listen: [transport === 'memory' ? `/memory/transfer-${++made}` : '/ip4/127.0.0.1/tcp/0'],
      openSwarm: true,
      maxConnections: 300,
      inboundPerSecond: 1_000,
      logger: silentLogger,
      ...(init.linkLimiter === undefined ? {} : { linkLimiter: init.linkLimiter })
    })
    await network.start()
    const store = createMemoryStore({
      clock: systemClock,
      random: seededRandom(1),
      logger: silentLogger,
      settings: { quota: undefined, directIo: 'off', slots: init.slots ?? 24, syncBytes: 64 * 1024 * 1024, syncIntervalMs: 20 }
    })
    await store.start()
    return { network, store }
  }
}

export async function connect (from: { network: Network }, to: { network: Network }): Promise<void> {
  await from.network.dial(to.network.getMultiaddrs())
}

/** Everybody to everybody. */
export async function connectAll (peers: Array<{ network: Network }>): Promise<void> {
  for (const [position, peer] of peers.entries()) for (const other of peers.slice(position + 1)) await connect(peer, other)
}

/** Registers the model and starts to fetch it, from `from` if given. */
export async function startFetch (peer: TestPeer, sample: Sample, from: Array<{ id: string }> = [], init: Partial<ModelFetchInit> = {}): Promise<ModelFetch> {
  const model = await peer.store.putModel(sample.model)
  const fetch = peer.exchange.fetchModel({ model, ...init })
  for (const { id } of from) fetch.addPeer(id)
  return fetch
}

export { load as holdAll }

export function cidOf (sample: Sample, block: number, file = 0): CID {
  return sample.files[file]?.index.value.blocks.at(block) as CID
}
