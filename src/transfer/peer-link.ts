import { HashMismatchError, KiB, PeerGoneError, PeerTimeoutError, ProtocolError, type Clock } from '../base/index.ts'
import type { SlotPool } from '../storage/slots.ts'
import type { BlockChecks } from './block-checks.ts'
import { FramedBlockTransport, type BlockTransport, type BlockTransportHandler } from './block-transport.ts'
import type { OpenFrames } from './frame-stream.ts'
import { BlockReception, MetadataReception, type BlockJob, type FailReason, type MetadataJob, type Reception } from './reception.ts'

export interface PeerLinkComponents { slots: SlotPool, clock: Clock, checks?: BlockChecks | undefined }

export interface PeerLinkHooks {
  /** Block and metadata bytes came, wanted or not. Returns for how many milliseconds to take no more (a download cap). */
  received: (bytes: number) => number
  /** Ended from the other side, or PeerTimeoutError: it kept a slot that others waited for. ProtocolError and HashMismatchError are its fault. */
  closed: (error: Error) => void
  /** Slots that are free are for faster links than this one. */
  yields?: () => boolean
  /** It has sent wrong bytes, which was found out when the link had ended already. */
  wrong?: (error: HashMismatchError) => void
}

/** What came is reported after so many bytes or so long. */
const REPORT_BYTES = 128 * KiB
const REPORT_MS = 50
/** A slot that gets nothing for this long, like a peer that the scheduler takes for stalled, is given up when others wait for one; so is one that fills slower than this. */
const SLOT_IDLE_MS = 2_500
const SLOT_BYTES_PER_SECOND_MIN = 64 * KiB
const SLOT_JUDGED_AFTER_MS = 5_000
/** A part of a block shows after so long how fast it comes. */
const PACE_MS = 2_000
/** Smaller blocks say little of it. */
const PACE_BYTES_MIN = 256 * KiB

/** The way in from one peer: one transport, shared by all that fetch from this peer. */
export class PeerLink {
  readonly peerId: string
  /** When the peer last sent anything, in monotonic milliseconds. */
  heardAt: number
  /** Some answer has come whole. */
  delivered = false
  readonly #clock: Clock
  readonly #slots: SlotPool
  readonly #checks: BlockChecks | undefined
  readonly #hooks: PeerLinkHooks
  readonly #transport: BlockTransport
  readonly #open = new Map<number, Reception>()
  /** Blocks that are here and are being checked. They outlive the link. */
  readonly #checking = new Map<number, BlockReception>()
  #nextId = 1
  #holds = 0
  #cancelPause: (() => void) | undefined
  /** The block that comes now. `since`: when it began to come, later by what this side has not listened to it. */
  #filling: { id: number, reception: BlockReception, since: number } | undefined
  #heldAt = 0
  /** Bytes a millisecond of the last block that shows it. */
  #pace: number | undefined
  #unreported = 0
  #reportedAt = -Infinity
  #retired = false
  #closed = false

  constructor (peerId: string, open: OpenFrames, components: PeerLinkComponents, hooks: PeerLinkHooks) {
    this.peerId = peerId
    this.#clock = components.clock
    this.#slots = components.slots
    this.#checks = components.checks
    this.#hooks = hooks
    this.heardAt = this.#clock.monotonic()
    const handler: BlockTransportHandler = {
      head: (id, size) => { this.#heard(); this.#head(id, size) },
      data: (id, bytes, isLast) => { this.#data(id, bytes, isLast) },
      place: (id, bytes) => this.#open.get(id)?.place(bytes),
      notHere: id => { this.#heard(); this.#take(id)?.fail('not-here'); this.#closeIfOver() },
      cancelled: id => { this.#heard(); this.#take(id); this.#closeIfOver() },
      closed: error => { this.#end(error) }
    }
    this.#transport = new FramedBlockTransport(open, handler)
  }

  get closed (): boolean { return this.#closed }
  /** True while this side takes nothing in, for want of a slot or because of a download cap: the peer is not at fault. */
  get held (): boolean { return this.#holds > 0 }
  get open (): number { return this.#open.size }

  /** Returns the id to cancel by. A job on a closed link fails in a microtask. */
  requestBlock (job: BlockJob, later = false): number {
    const id = this.#nextId
    return this.#request(new BlockReception(job, {
      slots: this.#slots,
      yields: () => this.#hooks.yields?.() === true,
      checks: this.#checks,
      hold: () => { this.#hold() },
      resume: () => { this.#resume() },
      settle: done => { this.#transport.settle(done) },
      checked: error => {
        this.#checking.delete(id)
        if (error !== undefined) this.#wrong(error)
      }
    }), job.cid, later)
  }

  requestMetadata (job: MetadataJob): number {
    const id = this.#nextId
    return this.#request(new MetadataReception(job, () => { this.cancel(id) }), job.cid)
  }

  /** Its callbacks fall silent, but for `wasted`. */
  cancel (id: number): void {
    // What is here and only being checked is no less wanted because whoever sent it has gone.
    if (!this.#closed || this.#retired) this.#checking.get(id)?.discard()
    const reception = this.#open.get(id)
    if (reception === undefined) return
    if (this.#filling?.id === id) this.#filling = undefined
    reception.discard()
    this.#transport.cancel(id)
  }

  /** A block is on its way into a slot. */
  get filling (): boolean { return this.#filling?.reception.filling === true }

  /** Since when this side holds it for want of a slot; undefined while it does not. */
  get waitsSince (): number | undefined {
    return this.#holds > 0 && this.#filling?.reception.filling === false ? this.#heldAt : undefined
  }

  /** Bytes a millisecond while a block comes; undefined while that is not known. */
  pace (now: number): number | undefined {
    const filling = this.#filling
    const ageMs = filling === undefined || this.held ? 0 : now - filling.since
    return filling?.reception.filling === true && ageMs > PACE_MS ? filling.reception.filled / ageMs : this.#pace
  }

  /** Milliseconds until the slot that is being filled is full, for all that is known; 0 where nothing is. */
  slotMs (now: number): number {
    const pace = this.pace(now)
    return this.filling && pace !== undefined ? (this.#filling?.reception.left ?? 0) / pace : 0
  }

  /** Its slot is needed for a link that may be faster. */
  displace (): void {
    const filling = this.#filling
    if (filling?.reception.filling !== true) return
    this.#filling = undefined
    this.#free(filling.id, filling.reception, 'displaced')
  }

  /** Nothing more is asked for over it: it closes when what is open has come. */
  retire (): void {
    this.#retired = true
    this.#closeIfOver()
  }

  /** Others wait for a slot: give up the one that is being filled if its peer is very slow. Says whether it did. */
  giveUpSlowSlot (now: number): boolean {
    const filling = this.#filling
    if (this.held) return false
    const isIdle = now - this.heardAt > SLOT_IDLE_MS
    if (filling === undefined && this.#transport.lent && isIdle) {
      // Its request was cancelled since, and the slot waits for a last record that does not come.
      this.#giveUp()
      return true
    }
    if (filling?.reception.filling !== true) return false
    const ageMs = now - filling.since
    const isSlow = ageMs > SLOT_JUDGED_AFTER_MS && filling.reception.filled / ageMs * 1000 < SLOT_BYTES_PER_SECOND_MIN
    if (!isIdle && !isSlow) return false
    this.#filling = undefined
    this.#free(filling.id, filling.reception, 'slow')
    return true
  }

  #free (id: number, reception: BlockReception, reason: FailReason): void {
    reception.fail(reason)
    if (this.#transport.lent) this.#giveUp()
    else this.#transport.cancel(id)
  }

  /** A slot is where the lane's next bytes go: only the lane's end frees it. */
  #giveUp (): void {
    const error = new PeerTimeoutError(`${this.peerId} sent nothing for too long while others waited for its slot`)
    this.#transport.abort(error)
    this.#end(error)
  }

  /** Ends it from this side; what is open fails. */
  close (): void {
    if (this.#closed) return
    this.#transport.close()
    this.#fail()
  }

  abort (error: Error): void {
    if (this.#closed) return
    this.#retired = false
    this.#transport.abort(error)
    this.#fail()
  }

  #request (reception: Reception, cid: BlockJob['cid'], later = false): number {
    const id = this.#nextId++
    if (this.#closed) {
      queueMicrotask(() => { reception.fail('gone') })
      return id
    }
    if (this.#open.size === 0) this.#heard() // it owes nothing yet
    this.#open.set(id, reception)
    this.#transport.request(id, cid, later)
    return id
  }

  #head (id: number, size: number): void {
    const reception = this.#open.get(id)
    if (reception === undefined) return
    if (reception instanceof BlockReception) this.#filling = { id, reception, since: this.heardAt }
    reception.head(size)
  }

  #data (id: number, bytes: Uint8Array, isLast: boolean): void {
    this.#heard()
    this.#unreported += bytes.length
    if (isLast || this.#unreported >= REPORT_BYTES || this.heardAt - this.#reportedAt > REPORT_MS) this.#report()
    try {
      this.#open.get(id)?.data(bytes, isLast, this.heardAt)
      if (isLast) this.delivered = true
    } finally {
      // Not before: whoever is told of the last bytes may cancel it, too.
      const reception = isLast ? this.#take(id) : undefined
      if (reception instanceof BlockReception && reception.checking) this.#checking.set(id, reception)
    }
    if (isLast) this.#closeIfOver()
  }

  #closeIfOver (): void {
    if (this.#retired && this.#open.size === 0) this.close()
  }

  /** Bytes come in pieces of 16 KiB, which is too often to keep books of each. */
  #report (): void {
    const pauseMs = this.#hooks.received(this.#unreported)
    this.#unreported = 0
    this.#reportedAt = this.heardAt
    if (pauseMs > 0) this.#pause(pauseMs)
  }

  #take (id: number): Reception | undefined {
    const reception = this.#open.get(id)
    this.#open.delete(id)
    if (this.#filling?.id === id) {
      const { reception, since } = this.#filling
      if (reception.left === 0 && reception.size >= PACE_BYTES_MIN) this.#pace = reception.size / Math.max(1, this.heardAt - since)
      this.#filling = undefined
    }
    return reception
  }

  #heard (): void { this.heardAt = this.#clock.monotonic() }

  #hold (): void {
    if (this.#holds++ > 0) return
    this.#heldAt = this.#clock.monotonic()
    if (!this.#closed) this.#transport.hold()
  }

  #resume (): void {
    // The time that it was held is not the peer's.
    this.#heard()
    if (--this.#holds > 0) return
    if (this.#filling !== undefined) this.#filling.since += this.heardAt - Math.max(this.#heldAt, this.#filling.since)
    if (!this.#closed) this.#transport.resume()
  }

  #pause (ms: number): void {
    if (this.#cancelPause !== undefined || this.#closed) return
    this.#hold()
    this.#cancelPause = this.#clock.setTimeout(() => { this.#cancelPause = undefined; this.#resume() }, ms)
  }

  #wrong (error: HashMismatchError): void {
    if (this.#closed) { this.#hooks.wrong?.(error); return }
    this.#transport.abort(error)
    this.#end(error)
  }

  #end (error: Error): void {
    if (this.#closed) return
    this.#retired = false
    this.#fail()
    const isKnown = error instanceof ProtocolError || error instanceof HashMismatchError || error instanceof PeerTimeoutError
    this.#hooks.closed(isKnown ? error : new PeerGoneError(error.message, { cause: error }))
  }

  #fail (): void {
    this.#closed = true
    this.#cancelPause?.()
    this.#filling = undefined
    const open = [...this.#open.values()]
    this.#open.clear()
    for (const reception of open) reception.fail('gone')
  }
}
