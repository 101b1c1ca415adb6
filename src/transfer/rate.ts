import { DOUBLE_ZERO } from '../base/index.ts'

/** Memory of a rate: after this long, what was before counts for a third. */
const MEMORY_MS = 2_000
/** Less time than this is added to the next. */
const STEP_MS = 1

/**
 * Bytes per second, lately: an average whose weights fade exponentially. Right from the first second on, because it is
 * divided by the weight that there was time to gather.
 */
export class RateMeter {
  #weighted = DOUBLE_ZERO
  #weight = DOUBLE_ZERO
  #at: number
  #total = DOUBLE_ZERO

  constructor (now: number) { this.#at = now }

  get total (): number { return this.#total + 0 }

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
    if (elapsed < STEP_MS) return
    this.#at = now
    const factor = Math.exp(-elapsed / MEMORY_MS)
    this.#weighted *= factor
    this.#weight = this.#weight * factor + MEMORY_MS * (1 - factor)
  }
}

/** A cap that holds between two times of the day, the host's own; `from` after `to` runs over midnight. */
export interface RateWindow {
  /** Minutes since midnight, 0 to 1,440. */
  from: number
  to: number
  bytesPerSecond: number
}

/** The least of the caps that hold at `now` (milliseconds since 1970); undefined when none does. */
export function rateAt (windows: readonly RateWindow[], now: number): number | undefined {
  if (windows.length === 0) return undefined
  const time = new Date(now)
  const minute = time.getHours() * 60 + time.getMinutes()
  const rates = windows.filter(({ from, to }) => from <= to ? minute >= from && minute < to : minute >= from || minute < to)
  return rates.length === 0 ? undefined : Math.min(...rates.map(({ bytesPerSecond }) => bytesPerSecond))
}

/** Lets through `perSecond` on average. Taking may run into debt, so that no one waits for a sum to be saved up. */
export class TokenBucket {
  #perMs: number
  readonly #burst: number
  #tokens: number
  #at: number

  constructor (perSecond: number, burst: number, now: number) {
    this.#perMs = perSecond / 1000
    this.#burst = burst
    this.#tokens = burst
    this.#at = now
  }

  /** From `now` on. */
  setRate (perSecond: number, now: number): void {
    this.#fill(now)
    this.#perMs = perSecond / 1000
  }

  /** How long until something may be taken, in milliseconds; 0 when it may be now. */
  waitMs (now: number): number {
    this.#fill(now)
    return this.#tokens > 0 ? 0 : Math.ceil(-this.#tokens / this.#perMs) + 1
  }

  /** As if nothing had been taken. */
  isFull (now: number): boolean {
    this.#fill(now)
    return this.#tokens === this.#burst
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
