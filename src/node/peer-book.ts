import type { Libp2p } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { JoinFailedError, LOAD_PEERS_MAX, asError, sleep, type Clock, type Logger } from '../base/index.ts'
import type { Provider } from '../discovery/router.ts'

/** While alone, dial who is known: at first at once, later each half minute. */
const REJOIN_FIRST_MS = 1_000
const REJOIN_MAX_MS = 30_000
const DIAL_TIMEOUT_MS = 10_000
/** Peers of former times that are dialled at start. */
const REMEMBERED_DIALLED_MAX = 20

/** Who this node knows and is connected to; keeps it in touch with the swarm. */
export class PeerBook {
  readonly #network: Libp2p
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #join: string[]
  readonly #stopped = new AbortController()
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
    await Promise.allSettled(remembered.slice(0, Math.min(REMEMBERED_DIALLED_MAX, LOAD_PEERS_MAX)).map(async peer => {
      await this.#network.dial(peer.id, { signal: AbortSignal.any([signal, AbortSignal.timeout(DIAL_TIMEOUT_MS)]) })
    }))
  }
}
