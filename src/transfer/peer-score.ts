/** What a peer did, as far as its score cares. */
export type PeerFault = 'timeout' | 'gone' | 'not-here'

/** What is left of a score after each fault. A timeout cost the load seconds; a wrong claim only a round trip. */
const LEFT_AFTER: Record<PeerFault, number> = { timeout: 0.4, gone: 0.7, 'not-here': 0.95 }
/** Of what is missing to 1, each good block gives back this part, and each half life without faults half. */
const GOOD_BLOCK = 0.1
const HALF_LIFE_MS = 60_000

/**
 * How far a peer can be relied on, from 0 to 1. Pure: time is an argument. Speed is not part of it; the scheduler
 * multiplies the two.
 */
export class PeerScore {
  #missing = 0
  #at: number

  constructor (now: number) { this.#at = now }

  value (now: number): number {
    this.#recover(now)
    return 1 - this.#missing
  }

  good (now: number): void {
    this.#recover(now)
    this.#missing *= 1 - GOOD_BLOCK
  }

  fault (fault: PeerFault, now: number): void {
    this.#recover(now)
    this.#missing = 1 - (1 - this.#missing) * LEFT_AFTER[fault]
  }

  #recover (now: number): void {
    const elapsed = now - this.#at
    if (elapsed <= 0) return
    this.#at = now
    this.#missing *= 0.5 ** (elapsed / HALF_LIFE_MS)
  }
}
