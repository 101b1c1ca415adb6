import type { Connection, Stream } from '@libp2p/interface'
import type { CID } from 'multiformats/cid'
import {
  Emitter, INVENTORY_STREAMS_PER_PEER_MAX, NodeStoppedError, ProtocolError, STREAMS_PER_PEER_MAX, UsageError, asError, throwIfAborted, type AbortOptions, type Logger
} from '../base/index.ts'
import { BlockChecks } from './block-checks.ts'
import { BlockServer } from './block-server.ts'
import { addressesOf } from './dial.ts'
import { RunningFetch } from './fetch.ts'
import { framesOver } from './frame-stream.ts'
import { InventoryServer } from './inventory-server.ts'
import { Lanes } from './lanes/lanes.ts'
import { BLOCK_PROTOCOL, INVENTORY_PROTOCOL } from './messages.ts'
import { fetchMetadata } from './metadata-fetch.ts'
import { PeerLinks } from './peer-links.ts'
import { Holders, PeerRecords } from './peer-records.ts'
import type { Exchange, ExchangeComponents, ExchangeEvents, ExchangeSettings, ModelFetch, ModelFetchInit, PeerTransferStatus } from './types.ts'

/** The only place where the parts of this room meet: two servers, the links, and the fetches. */
export class PeerExchange implements Exchange {
  readonly events: Emitter<ExchangeEvents>
  readonly #components: ExchangeComponents
  readonly #settings: ExchangeSettings
  readonly #logger: Logger
  readonly #records: PeerRecords
  readonly #holders: Holders
  readonly #blocks: BlockServer
  readonly #inventories: InventoryServer
  readonly #lanes: Lanes
  readonly #checks: BlockChecks | undefined
  readonly #links: PeerLinks
  readonly #fetches = new Map<string, RunningFetch>()
  readonly #stopping = new AbortController()

  constructor (components: ExchangeComponents, settings: ExchangeSettings) {
    const { network, store, clock, random, logger } = components
    this.#components = components
    this.#settings = settings
    this.#logger = logger
    this.events = new Emitter(error => { logger.error({ error: asError(error).message }, 'a listener of the exchange threw') })
    this.#records = new PeerRecords(clock)
    this.#holders = new Holders(clock)
    const violation = (peerId: string, reason: string): void => { this.#ban(peerId, reason) }
    this.#blocks = new BlockServer({ store, clock, logger }, settings, {
      sent: (peerId, bytes) => { this.#records.get(peerId).sent.add(bytes, clock.monotonic()) },
      violation
    })
    this.#inventories = new InventoryServer({ store, clock, logger, addressesOf: async peerId => await addressesOf(network, peerId) }, {
      interested: (model, peerId) => { this.events.emit('peer:interested', { model, peerId }) },
      violation
    })
    this.#lanes = new Lanes({ network, clock, random, logger, linkLimiter: components.linkLimiter }, settings.lane, {
      accept: (peerId, open) => {
        const accepted = !this.#stopping.signal.aborted && !this.isBanned(peerId) && this.#blocks.accept(peerId, open)
        if (accepted) this.#records.get(peerId).transport = 'lane'
        return accepted
      },
      isBanned: peerId => this.isBanned(peerId)
    })
    this.#checks = settings.hashThreads === undefined || settings.hashThreads === 0 ? undefined : new BlockChecks(settings.hashThreads, logger)
    this.#links = new PeerLinks({ network, lanes: this.#lanes, slots: store.slots, checks: this.#checks, clock, logger }, settings, {
      received: (peerId, bytes) => { this.#records.get(peerId).received.add(bytes, clock.monotonic()) },
      opened: (peerId, transport) => { this.#records.get(peerId).transport = transport },
      violation
    })
  }

  async start (): Promise<void> {
    const { network } = this.#components
    await network.handle(BLOCK_PROTOCOL, (stream, connection) => { this.#accept(this.#blocks, stream, connection) }, { maxInboundStreams: STREAMS_PER_PEER_MAX })
    await network.handle(INVENTORY_PROTOCOL, (stream, connection) => { this.#accept(this.#inventories, stream, connection) }, {
      maxInboundStreams: INVENTORY_STREAMS_PER_PEER_MAX,
      maxOutboundStreams: INVENTORY_STREAMS_PER_PEER_MAX
    })
    await this.#lanes.start()
  }

  async stop (): Promise<void> {
    if (this.#stopping.signal.aborted) return
    this.#stopping.abort(new NodeStoppedError('the node is stopping'))
    const { network } = this.#components
    await Promise.all([...this.#fetches.values()].map(async fetch => { await fetch.stop() }))
    this.#links.stop()
    await this.#lanes.stop()
    this.#blocks.stop()
    this.#inventories.stop()
    await this.#checks?.stop()
    await network.unhandle([BLOCK_PROTOCOL, INVENTORY_PROTOCOL])
  }

  async fetchMetadata (cid: CID, peers: string[], bytesMax: number, options: AbortOptions = {}): Promise<{ bytes: Uint8Array, from: string }> {
    throwIfAborted(this.#stopping.signal)
    const { clock } = this.#components
    const own = this.#components.network.peerId.toString()
    const signal = options.signal === undefined ? this.#stopping.signal : AbortSignal.any([options.signal, this.#stopping.signal])
    return await fetchMetadata({ links: this.#links, clock, logger: this.#logger, isBanned: peerId => peerId === own || this.isBanned(peerId) }, {
      cid,
      peers,
      bytesMax,
      requestTimeoutMs: this.#settings.requestTimeoutMs,
      signal
    })
  }

  fetchModel (init: ModelFetchInit): ModelFetch {
    throwIfAborted(this.#stopping.signal)
    const { cid } = init.model
    if (this.#fetches.has(cid)) throw new UsageError(`${cid} is being fetched; join that fetch`)
    const fetch = new RunningFetch({ ...this.#components, links: this.#links, records: this.#records, holders: this.#holders }, this.#settings, init, {
      violation: (peerId, reason) => { this.#ban(peerId, reason) },
      awaited: bytes => { this.#blocks.busy(bytes) },
      ended: ended => { if (this.#fetches.get(cid) === ended) this.#fetches.delete(cid) }
    })
    this.#fetches.set(cid, fetch)
    return fetch
  }

  peers (): PeerTransferStatus[] { return this.#records.status() }
  isBanned (peerId: string): boolean { return this.#records.isBanned(peerId) }
  holders (model: string): Array<{ peerId: string, presentBytes: number, complete: boolean }> { return this.#holders.of(model) }

  #accept (server: BlockServer | InventoryServer, stream: Stream, connection: Connection): void {
    const peerId = connection.remotePeer.toString()
    const accepted = !this.#stopping.signal.aborted && !this.isBanned(peerId) && server.accept(peerId, framesOver(stream))
    if (accepted && server === this.#blocks) this.#records.get(peerId).transport = 'stream'
    if (!accepted) stream.abort(new ProtocolError(`a stream of ${stream.protocol} that is not accepted from ${peerId}`))
  }

  #ban (peerId: string, reason: string): void {
    if (this.isBanned(peerId)) return
    this.#records.ban(peerId, reason)
    this.#logger.warn({ peerId, reason }, 'peer banned')
    const error = new ProtocolError(`${peerId} is banned: ${reason}`)
    for (const fetch of this.#fetches.values()) fetch.dropPeer(peerId, reason)
    this.#links.drop(peerId, error)
    this.#lanes.drop(peerId)
    this.#blocks.drop(peerId, error)
    this.#inventories.drop(peerId, error)
    this.#holders.forgetPeer(peerId)
    this.events.emit('peer:banned', { peerId, reason })
  }
}
