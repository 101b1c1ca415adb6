import type { CID } from 'multiformats/cid'
import {
  BLOCK_BYTES_MAX, KiB, MiB, PeerTimeoutError, ProtocolError, SERVE_SLOTS, asError, type Clock, type Logger
} from '../base/index.ts'
import { DAG_CBOR } from '../model/index.ts'
import type { Slot } from '../storage/slots.ts'
import type { BlockLocation, ModelStore } from '../storage/store.ts'
import type { FrameStream, OpenFrames } from './frame-stream.ts'
import { CANCELLED, DATA, NOT_HERE, REQUEST, REQUEST_LATER, blockServerRules, decodeIds, decodeRequests, encodeHead, encodeIds, type WantedBlock } from './messages.ts'
import type { TokenBucket } from './rate.ts'
import type { PeerSlots } from './serve-slots.ts'
import { joinFrames, packData } from './wire.ts'

export interface ServedStreamComponents { store: ModelStore, slots: PeerSlots, clock: Clock, logger: Logger }

export interface ServedStreamInit { requestsMax: number, useless: TokenBucket }

export interface ServedStreamHooks {
  /** It has bytes and may send: give it a turn. */
  ready: (stream: ServedStream) => void
  /** Whether no cap holds back what can wait. */
  laterMay: () => boolean
  /** Ended, with ProtocolError when the peer broke the rules. */
  closed: (stream: ServedStream, error: Error) => void
}

/** One request and what became of it. `sent` survives the loss of the slot, so that nothing is sent twice. */
interface Answer {
  readonly id: number
  readonly cid: CID
  readonly location: BlockLocation | undefined
  readonly later: boolean
  state: 'queued' | 'waiting' | 'reading' | 'ready'
  slot: Slot | undefined
  /** When it got that, in monotonic milliseconds. */
  slotAt: number
  bytes: Uint8Array
  sent: number
  headSent: boolean
  /** It can wait, and had waited for long enough: nothing passes it any more. */
  due: boolean
  /** Its slot was taken back because its reader is slow: it asks for another only when the reader is ready for it. */
  evicted: boolean
  /** Cancelled, or the stream is gone: whoever still works on it only cleans up. */
  dropped: boolean
  giveUpWaiting: () => void
}

/** Of what somebody waits for, this much goes to what can wait as well: one byte of thirty-two in all. */
export const LATER_SHARE = 1 / 31
/** A blocked reader keeps its slot this long while others wait for one. */
const SLOT_PATIENCE_MS = 500
/** And any reader this long while others have none: a block at 1.4 MiB/s. Who is slower takes turns, each for another read of its block. */
const SLOT_TURN_MS = 3_000
/** Refusals that may lie unsent before the server stops reading requests. */
const REFUSAL_BYTES_MAX = 64 * KiB
/** Answers of one stream read ahead: half of the slots there are. More than one only while they are small together. */
const AHEAD_MAX = SERVE_SLOTS / 2
const AHEAD_BYTES_MAX = 1 * MiB
const NOTHING = new Uint8Array(0)

/**
 * The answers to one stream of requests, in their order. The first is being sent, the second may be read from disk
 * meanwhile, and a few more when they are small; the rest are only names. An answer holds one slot, also when it is metadata, which bounds the memory of
 * serving; a slot can be taken back at any time because what was given to the stream is its own or has left (sendData).
 */
export class ServedStream {
  readonly peerId: string
  /** When it was last blocked by its reader, in monotonic milliseconds; undefined while it flows. */
  blockedSince: number | undefined
  readonly #components: ServedStreamComponents
  readonly #hooks: ServedStreamHooks
  readonly #requestsMax: number
  readonly #frames: FrameStream
  /** Of its peer: what it may ask for and cancel for nothing. */
  readonly #useless: TokenBucket
  #answers: Answer[] = []
  #lastId = 0
  /** The share of what can wait of what passed it on this stream; above 0 it is its turn. */
  #laterCredit = 0
  #held = false
  #refusalBytes = 0
  /** It counts among those whom a slot is of use for. */
  #wantsSlot = false
  #closed = false

  constructor (peerId: string, open: OpenFrames, { requestsMax, useless }: ServedStreamInit, components: ServedStreamComponents, hooks: ServedStreamHooks) {
    this.peerId = peerId
    this.#components = components
    this.#hooks = hooks
    this.#requestsMax = requestsMax
    this.#useless = useless
    this.#frames = open(blockServerRules, {
      frame: (type, body) => {
        if (type === REQUEST || type === REQUEST_LATER) this.#requested(decodeRequests(body), type === REQUEST_LATER)
        else this.#cancelled(decodeIds(body))
      },
      data: () => { throw new ProtocolError('data on the way to a server') },
      drained: () => { this.#drained() },
      closed: error => { this.#end(error) }
    })
  }

  /** Requests that are not answered in full. */
  get open (): number { return this.#answers.length }

  get canSend (): boolean { return !this.#closed && !this.#frames.blocked && this.#answers[0]?.state === 'ready' }

  /** Nobody waits for what is next, nor for anything behind it. */
  get later (): boolean { return this.#answers[0]?.later === true && !this.#answers.some(({ later }) => !later) }

  /** Nobody waits for what is next, whatever is behind it. */
  get sendsLater (): boolean { return this.#answers[0]?.later === true }

  /** Sends one piece, of so many bytes at most, and returns its bytes. */
  turn (bytesMax: number): number {
    const answer = this.#answers[0]
    if (answer === undefined || !this.canSend) return 0
    if (!answer.headSent) {
      answer.headSent = true
      this.#frames.send(encodeHead(answer.id, answer.bytes.length))
    }
    const source = bytesMax < this.#frames.shape.sendBytesMax ? answer.bytes.subarray(0, answer.sent + bytesMax) : answer.bytes
    const bytes = answer.location === undefined ? this.#sendCopy(answer, source) : this.#frames.sendData(DATA, answer.id, source, answer.sent)
    answer.sent += bytes
    if (this.#frames.blocked) this.blockedSince ??= this.#components.clock.monotonic()
    this.#share(answer, bytes)
    if (answer.sent === answer.bytes.length) {
      this.#remove(answer)
      this.#letPass()
      this.#advance()
    }
    return bytes
  }

  /** Those that can wait are the last ones, but for one that has begun or is due. */
  #share (sent: Answer, bytes: number): void {
    if (sent.later) {
      if (!this.later) this.#laterCredit -= bytes
    } else if (this.#answers.at(-1)?.later === true) {
      this.#laterCredit = Math.min(BLOCK_BYTES_MAX, this.#laterCredit + bytes * LATER_SHARE)
    }
  }

  /** Puts what can wait first when its share has come: behind an endless load it would never be sent, and its asker take this node for dead. */
  #letPass (): void {
    if (this.#laterCredit <= 0 || this.#answers[0]?.later !== false || this.#answers.at(-1)?.later !== true || !this.#hooks.laterMay()) return
    const at = this.#answers.findIndex(({ later }) => later)
    for (const answer of this.#answers.splice(at, 1)) {
      answer.due = true
      this.#answers.unshift(answer)
    }
  }

  /** Metadata lies in memory of the store's, which must stay as it is. */
  #sendCopy ({ id, sent }: Answer, source: Uint8Array): number {
    const { frames, bytes } = packData(DATA, id, source, sent, this.#frames.shape, length => this.#frames.allocate(length))
    this.#frames.send(frames)
    return bytes
  }

  /**
   * Gives a slot back for somebody who waits, and says whether it did: one read ahead, or one whose reader is slow. `from` a peer that
   * holds more than who waits also one that it has had for long, and 'any' when that is more than its share.
   */
  giveUpSlot (now: number, from: 'itself' | 'more' | 'any'): boolean {
    const ahead = this.#answers.findLast((answer, at) => at > 0 && answer.state === 'ready')
    if (ahead !== undefined) { this.#unread(ahead); return true }
    const first = this.#answers[0]
    if (first?.state !== 'ready') return false
    const isBlocked = this.blockedSince !== undefined && now - this.blockedSince >= SLOT_PATIENCE_MS
    if (!isBlocked && (from === 'itself' || (from === 'more' && now - first.slotAt < SLOT_TURN_MS))) return false
    first.evicted = true
    this.#unread(first)
    this.#advance() // waits for its next turn, unless it is blocked
    return true
  }

  /** Ends it if its reader has taken nothing for `timeoutMs`. */
  checkStalled (now: number, timeoutMs: number): void {
    if (this.blockedSince === undefined || now - this.blockedSince < timeoutMs) return
    const error = new PeerTimeoutError(`${this.peerId} asked for bytes and took none of them for ${timeoutMs} ms`)
    this.abort(error)
    this.#hooks.closed(this, error)
  }

  abort (error: Error): void {
    if (this.#closed) return
    this.#frames.abort(error)
    this.#forget()
  }

  #requested (wanted: WantedBlock[], later: boolean): void {
    const { store } = this.#components
    const refused: number[] = []
    for (const { id, cid } of wanted) {
      if (id <= this.#lastId) throw new ProtocolError(`request ids rise: ${id} after ${this.#lastId}`)
      this.#lastId = id
      const isMetadata = cid.code === DAG_CBOR
      const location = isMetadata ? undefined : store.findBlock(cid)
      if (isMetadata ? !store.hasMetadata(cid) : location === undefined) { refused.push(id); continue }
      const answer: Answer = { id, cid, location, later, state: 'queued', slot: undefined, slotAt: 0, bytes: NOTHING, sent: 0, headSent: false, due: false, evicted: false, dropped: false, giveUpWaiting: () => undefined }
      // What somebody waits for passes what can wait and has not begun: all loads of a peer come over one stream.
      const at = later ? -1 : this.#answers.findIndex(other => other.later && !other.headSent && !other.due)
      if (at < 0) this.#answers.push(answer)
      else this.#answers.splice(at, 0, answer)
    }
    this.#refuse(refused)
    if (this.#answers.length > this.#requestsMax) this.#hold()
    this.#advance()
  }

  #cancelled (ids: number[]): void {
    this.#bill(ids.length) // those that cross with their end as well: each is looked for
    const ended: number[] = []
    for (const id of ids) {
      const answer = this.#answers.find(open => open.id === id)
      if (answer === undefined) continue // its end and the cancel crossed
      this.#remove(answer)
      ended.push(id)
    }
    this.#tellIds(CANCELLED, ended)
    this.#advance()
  }

  #refuse (ids: number[]): void {
    if (ids.length === 0) return
    this.#bill(ids.length)
    this.#tellIds(NOT_HERE, ids)
  }

  #bill (ids: number): void {
    const now = this.#components.clock.monotonic()
    this.#useless.take(ids, now)
    if (this.#useless.waitMs(now) > 0) throw new ProtocolError('a flood of requests for what is not here, or of cancels')
  }

  #tellIds (type: number, ids: number[]): void {
    if (ids.length === 0) return
    const frames = joinFrames(encodeIds(type, ids))
    if (this.#frames.send(frames)) return
    this.#refusalBytes += frames.length
    this.blockedSince ??= this.#components.clock.monotonic()
    if (this.#refusalBytes > REFUSAL_BYTES_MAX) this.#hold()
  }

  /** Puts the next answers to work. */
  #advance (): void {
    if (this.#closed) return
    if (this.#held && this.#answers.length <= this.#requestsMax / 2 && this.#refusalBytes === 0) {
      this.#held = false
      this.#frames.resume()
    }
    this.#settleWant()
    const first = this.#answers[0]
    if (first?.state === 'queued' && !(first.evicted && this.#frames.blocked)) this.#start(first)
    this.#readAhead()
    // Blocked by what was found too much for its link after it was sent: its patience begins, too.
    if (first?.state === 'ready' && this.#frames.blocked) this.blockedSince ??= this.#components.clock.monotonic()
    if (this.canSend) this.#hooks.ready(this)
  }

  /** The second, and of small ones some more: else each would wait for a turn of the disk, which metadata does not: it may be large, and is there at once. Never waits for a slot: who waits is first in its own line. */
  #readAhead (): void {
    let bytes = 0
    for (let at = 1; at <= AHEAD_MAX; at++) {
      const first = this.#answers[0]
      const answer = this.#answers[at]
      if (answer?.location === undefined) return
      bytes += answer.location.size
      const small = bytes <= AHEAD_BYTES_MAX
      if (!(first?.state === 'ready' || (first?.state === 'reading' && small)) || (at > 1 && !small)) return
      if (answer.state !== 'queued') continue
      const slot = this.#components.slots.tryAcquire()
      if (slot === undefined) return
      this.#read(answer, slot)
    }
  }

  #start (answer: Answer): void {
    answer.state = 'waiting'
    answer.giveUpWaiting = this.#components.slots.acquire(slot => {
      if (answer.dropped) this.#components.slots.release(slot)
      else this.#read(answer, slot)
    })
  }

  #read (answer: Answer, slot: Slot): void {
    const { store } = this.#components
    answer.state = 'reading'
    answer.slot = slot
    answer.slotAt = this.#components.clock.monotonic()
    if (answer.location === undefined) {
      this.#loaded(answer, this.#metadata(answer.cid))
      return
    }
    store.readBlock(answer.location, slot).then(found => {
      this.#loaded(answer, found ? slot.bytes : undefined)
    }, error => {
      this.#warn(answer.cid, error)
      this.#loaded(answer, undefined)
    })
  }

  /** Undefined when the catalog cannot be read: whoever calls this may be a timer, and has nobody to tell. */
  #metadata (cid: CID): Uint8Array | undefined {
    try {
      return this.#components.store.metadata(cid)
    } catch (error) {
      this.#warn(cid, error)
      return undefined
    }
  }

  #warn (cid: CID, error: unknown): void {
    this.#components.logger.warn({ cid: cid.toString(), error: asError(error).message }, 'what was asked for cannot be read to serve it')
  }

  #loaded (answer: Answer, bytes: Uint8Array | undefined): void {
    if (answer.dropped) { this.#releaseSlot(answer); return }
    if (bytes === undefined || bytes.length <= answer.sent) {
      answer.state = 'queued' // the read is over: the slot goes back with the answer
      this.#remove(answer)
      try {
        this.#refuse([answer.id])
      } catch (error) {
        this.abort(asError(error))
        this.#hooks.closed(this, asError(error))
      }
    } else {
      answer.state = 'ready'
      answer.bytes = bytes
    }
    this.#advance()
  }

  /** Back to only a name. */
  #unread (answer: Answer): void {
    answer.state = 'queued'
    answer.bytes = NOTHING
    this.#releaseSlot(answer)
  }

  #remove (answer: Answer): void {
    const at = this.#answers.indexOf(answer)
    if (at >= 0) this.#answers.splice(at, 1)
    answer.dropped = true
    answer.giveUpWaiting()
    if (answer.state === 'reading') return // who reads into the slot gives it back
    this.#releaseSlot(answer)
  }

  #releaseSlot (answer: Answer): void {
    const { slot } = answer
    answer.slot = undefined
    if (slot !== undefined) this.#components.slots.release(slot)
  }

  /** One who has lost its slot and cannot send has no use for another. */
  #settleWant (): void {
    const first = this.#answers[0]
    const wants = !this.#closed && first !== undefined && !(first.evicted && first.state === 'queued' && this.#frames.blocked)
    if (wants === this.#wantsSlot) return
    this.#wantsSlot = wants
    this.#components.slots.want(wants)
  }

  #drained (): void {
    this.blockedSince = undefined
    this.#refusalBytes = 0
    this.#advance()
  }

  #hold (): void {
    this.#held = true
    this.#frames.hold()
  }

  #end (error: Error): void {
    if (this.#closed) return
    this.#forget()
    this.#hooks.closed(this, error)
  }

  #forget (): void {
    this.#closed = true
    for (const answer of this.#answers.slice()) this.#remove(answer)
    this.#settleWant()
  }
}
