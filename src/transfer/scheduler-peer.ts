import { BLOCK_BYTES_MAX, KiB, PEER_BYTES_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_MAX } from '../base/index.ts'
import { RateMeter } from './rate.ts'
import { BlockSet } from './rarity.ts'

/** A block that a peer was asked for. */
export interface Assignment {
  readonly peer: SchedulerPeer
  readonly block: number
  readonly size: number
  received: number
  readonly askedAt: number
  /** When its bytes began to come: taking it back costs some from then on. */
  startedAt: number | undefined
}

/** Two blocks: one on its way and one behind it. */
const FIRST_WINDOW = 2 * BLOCK_BYTES_MAX
/** What a peer owes is worth this much of its time: long enough to never run dry, short enough to change plans. */
const PIPELINE_MS = 1_000
/** Bytes come in pieces of about this size; a peer that misses several is stalled. */
const PIECE_BYTES = 256 * KiB
/** A block that has been on its way for this long shows how fast it comes, but for a piece that may be about to. */
const PACE_MS = 300
/** A queue of so many is filled up when a quarter of it has come, not a block at a time: each request is a message, and a turn of both sides. */
const LONG_QUEUE = 8
const STALL_MS_MIN = 1_000
const STALL_MS_MAX = 2_500
/** Whoever is heard of, and has begun none of what it owes for so long, is as good as silent: it may send to others, or bytes that nobody asked for. */
const MUTE_MS = 30_000
/** A peer that lost a block by stalling is asked again after so long at the earliest, if others can be; twice as long each time. */
const DOUBT_MS_MIN = 5_000
const DOUBT_MS_MAX = 20_000

/** One peer as the scheduler sees it: what it has, what it owes, and how fast it is. */
export class SchedulerPeer {
  readonly id: number
  /** For sharing work out among those who load; the same on every node. */
  readonly hash: number
  readonly blocks: BlockSet
  /** What it was asked for, in order. */
  readonly queue: Assignment[] = []
  /** Bytes of `queue` that have not come. */
  owed = 0
  score = 1
  heardAt: number
  /** When it last owed something, or sent some of what it owed. */
  idleSince: number
  /** The block it was last asked for; -1 before the first. */
  lastAsked = -1
  /** When it last got a block, or came. */
  gainedAt: number
  #window = FIRST_WINDOW
  #doubtMs = 0
  #doubtedUntil = -Infinity
  readonly #meter: RateMeter

  constructor (id: number, hash: number, blockCount: number, now: number) {
    this.id = id
    this.hash = hash
    this.blocks = new BlockSet(blockCount)
    this.heardAt = now
    this.idleSince = now
    this.gainedAt = now
    this.#meter = new RateMeter(now)
  }

  get idle (): boolean { return this.queue.length === 0 }

  /** Bytes per second while it owed something, weighed by its score; undefined while nothing is known. */
  rate (now: number): number | undefined {
    if (this.idle) this.#meter.skip(now)
    const rate = this.#meter.rate(now)
    return rate > 0 ? rate * this.score : undefined
  }

  /** May it be asked for one block more? */
  hasRoom (now: number): boolean {
    if (this.idle) return true
    if (this.queue.length >= REQUESTS_IN_FLIGHT_MAX || this.owed + BLOCK_BYTES_MAX > PEER_BYTES_IN_FLIGHT_MAX) return false
    return this.owed < this.#owedMax(now)
  }

  /** Is it time to fill its queue up? */
  runsLow (now: number): boolean {
    if (this.queue.length < LONG_QUEUE) return true
    return this.queue.length <= REQUESTS_IN_FLIGHT_MAX * 3 / 4 && this.owed <= Math.min(this.#owedMax(now), PEER_BYTES_IN_FLIGHT_MAX) * 3 / 4
  }

  #owedMax (now: number): number {
    const rate = this.rate(now)
    return rate === undefined ? this.#window : Math.min(this.#window, rate * PIPELINE_MS / 1000)
  }

  /** Owes something and has sent nothing for several times as long as the next piece should take. */
  stalled (now: number): boolean {
    if (this.idle) return false
    const rate = this.rate(now)
    const pieces = rate === undefined || rate <= 0 ? STALL_MS_MAX : 4 * PIECE_BYTES / rate * 1000
    return now - this.heardAt > Math.min(STALL_MS_MAX, Math.max(STALL_MS_MIN, pieces))
  }

  /** For how long it could have begun with the first that it owes, and has not; 0 when it has. */
  #unbegunMs (now: number): number {
    const [current] = this.queue
    return current === undefined || current.startedAt !== undefined ? 0 : now - Math.max(current.askedAt, this.idleSince)
  }

  /** It owes, and there is no sign that it will ever send it. */
  mute (now: number): boolean { return this.#unbegunMs(now) > MUTE_MS }

  /** This side took nothing in until `now`: no time of the peer's. */
  deaf (now: number): void {
    this.heardAt = Math.max(this.heardAt, now)
    this.idleSince = Math.max(this.idleSince, now)
  }

  /** It stalled lately, and nothing has come of it since: asked while idle, it would look as good as new. */
  doubtful (now: number): boolean { return now < this.#doubtedUntil }

  /** Nothing has come of it since it stalled, however long ago that is. */
  get suspect (): boolean { return this.#doubtMs > 0 }

  /** A block was taken back from it while it was stalled. */
  doubt (now: number): void {
    if (this.doubtful(now)) return
    this.#doubtMs = Math.min(DOUBT_MS_MAX, Math.max(DOUBT_MS_MIN, this.#doubtMs * 2))
    this.#doubtedUntil = now + this.#doubtMs
  }

  /** Bytes of it have come, or are on their way for all that is known: it is next in the queue of a peer that has not stalled. Taking it back costs. */
  begun (assignment: Assignment, now: number): boolean {
    return assignment.startedAt !== undefined || (this.queue[0] === assignment && !this.stalled(now))
  }

  /** Milliseconds until it has delivered what it owes and `extra` bytes more; `assumed` is its rate while unknown. */
  etaMs (extra: number, now: number, assumed: number): number {
    return this.#msFor(this.owed + extra, now, assumed)
  }

  /** Milliseconds until the assignment at `index` of its queue is delivered. */
  etaOfMs (index: number, now: number, assumed: number): number {
    let bytes = 0
    for (let i = 0; i <= index; i++) bytes += (this.queue[i]?.size ?? 0) - (this.queue[i]?.received ?? 0)
    return this.#msFor(bytes, now, assumed)
  }

  /** An average remembers better days: what the block on its way shows counts if it is slower, and so does one that does not begin, whatever else is heard of its peer. */
  #msFor (bytes: number, now: number, assumed: number): number {
    if (this.stalled(now)) return Infinity
    let rate = this.rate(now) ?? assumed
    const [current] = this.queue
    if (current?.startedAt !== undefined && now - current.startedAt >= PACE_MS) {
      rate = Math.min(rate, (current.received + PIECE_BYTES) / (now - current.startedAt) * 1000)
    }
    const unbegunMs = this.#unbegunMs(now)
    if (unbegunMs > STALL_MS_MAX) rate = Math.min(rate, PIECE_BYTES / unbegunMs * 1000)
    return rate > 0 ? bytes / rate * 1000 : Infinity
  }

  assign (block: number, size: number, now: number): Assignment {
    if (this.idle) { this.#meter.skip(now); this.heardAt = now }
    const assignment: Assignment = { peer: this, block, size, received: 0, askedAt: now, startedAt: undefined }
    this.queue.push(assignment)
    this.owed += size
    return assignment
  }

  unassign (assignment: Assignment): void {
    const at = this.queue.indexOf(assignment)
    if (at < 0) return
    this.queue.splice(at, 1)
    this.owed -= assignment.size - assignment.received
  }

  find (block: number): Assignment | undefined {
    return this.queue.find(assignment => assignment.block === block)
  }

  receive (assignment: Assignment, bytes: number, now: number): void {
    assignment.startedAt ??= now
    assignment.received += bytes
    this.owed -= bytes
    this.heardAt = now
    this.idleSince = now
    this.#doubtMs = 0
    this.#doubtedUntil = -Infinity
    this.#meter.add(bytes, now)
  }

  /** Slow start: each block delivered lets one more be owed, until the rate is the limit. */
  delivered (size: number): void {
    this.#window = Math.min(this.#window + size, PEER_BYTES_IN_FLIGHT_MAX)
  }
}
