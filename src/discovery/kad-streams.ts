import type { Stream } from '@libp2p/interface'
import { lpStream } from '@libp2p/utils'
import { DHT_MESSAGE_BYTES_MAX, asError, type Clock } from '../base/index.ts'
import type { Contact } from './contact.ts'
import { KAD_PROTOCOL, type Network } from './network.ts'

/** A stream that speaks the DHT's protocol, with nothing under way. */
export interface KadStream {
  readonly stream: Stream
  readonly frames: ReturnType<typeof lpStream>
  /** It has answered before: the peer may have closed it meanwhile. */
  isUsed: boolean
}

/** kad-dht ends a stream on which nothing has come for ten seconds; a message may be on its way for as long as the rest of that. */
const IDLE_MS = 4_000
const IDLE_MAX = 256
const CLOSE_TIMEOUT_MS = 5_000

/**
 * Streams to the peers that were asked a moment ago. Lookups for several keys ask the same peers, and opening a stream costs more than a question:
 * four messages to agree on the protocol, and those that open and close it.
 */
export class KadStreams {
  readonly #network: Network
  readonly #clock: Clock
  /** One for each peer, the oldest first. */
  readonly #idle = new Map<string, { kept: KadStream, cancel: () => void }>()

  constructor (components: { network: Network, clock: Clock }) {
    this.#network = components.network
    this.#clock = components.clock
  }

  /** `fresh`: none that was used before. */
  async take (contact: Contact, signal: AbortSignal, fresh = false): Promise<KadStream> {
    const idle = this.#idle.get(contact.id)
    if (idle !== undefined) {
      this.#idle.delete(contact.id)
      idle.cancel()
      if (!fresh && isOpen(idle.kept.stream)) return idle.kept
      end(idle.kept.stream)
    }
    if (contact.multiaddrs.length > 0 && this.#network.getConnections(contact.peerId).length === 0) {
      await this.#network.peerStore.merge(contact.peerId, { multiaddrs: contact.multiaddrs })
    }
    const stream = await this.#network.dialProtocol(contact.peerId, KAD_PROTOCOL, { signal })
    return { stream, frames: lpStream(stream, { maxDataLength: DHT_MESSAGE_BYTES_MAX, maxBufferSize: 2 * DHT_MESSAGE_BYTES_MAX }), isUsed: false }
  }

  /** All that was asked on it is answered. */
  give (contact: Contact, kept: KadStream): void {
    const { stream } = kept
    if (!isOpen(stream)) return
    kept.isUsed = true
    if (this.#idle.has(contact.id)) { end(stream); return }
    const cancel = this.#clock.setTimeout(() => { this.#drop(contact.id) }, IDLE_MS)
    this.#idle.set(contact.id, { kept, cancel })
    const [oldest] = this.#idle.keys()
    if (this.#idle.size > IDLE_MAX && oldest !== undefined) this.#drop(oldest)
  }

  /** Leaves no timer. */
  close (): void {
    for (const id of this.#idle.keys()) this.#drop(id)
  }

  #drop (id: string): void {
    const idle = this.#idle.get(id)
    if (idle === undefined) return
    this.#idle.delete(id)
    idle.cancel()
    end(idle.kept.stream)
  }
}

function isOpen ({ status, writeStatus, readStatus }: Stream): boolean {
  return status === 'open' && writeStatus === 'writable' && readStatus === 'readable'
}

/** How it ends does not matter. */
function end (stream: Stream): void {
  stream.close({ signal: AbortSignal.timeout(CLOSE_TIMEOUT_MS) }).catch(error => { stream.abort(asError(error)) })
}
