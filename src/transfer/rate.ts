/** Memory of a rate: after this long, what was before counts for a third. */
const MEMORY_MS = 2_000

/**
 * Bytes per second, lately: an average whose weights fade exponentially. Right from the first second on, because it is
 * divided by the weight that there was time to gather.
 */
export class RateMeter {
  #weighted = 0
  #weight = 0
  #at: number
  #total = 0

  constructor (now: number) { this.#at = now }

  get total (): number { return this.#total }

  add (bytes: number, now: number): void {
    this.#fade(now)
    this.#weighted += bytes
    this.#total += bytes
  }

  /** Lets time go by that does not count: nobody asked for anything. */
  skip (now: number): void { this.#at = Math.max(this.#at, now) }

  rate (now: number): number {
    this.#fade(now)
    return this.#weight > 0 ? this.#weighted / this.#weight * 1000 : 0
  }

  #fade (now: number): void {
    const elapsed = now - this.#at
    if (elapsed <= 0) return
    this.#at = now
    const factor = Math.exp(-elapsed / MEMORY_MS)
    this.#weighted *= factor
    this.#weight = this.#weight * factor + MEMORY_MS * (1 - factor)
  }
}

/** Lets through `perSecond` on average. Taking may run into debt, so that no one waits for a sum to be saved up. */
export class TokenBucket {
  readonly #perMs: number
  readonly #burst: number
  #tokens: number
  #at: number

  constructor (perSecond: number, burst: number, now: number) {
    this.#perMs = perSecond / 1000
    this.#burst = burst
    this.#tokens = burst
    this.#at = now
  }

  /** How long until something may be taken, in milliseconds; 0 when it may be now. */
  waitMs (now: number): number {
    this.#fill(now)
    return this.#tokens > 0 ? 0 : Math.ceil(-this.#tokens / this.#perMs) + 1
  }

  take (amount: number, now: number): void {
    this.#fill(now)
    this.#tokens -= amount
  }

  #fill (now: number): void {
    if (now <= this.#at) return
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) * this.#perMs)
    this.#at = now
  }
}
