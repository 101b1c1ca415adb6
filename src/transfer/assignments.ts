import { BLOCK_BYTES_MAX } from '../base/index.ts'
import { ASSUMED_RATE, WAIT_MS_MAX } from './relief.ts'
import type { Assignment, SchedulerPeer } from './scheduler-peer.ts'

/** Of all wanted bytes, so much may be fetched twice to end sooner, or one block; stalled peers are replaced beyond that too. */
const DUPLICATE_SHARE = 0.005
/** Peers that one block is asked for from, when one after the other stalls or crawls. */
const FETCHERS_MAX = 4

/** Who was asked for what, all peers together, and what of it was in vain. */
export class Assignments {
  readonly #byBlock = new Map<number, Assignment[]>()
  #owed = 0
  #wastedBytes = 0
  /** What of it stalled peers had sent. */
  #stalledBytes = 0

  /** Blocks that somebody was asked for. */
  get size (): number { return this.#byBlock.size }
  /** Bytes that were asked for and have not come. */
  get owed (): number { return this.#owed }

  of (block: number): readonly Assignment[] { return this.#byBlock.get(block) ?? [] }

  add (peer: SchedulerPeer, block: number, size: number, now: number): void {
    const assignment = peer.assign(block, size, now)
    this.#owed += size
    const assignments = this.#byBlock.get(block)
    if (assignments === undefined) this.#byBlock.set(block, [assignment])
    else assignments.push(assignment)
  }

  drop (assignment: Assignment): void {
    const { peer, block } = assignment
    peer.unassign(assignment)
    this.#owed -= assignment.size - assignment.received
    const others = this.of(block).filter(other => other !== assignment)
    if (others.length > 0) this.#byBlock.set(block, others)
    else this.#byBlock.delete(block)
  }

  receive (assignment: Assignment, bytes: number, now: number): void {
    assignment.peer.receive(assignment, bytes, now)
    this.#owed -= bytes
  }

  /** One peer is at it, or several none of which will be done soon. `isProven`: the one who would help has delivered before; the others may all have been tries. */
  needsHelp (block: number, now: number, isProven = false): boolean {
    const assignments = this.of(block)
    if (assignments.length <= 1 || assignments.length >= (isProven ? 2 : 1) * FETCHERS_MAX) return assignments.length === 1
    return assignments.every(assignment => assignment.peer.etaOfMs(assignment.peer.queue.indexOf(assignment), now, ASSUMED_RATE) > WAIT_MS_MAX)
  }

  /** What came for an assignment that is taken back, `stalled` if its peer had stopped sending. */
  waste (bytes: number, stalled: boolean): void {
    this.#wastedBytes += bytes
    if (stalled) this.#stalledBytes += bytes
  }

  /**
   * May so much of what comes be thrown away, if that brings a block `savedMs` sooner? A load that waits for its last blocks for
   * longer than WAIT_MS_MAX seems to hang: that is worth a block more, of models so small that one block is all that may come twice
   * too, within one percent; and what stalled peers had sent is not held against it.
   */
  mayWaste (bytes: number, savedMs: number, wantedBytes: number): boolean {
    const share = wantedBytes * DUPLICATE_SHARE
    const ordinary = Math.max(share, BLOCK_BYTES_MAX)
    return savedMs > WAIT_MS_MAX
      ? this.#wastedBytes - this.#stalledBytes + bytes <= Math.min(ordinary, 2 * share) + BLOCK_BYTES_MAX
      : this.#wastedBytes + bytes <= ordinary
  }
}
