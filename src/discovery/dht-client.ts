import type { Stream } from '@libp2p/interface'
import { lpStream } from '@libp2p/utils'
import { ANNOUNCE_WINDOW_KEYS, DHT_ADDRESSES_PER_PEER_MAX, DHT_MESSAGE_BYTES_MAX, PeerGoneError, ProtocolError, abortReason, asError, type Clock } from '../base/index.ts'
import { contactFrom, type Contact } from './contact.ts'
import { within } from './deadline.ts'
import { multihashOf } from './dht-key.ts'
import { MessageType, addProviderWriter, decodeMessage, encodeRequest, type DhtMessage } from './dht-message.ts'
import { CLOSEST_PEERS } from './lookup.ts'
import { KAD_PROTOCOL, type Network } from './network.ts'

/** One question, dialling included. A live peer in another continent needs under a second. */
const ASK_TIMEOUT_MS = 5_000
/** One window of announcements, each of which the peer writes to its disk. */
const WINDOW_TIMEOUT_MS = 20_000

export interface Answer {
  closer: Contact[]
  providers: Contact[]
}

/** Asks and tells single peers, in kad-dht's own protocol. Every call has a deadline. */
export class DhtClient {
  readonly #network: Network
  readonly #clock: Clock

  constructor (components: { network: Network, clock: Clock }) {
    this.#network = components.network
    this.#clock = components.clock
  }

  /** The peers that `contact` knows nearest to a key. */
  async findNode (contact: Contact, digest: Uint8Array, signal: AbortSignal): Promise<Answer> {
    return await this.#ask(contact, MessageType.findNode, digest, signal)
  }

  /** The same, and who told `contact` that they provide the key. */
  async getProviders (contact: Contact, digest: Uint8Array, signal: AbortSignal): Promise<Answer> {
    return await this.#ask(contact, MessageType.getProviders, digest, signal)
  }

  /** A stream on which many keys are announced to one peer. */
  async openAnnouncer (contact: Contact, signal: AbortSignal): Promise<PeerAnnouncer> {
    const multiaddrs = this.#network.getMultiaddrs().slice(0, DHT_ADDRESSES_PER_PEER_MAX).map(address => address.bytes)
    // A peer ignores providers it could not tell anyone how to reach.
    if (multiaddrs.length === 0) throw new ProtocolError('this node has no address to announce')
    const stream = await within(this.#clock, ASK_TIMEOUT_MS, `connecting to ${contact.id}`, signal, async signal => await this.#open(contact, signal))
    return new PeerAnnouncer(stream, contact, addProviderWriter({ id: this.#network.peerId.toMultihash().bytes, multiaddrs }), this.#clock)
  }

  async #ask (contact: Contact, type: number, digest: Uint8Array, signal: AbortSignal): Promise<Answer> {
    return await within(this.#clock, ASK_TIMEOUT_MS, `asking ${contact.id}`, signal, async signal => {
      const stream = await this.#open(contact, signal)
      try {
        const frames = lpStream(stream, { maxDataLength: DHT_MESSAGE_BYTES_MAX, maxBufferSize: 2 * DHT_MESSAGE_BYTES_MAX })
        await frames.write(encodeRequest(type, multihashOf(digest)), { signal })
        const message = expectType(decodeMessage((await frames.read({ signal })).subarray()), type, contact)
        // The answer is what counts; how the stream ends does not.
        stream.close({ signal: AbortSignal.timeout(ASK_TIMEOUT_MS) }).catch(error => { stream.abort(asError(error)) })
        // More is not what Kademlia gives, and only keeps a lookup from those who know.
        return { closer: contactsIn(message.closer.slice(0, CLOSEST_PEERS)), providers: contactsIn(message.providers) }
      } catch (error) {
        stream.abort(asError(error))
        throw error
      }
    })
  }

  async #open (contact: Contact, signal: AbortSignal): Promise<Stream> {
    if (contact.multiaddrs.length > 0 && this.#network.getConnections(contact.peerId).length === 0) {
      await this.#network.peerStore.merge(contact.peerId, { multiaddrs: contact.multiaddrs })
    }
    return await this.#network.dialProtocol(contact.peerId, KAD_PROTOCOL, { signal })
  }
}

/**
 * Announces keys to one peer, many messages on one stream. kad-dht answers no ADD_PROVIDER, but it works through a
 * stream in order and resets it at the first thing it will not take: so a PING after each window says, by its answer,
 * that all before it were taken. One window is under way while the next is written.
 */
export class PeerAnnouncer {
  readonly contact: Contact
  readonly #stream: Stream
  readonly #frames: ReturnType<typeof lpStream>
  readonly #write: (keys: readonly Uint8Array[]) => Uint8Array
  readonly #clock: Clock

  constructor (stream: Stream, contact: Contact, write: (keys: readonly Uint8Array[]) => Uint8Array, clock: Clock) {
    this.#stream = stream
    this.contact = contact
    this.#frames = lpStream(stream, { maxDataLength: DHT_MESSAGE_BYTES_MAX })
    this.#write = write
    this.#clock = clock
  }

  /**
   * Announces the keys in order; `onTaken(count)` says that the peer has taken the first `count` of them. Throws when
   * the peer stops taking; those told of before stay taken.
   */
  async announce (digests: readonly Uint8Array[], onTaken: (count: number) => void, signal: AbortSignal): Promise<void> {
    let unanswered: number | undefined
    for (let at = 0; at < digests.length; at += ANNOUNCE_WINDOW_KEYS) {
      const window = digests.slice(at, at + ANNOUNCE_WINDOW_KEYS)
      await this.#within(signal, async signal => {
        await send(this.#stream, this.#write(window.map(multihashOf)), signal)
        await this.#frames.write(encodeRequest(MessageType.ping), { signal })
      })
      if (unanswered !== undefined) {
        await this.#answered(signal)
        onTaken(unanswered)
      }
      unanswered = at + window.length
    }
    if (unanswered !== undefined) {
      await this.#answered(signal)
      onTaken(unanswered)
    }
  }

  async close (): Promise<void> {
    try {
      await this.#stream.close({ signal: AbortSignal.timeout(1_000) })
    } catch (error) {
      this.abort(asError(error))
    }
  }

  abort (error: Error): void { this.#stream.abort(error) }

  async #answered (signal: AbortSignal): Promise<void> {
    await this.#within(signal, async signal => {
      expectType(decodeMessage((await this.#frames.read({ signal })).subarray()), MessageType.ping, this.contact)
    })
  }

  async #within (signal: AbortSignal, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    await within(this.#clock, WINDOW_TIMEOUT_MS, `announcing to ${this.contact.id}`, signal, work)
  }
}

/** Sends, and waits for room if there is none. (libp2p's onDrain() waits only the first time: its promise is never renewed.) */
async function send (stream: Stream, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
  if (stream.send(bytes)) return
  await new Promise<void>((resolve, reject) => {
    // A window update of a few bytes makes a drain event too; libp2p clears the flag in a microtask of it.
    const onDrain = (): void => { queueMicrotask(() => { if (!stream.writableNeedsDrain) { settle(); resolve() } }) }
    const onClose = (): void => { settle(); reject(new PeerGoneError('the peer closed the stream')) }
    const onAbort = (): void => { settle(); reject(abortReason(signal)) }
    const settle = (): void => {
      stream.removeEventListener('drain', onDrain)
      stream.removeEventListener('close', onClose)
      signal.removeEventListener('abort', onAbort)
    }
    stream.addEventListener('drain', onDrain)
    stream.addEventListener('close', onClose)
    signal.addEventListener('abort', onAbort)
    if (signal.aborted) onAbort()
    else if (stream.status !== 'open') onClose()
  })
}

function expectType (message: DhtMessage, type: number, from: Contact): DhtMessage {
  if (message.type !== type) throw new ProtocolError(`${from.id} answered a DHT message of type ${type} with one of type ${message.type}`)
  return message
}

function contactsIn (peers: DhtMessage['closer']): Contact[] {
  return peers.map(contactFrom).filter(contact => contact !== undefined)
}
