import type { ConsumePeerRecordOptions, Libp2pEvents, Peer, PeerData, PeerId, PeerInfo, PeerQuery, PeerStore, TypedEventTarget } from '@libp2p/interface'
import { PEERS_REMEMBERED_MAX, PEERS_TRACKED_MAX, type AbortOptions, type Clock } from '../base/index.ts'

/** Addresses that were written are not written again so soon, and what was read and has not changed is not read again. */
const AGAIN_MS = 60_000

interface Merged { addresses: string, at: number, peer: Peer }
interface Read { at: number, peer: Peer }

/**
 * libp2p's peer store with fewer reads and writes of its entries, each of which is decoded or encoded under a lock.
 * With each record that a peer announces kad-dht writes that peer's addresses again, a third of what it costs to be told of
 * 20,000 small files; for each question it reads all peers that it names; and with each stream, either way, libp2p reads
 * and writes the peer's entry to note a protocol that stands in it already: a seventh of what it costs a node to join sixteen
 * others. Here the same addresses are written once a minute, a protocol that is known not at all, and a peer is read
 * again when it has changed, or after that time; all else passes.
 */
export class CalmPeerStore implements PeerStore {
  readonly #inner: PeerStore
  readonly #clock: Clock
  readonly #merged = new Map<string, Merged>()
  readonly #read = new Map<string, Read>()
  /** Counts up with each change: what was read meanwhile may be out of date. */
  #changes = 0

  /** `events`: where libp2p tells of peers that changed, whoever changed them, before anybody else can change them again. */
  constructor (inner: PeerStore, events: TypedEventTarget<Libp2pEvents>, clock: Clock) {
    this.#inner = inner
    this.#clock = clock
    events.addEventListener('peer:update', ({ detail: { peer } }) => {
      this.#forget(peer.id)
      note(this.#read, peer.id.toString(), { at: this.#clock.monotonic(), peer }, PEERS_REMEMBERED_MAX)
    })
    // Not noted: the event leaves out own addresses that are a week old, which reading does not.
    events.addEventListener('self:peer:update', ({ detail: { peer } }) => { this.#forget(peer.id) })
  }

  async merge (id: PeerId, data: PeerData, options?: AbortOptions): Promise<Peer> {
    const { multiaddrs, protocols, ...rest } = data
    if (Object.keys(rest).length > 0) return await this.#inner.merge(id, data, options)
    const key = id.toString()
    if (protocols !== undefined && multiaddrs === undefined) {
      const known = this.#known(key)
      if (known !== undefined && protocols.every(protocol => known.protocols.includes(protocol))) return known
    }
    if (multiaddrs === undefined || protocols !== undefined) return await this.#inner.merge(id, data, options)
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
    const known = this.#known(key)
    if (known !== undefined) return known
    const now = this.#clock.monotonic()
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
    await this.#inner.delete(id, options)
    this.#forget(id)
  }

  async forEach (visit: (peer: Peer) => void, query?: PeerQuery): Promise<void> { await this.#inner.forEach(visit, query) }
  async all (query?: PeerQuery): Promise<Peer[]> { return await this.#inner.all(query) }
  async has (id: PeerId, options?: AbortOptions): Promise<boolean> { return this.#known(id.toString()) !== undefined || await this.#inner.has(id, options) }
  async save (id: PeerId, data: PeerData, options?: AbortOptions): Promise<Peer> { return await this.#inner.save(id, data, options) }
  async patch (id: PeerId, data: PeerData, options?: AbortOptions): Promise<Peer> { return await this.#inner.patch(id, data, options) }
  async consumePeerRecord (bytes: Uint8Array, options?: ConsumePeerRecordOptions): Promise<boolean> { return await this.#inner.consumePeerRecord(bytes, options) }

  #forget (id: PeerId): void {
    this.#changes++
    this.#merged.delete(id.toString())
    this.#read.delete(id.toString())
  }

  #known (key: string): Peer | undefined {
    const known = this.#read.get(key)
    return known !== undefined && this.#clock.monotonic() - known.at < AGAIN_MS ? known.peer : undefined
  }
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
