import type { ConsumePeerRecordOptions, Libp2pEvents, Peer, PeerData, PeerId, PeerInfo, PeerQuery, PeerStore, TypedEventTarget } from '@libp2p/interface'
import { PEERS_REMEMBERED_MAX, PEERS_TRACKED_MAX, type AbortOptions, type Clock } from '../base/index.ts'

/** Addresses that were written are not written again so soon, and what was read and has not changed is not read again. */
const AGAIN_MS = 60_000

interface Merged { addresses: string, at: number, peer: Peer }
interface Read { at: number, peer: Peer }

/**
 * The peer store as kad-dht sees it. With each record that a peer announces kad-dht writes that peer's addresses to disk
 * again: a read and a write for each of 20,000 small files, a third of what it costs to be told of them. And for each question it
 * reads all peers that it names: twenty entries decoded under twenty locks, a tenth of what nodes do that load together. Here the same
 * addresses are written once a minute, and a peer is read again when it has changed, or after that time; all else passes.
 */
export class CalmPeerStore implements PeerStore {
  readonly #inner: PeerStore
  readonly #clock: Clock
  readonly #merged = new Map<string, Merged>()
  readonly #read = new Map<string, Read>()
  /** Counts up with each change: what was read meanwhile may be out of date. */
  #changes = 0

  /** `events`: where libp2p tells of peers that changed, whoever changed them. */
  constructor (inner: PeerStore, events: TypedEventTarget<Libp2pEvents>, clock: Clock) {
    this.#inner = inner
    this.#clock = clock
    for (const type of ['peer:update', 'self:peer:update'] as const) {
      events.addEventListener(type, ({ detail }) => {
        const key = detail.peer.id.toString()
        this.#changes++
        this.#merged.delete(key)
        this.#read.delete(key)
      })
    }
  }

  async merge (id: PeerId, data: PeerData, options?: AbortOptions): Promise<Peer> {
    const { multiaddrs, ...rest } = data
    if (multiaddrs === undefined || Object.keys(rest).length > 0) return await this.#inner.merge(id, data, options)
    const key = id.toString()
    const addresses = multiaddrs.map(address => address.toString()).join(' ')
    const now = this.#clock.monotonic()
    const known = this.#merged.get(key)
    if (known?.addresses === addresses && now - known.at < AGAIN_MS) return known.peer
    const peer = await this.#inner.merge(id, data, options)
    note(this.#merged, key, { addresses, at: now, peer }, PEERS_TRACKED_MAX)
    return peer
  }

  /** Throws NotFoundError. */
  async get (id: PeerId, options?: AbortOptions): Promise<Peer> {
    const key = id.toString()
    const now = this.#clock.monotonic()
    const known = this.#read.get(key)
    if (known !== undefined && now - known.at < AGAIN_MS) return known.peer
    const changes = this.#changes
    const peer = await this.#inner.get(id, options)
    if (changes === this.#changes) note(this.#read, key, { at: now, peer }, PEERS_REMEMBERED_MAX)
    return peer
  }

  async getInfo (id: PeerId, options?: AbortOptions): Promise<PeerInfo> {
    const peer = await this.get(id, options)
    return { id: peer.id, multiaddrs: peer.addresses.map(({ multiaddr }) => multiaddr) }
  }

  async delete (id: PeerId, options?: AbortOptions): Promise<void> {
    this.#changes++
    this.#merged.delete(id.toString())
    this.#read.delete(id.toString())
    await this.#inner.delete(id, options)
  }

  async forEach (visit: (peer: Peer) => void, query?: PeerQuery): Promise<void> { await this.#inner.forEach(visit, query) }
  async all (query?: PeerQuery): Promise<Peer[]> { return await this.#inner.all(query) }
  async has (id: PeerId, options?: AbortOptions): Promise<boolean> { return await this.#inner.has(id, options) }
  async save (id: PeerId, data: PeerData, options?: AbortOptions): Promise<Peer> { return await this.#inner.save(id, data, options) }
  async patch (id: PeerId, data: PeerData, options?: AbortOptions): Promise<Peer> { return await this.#inner.patch(id, data, options) }
  async consumePeerRecord (bytes: Uint8Array, options?: ConsumePeerRecordOptions): Promise<boolean> { return await this.#inner.consumePeerRecord(bytes, options) }
}

/** The oldest go first. */
function note<T> (map: Map<string, T>, key: string, value: T, max: number): void {
  map.delete(key)
  for (const oldest of map.keys()) {
    if (map.size < max) break
    map.delete(oldest)
  }
  map.set(key, value)
}
