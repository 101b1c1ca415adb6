import { REPLICA_PROOFS_ASKED_MAX } from '../base/index.ts'

/** Shards in one challenge: 64 x 64 KiB to read. */
export const CHALLENGE_SHARDS_MAX = 64
const SHARDS_MAX = REPLICA_PROOFS_ASKED_MAX * CHALLENGE_SHARDS_MAX
/** Whoever has just started, and has nothing of its disk in memory, is asked for so many at first: a hard disk reads them for a dozen others within the time of an answer. */
const SHARDS_FIRST = 16

/**
 * How many shards one peer is asked for at a time, by how it answers: one more for each that it showed in time, half as many after each answer that was late.
 * A slow disk that is asked for more than it can read answers everything late, and in the end nothing in time to count. It answers in the order
 * in which it was asked: what comes after an answer is still to come, what comes before was lost.
 */
export class ProofPace {
  /** The life of the peer that is asked. */
  readonly life: string
  #shardsMax = SHARDS_FIRST
  #challenges = 0
  #shards = 0
  #sent = 0
  #answered = 0
  #answeredAt = -Infinity
  #missedAt = -Infinity
  #muteSince: number | undefined

  constructor (life: string) {
    this.life = life
  }

  /** So many shards may be asked for now. */
  get room (): number { return this.#challenges >= REPLICA_PROOFS_ASKED_MAX ? 0 : Math.max(0, this.#shardsMax - this.#shards) }

  /** Says the number of the challenge. */
  asked (shards: number): number {
    this.#challenges++
    this.#shards += shards
    return ++this.#sent
  }

  /** The challenge is over, or nobody waits for its answer any more. */
  ended (shards: number): void {
    this.#challenges--
    this.#shards -= shards
  }

  answered ({ number, shards, isLate }: { number: number, shards: number, isLate: boolean }, now: number): void {
    this.#answered = Math.max(this.#answered, number)
    this.#answeredAt = now
    this.#missedAt = -Infinity
    this.#muteSince = undefined
    if (!isLate) this.#shardsMax = Math.min(SHARDS_MAX, this.#shardsMax + shards)
  }

  late (): void { this.#shardsMax = Math.max(1, Math.floor(this.#shardsMax / 2)) }

  /** It has answered something since then that it was asked before this. */
  isOnIt (number: number, since: number): boolean { return this.#answeredAt > since && this.#answered < number }

  /** An answer is given up: with the second in a row, asked for after the first was given up, it answers nothing. */
  missed ({ number, sentAt }: { number: number, sentAt: number }, aliveSince: number, now: number): void {
    // That one was lost; or it is on its way, and for too long.
    if (this.#answered > number || this.isOnIt(number, sentAt)) return
    if (this.#missedAt < aliveSince || this.#missedAt === -Infinity) this.#missedAt = now
    else if (sentAt >= this.#missedAt) this.#muteSince ??= now
  }

  /** It is up, and answers nothing. */
  isMute (aliveSince: number): boolean { return this.#muteSince !== undefined && this.#muteSince >= aliveSince }
}
