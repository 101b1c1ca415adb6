import type { Libp2p, Peer } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { JoinFailedError, LOAD_PEERS_MAX, PEERS_TRACKED_MAX, asError, sleep, type Clock, type Logger } from '../base/index.ts'
import type { Provider } from '../discovery/router.ts'

/** While alone, dial who is known: at first at once, later each half minute. */
const REJOIN_FIRST_MS = 1_000
const REJOIN_MAX_MS = 30_000
const DIAL_TIMEOUT_MS = 10_000
/** Peers of former times that are dialled at once; half of them are those that were connected last, and all others take turns. */
const REMEMBERED_DIALLED_MAX = 20
const LATEST_DIALLED_MAX = REMEMBERED_DIALLED_MAX / 2
/** Where libp2p notes in its peer store when it last dialled a peer with success: decimal milliseconds since 1970. */
const DIALLED_AT = 'last-dial-success'

/** Who this node knows and is connected to; keeps it in touch with the swarm. */
export class PeerBook {
  readonly #network: Libp2p
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #join: string[]
  readonly #stopped = new AbortController()
  /** When those were last connected that were in this life, by the wall clock; who was last seen is last. */
  readonly #connectedAt = new Map<string, number>()
  /** Those that had their turn since all of them had one. */
  readonly #dialled = new Set<string>()
  #unreached = 0
  #loop: Promise<void> | undefined

  constructor (components: { network: Libp2p, clock: Clock, logger: Logger }, init: { join: string[] }) {
    this.#network = components.network
    this.#clock = components.clock
    this.#logger = components.logger
    this.#join = init.join
  }

  connected (): string[] {
    return this.#network.getPeers().map(peer => peer.toString())
  }

  /** How many peers of former times are remembered, while this node is alone and none of those it dialled answered. */
  get unreached (): number { return this.connected().length > 0 ? 0 : this.#unreached }

  /** Keeps a provider's addresses, so that it can be dialled by its id. */
  async learn (provider: Provider): Promise<void> {
    if (provider.multiaddrs.length === 0) return
    try {
      await this.#network.peerStore.merge(peerIdFromString(provider.peerId), { multiaddrs: provider.multiaddrs.map(address => multiaddr(address)) })
    } catch (error) {
      this.#logger.debug({ peerId: provider.peerId, error: asError(error).message }, 'addresses of a provider not kept')
    }
  }

  /** Throws JoinFailedError, and what the network says of a wrong swarm key. */
  async connect (address: string, signal?: AbortSignal): Promise<string> {
    const deadline = AbortSignal.timeout(DIAL_TIMEOUT_MS)
    try {
      const connection = await this.#network.dial(multiaddr(address), { signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]) })
      return connection.remotePeer.toString()
    } catch (error) {
      if (asError(error).name === 'SwarmKeyError') throw error
      throw new JoinFailedError(`could not connect to ${address}: ${asError(error).message}; check that a node listens there and that both have the same swarm key`, { cause: error })
    }
  }

  /** From now on, dials the peers to join, and those of former times, whenever no peer is connected. */
  start (): void {
    this.#loop = this.#keepJoined()
  }

  async stop (): Promise<void> {
    this.#stopped.abort()
    await this.#loop
  }

  async #keepJoined (): Promise<void> {
    const { signal } = this.#stopped
    let waitMs = REJOIN_FIRST_MS
    while (!signal.aborted) {
      this.#noteConnected()
      if (this.connected().length === 0) {
        await this.#joinOnce(signal)
        waitMs = this.connected().length > 0 ? REJOIN_FIRST_MS : Math.min(REJOIN_MAX_MS, waitMs * 2)
      }
      await sleep(this.#clock, this.connected().length > 0 ? REJOIN_MAX_MS / 6 : waitMs, signal).catch(() => undefined) // stop ends the loop
    }
  }

  async #joinOnce (signal: AbortSignal): Promise<void> {
    const own = this.#network.peerId.toString()
    const addresses = this.#join.filter(address => !address.endsWith(`/p2p/${own}`))
    const outcomes = await Promise.allSettled(addresses.map(async address => await this.connect(address, signal)))
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected' && !signal.aborted) this.#logger.warn({ error: asError(outcome.reason).message }, 'a peer to join was not reached')
    }
    if (this.connected().length > 0 || signal.aborted) return
    const remembered = (await this.#network.peerStore.all()).filter(peer => !peer.id.equals(this.#network.peerId))
    await Promise.allSettled(this.#choose(remembered).map(async peer => {
      await this.#network.dial(peer.id, { signal: AbortSignal.any([signal, AbortSignal.timeout(DIAL_TIMEOUT_MS)]) })
    }))
    this.#unreached = remembered.length
  }

  #noteConnected (): void {
    for (const peerId of this.connected()) {
      this.#connectedAt.delete(peerId)
      this.#connectedAt.set(peerId, this.#clock.now())
    }
    for (const oldest of this.#connectedAt.keys()) {
      if (this.#connectedAt.size <= PEERS_TRACKED_MAX) break
      this.#connectedAt.delete(oldest)
    }
  }

  /** The first of them may be gone for good, whatever order they are in: so each has its turn. */
  #choose (remembered: readonly Peer[]): Peer[] {
    const places = Math.min(REMEMBERED_DIALLED_MAX, LOAD_PEERS_MAX)
    const latest = remembered.map(peer => ({ peer, at: this.#lastConnectedAt(peer) })).filter(({ at }) => at > 0)
      .sort((a, b) => b.at - a.at).slice(0, LATEST_DIALLED_MAX).map(({ peer }) => peer)
    const others = remembered.filter(peer => !latest.includes(peer))
    const isWaiting = (peer: Peer): boolean => !this.#dialled.has(peer.id.toString())
    let next = others.filter(isWaiting).slice(0, places - latest.length)
    if (next.length < places - latest.length) {
      this.#dialled.clear()
      next = [...next, ...others.filter(peer => !next.includes(peer))].slice(0, places - latest.length)
    }
    for (const peer of next) this.#dialled.add(peer.id.toString())
    return [...latest, ...next]
  }

  #lastConnectedAt ({ id, metadata }: Peer): number {
    const dialledAt = Number(new TextDecoder().decode(metadata.get(DIALLED_AT)))
    return Math.max(this.#connectedAt.get(id.toString()) ?? 0, Number.isFinite(dialledAt) ? dialledAt : 0)
  }
}
