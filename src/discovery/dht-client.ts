import type { Stream } from '@libp2p/interface'
import { ANNOUNCE_WINDOW_KEYS, DHT_ADDRESSES_PER_PEER_MAX, PeerGoneError, ProtocolError, abortReason, asError, type Clock } from '../base/index.ts'
import { contactFrom, type Contact } from './contact.ts'
import { within } from './deadline.ts'
import { multihashOf } from './dht-key.ts'
import { MessageType, addProviderWriter, decodeMessage, encodeRequest, type DhtMessage } from './dht-message.ts'
import { KadStreams, type KadStream } from './kad-streams.ts'
import { CLOSEST_PEERS } from './lookup.ts'
import type { Network } from './network.ts'

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
  readonly #streams: KadStreams

  constructor (components: { network: Network, clock: Clock }) {
    this.#network = components.network
    this.#clock = components.clock
    this.#streams = new KadStreams(components)
  }

  /** The peers that `contact` knows nearest to a key. */
  async findNode (contact: Contact, digest: Uint8Array, signal: AbortSignal): Promise<Answer> {
    return await this.#ask(contact, MessageType.findNode, digest, signal)
  }

  /** The same, and who told `contact` that they provide the key. */
  async getProviders (contact: Contact, digest: Uint8Array, signal: AbortSignal): Promise<Answer> {
    return await this.#ask(contact, MessageType.getProviders, digest, signal)
  }

  /**
   * Announces keys to one peer, in order; `onTaken(count)` says that the peer has taken the first `count` of them. Throws when it stops
   * taking; those told of before stay taken.
   */
  async announce (contact: Contact, digests: readonly Uint8Array[], onTaken: (count: number) => void, signal: AbortSignal, fresh = false): Promise<void> {
    const announcer = await this.#openAnnouncer(contact, signal, fresh)
    const { isUsed } = announcer
    let taken = 0
    try {
      await announcer.announce(digests, count => { taken = count; onTaken(count) }, signal)
      announcer.close()
    } catch (error) {
      announcer.abort(asError(error))
      // The peer may have ended it a moment before.
      if (!isUsed || taken > 0 || signal.aborted) throw error
      await this.announce(contact, digests, onTaken, signal, true)
    }
  }

  async #openAnnouncer (contact: Contact, signal: AbortSignal, fresh: boolean): Promise<PeerAnnouncer> {
    const multiaddrs = this.#network.getMultiaddrs().slice(0, DHT_ADDRESSES_PER_PEER_MAX).map(address => address.bytes)
    // A peer ignores providers it could not tell anyone how to reach.
    if (multiaddrs.length === 0) throw new ProtocolError('this node has no address to announce')
    const kept = await within(this.#clock, ASK_TIMEOUT_MS, `connecting to ${contact.id}`, signal, async signal => await this.#streams.take(contact, signal, fresh))
    const write = addProviderWriter({ id: this.#network.peerId.toMultihash().bytes, multiaddrs })
    return new PeerAnnouncer({ kept, contact, write, clock: this.#clock, done: () => { this.#streams.give(contact, kept) } })
  }

  /** Leaves no timer. It may be used again. */
  close (): void { this.#streams.close() }

  async #ask (contact: Contact, type: number, digest: Uint8Array, signal: AbortSignal): Promise<Answer> {
    return await within(this.#clock, ASK_TIMEOUT_MS, `asking ${contact.id}`, signal, async signal => {
      const message = await this.#answerOf(contact, type, digest, signal)
      // More is not what Kademlia gives, and only keeps a lookup from those who know.
      return { closer: contactsIn(message.closer.slice(0, CLOSEST_PEERS)), providers: contactsIn(message.providers) }
    })
  }

  async #answerOf (contact: Contact, type: number, digest: Uint8Array, signal: AbortSignal, fresh = false): Promise<DhtMessage> {
    const kept = await this.#streams.take(contact, signal, fresh)
    try {
      await kept.frames.write(encodeRequest(type, multihashOf(digest)), { signal })
      const message = expectType(decodeMessage((await kept.frames.read({ signal })).subarray()), type, contact)
      this.#streams.give(contact, kept)
      return message
    } catch (error) {
      kept.stream.abort(asError(error))
      // The peer may have ended it a moment before.
      if (!kept.isUsed || signal.aborted) throw error
      return await this.#answerOf(contact, type, digest, signal, true)
    }
  }
}

/**
 * Announces keys to one peer, many messages on one stream. kad-dht answers no ADD_PROVIDER, but it works through a
 * stream in order and resets it at the first thing it will not take: so a PING after each window says, by its answer,
 * that all before it were taken. One window is under way while the next is written.
 */
class PeerAnnouncer {
  readonly contact: Contact
  /** The stream has been used before. */
  readonly isUsed: boolean
  readonly #stream: Stream
  readonly #frames: KadStream['frames']
  readonly #write: (keys: readonly Uint8Array[]) => Uint8Array
  readonly #clock: Clock
  readonly #done: () => void

  /** `done` takes the stream back once all is answered. */
  constructor (init: { kept: KadStream, contact: Contact, write: (keys: readonly Uint8Array[]) => Uint8Array, clock: Clock, done: () => void }) {
    this.contact = init.contact
    this.isUsed = init.kept.isUsed
    this.#stream = init.kept.stream
    this.#frames = init.kept.frames
    this.#write = init.write
    this.#clock = init.clock
    this.#done = init.done
  }

  /** As DhtClient has it. */
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

  /** Not after announce() threw: that takes an abort. */
  close (): void { this.#done() }

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
