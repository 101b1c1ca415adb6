import type { ConsumePeerRecordOptions, Peer, PeerData, PeerId, PeerInfo, PeerQuery, PeerStore } from '@libp2p/interface'
import { PEERS_TRACKED_MAX, type AbortOptions, type Clock } from '../base/index.ts'

/** Addresses that were written are not written again so soon. */
const AGAIN_MS = 60_000

interface Merged { addresses: string, at: number, peer: Peer }

/**
 * The peer store as kad-dht sees it. With each record that a peer announces kad-dht writes that peer's addresses to disk
 * again: a read and a write for each of 20,000 small files, a third of what it costs to be told of them. Here the same
 * addresses are written once a minute; all else passes.
 */
export class CalmPeerStore implements PeerStore {
  readonly #inner: PeerStore
  readonly #clock: Clock
  readonly #merged = new Map<string, Merged>()

  constructor (inner: PeerStore, clock: Clock) {
    this.#inner = inner
    this.#clock = clock
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
    this.#merged.delete(key)
    for (const oldest of this.#merged.keys()) {
      if (this.#merged.size < PEERS_TRACKED_MAX) break
      this.#merged.delete(oldest)
    }
    this.#merged.set(key, { addresses, at: now, peer })
    return peer
  }

  async delete (id: PeerId, options?: AbortOptions): Promise<void> {
    this.#merged.delete(id.toString())
    await this.#inner.delete(id, options)
  }

  async forEach (visit: (peer: Peer) => void, query?: PeerQuery): Promise<void> { await this.#inner.forEach(visit, query) }
  async all (query?: PeerQuery): Promise<Peer[]> { return await this.#inner.all(query) }
  async has (id: PeerId, options?: AbortOptions): Promise<boolean> { return await this.#inner.has(id, options) }
  async get (id: PeerId, options?: AbortOptions): Promise<Peer> { return await this.#inner.get(id, options) }
  async getInfo (id: PeerId, options?: AbortOptions): Promise<PeerInfo> { return await this.#inner.getInfo(id, options) }
  async save (id: PeerId, data: PeerData, options?: AbortOptions): Promise<Peer> { return await this.#inner.save(id, data, options) }
  async patch (id: PeerId, data: PeerData, options?: AbortOptions): Promise<Peer> { return await this.#inner.patch(id, data, options) }
  async consumePeerRecord (bytes: Uint8Array, options?: ConsumePeerRecordOptions): Promise<boolean> { return await this.#inner.consumePeerRecord(bytes, options) }
}
