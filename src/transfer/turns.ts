import { LOAD_PEERS_WAITING_MAX } from '../base/index.ts'

/** Over so long a peer's rate is measured, and so often at most a place changes hands. */
export const TURN_MS = 10_000
/** Trying who was no better than the one before costs what that one had under way: the time to the next try doubles, up to this. */
const PAUSE_MS_MAX = 60_000
/** So many times as fast is better; what is less may be chance. */
const MUCH_FASTER = 2

export interface Seated {
  readonly peerId: string
  /** Bytes that came of what it was asked for since it has its place. */
  readonly receivedBytes: number
}

export interface Change { out: string, in: string }

/**
 * Who gives up its place in a load to somebody who waits for one: whoever trickles right bytes would keep it for ever, and fast peers
 * would never be tried. Pure: time is an argument.
 *
 * Who lags behind the others makes way for somebody who has had no place yet. Where nobody lags all may be slow: the slowest makes way
 * all the same, but after a try that brought nothing the next one waits for longer, so that equals are left in peace. Each is tried
 * once; after that it comes back when it was much faster than one that has a place.
 */
export class Turns {
  /** Bytes a second, when last measured, of those that have or had a place. */
  readonly #rates = new Map<string, number>()
  /** Since when, and from how many bytes on, those that have a place are measured. */
  readonly #marks = new Map<string, { receivedBytes: number, at: number }>()
  #dueAt = -Infinity
  #tryAt = -Infinity
  #pauseMs = TURN_MS
  /** Who was tried last, and the rate of whom it replaced. */
  #trial: { peerId: string, rate: number } | undefined

  seated (peerId: string, now: number): void {
    this.#marks.set(peerId, { receivedBytes: 0, at: now })
    const rate = this.#rates.get(peerId) ?? 0
    this.#rates.delete(peerId)
    for (const oldest of this.#rates.keys()) {
      if (this.#rates.size < LOAD_PEERS_WAITING_MAX) break
      this.#rates.delete(oldest)
    }
    this.#rates.set(peerId, rate)
  }

  left (peerId: string): void { this.#marks.delete(peerId) }

  due (now: number): boolean { return now >= this.#dueAt }

  /** To be asked when due, all places being taken. `waiting` may be tried now. */
  next (seated: Iterable<Seated>, waiting: string[], now: number): Change | undefined {
    this.#dueAt = now + TURN_MS
    const measured = this.#measure(seated, now)
    const [slowest, ...others] = measured.sort((a, b) => a.rate - b.rate)
    const trial = measured.find(({ peerId }) => peerId === this.#trial?.peerId)
    if (trial !== undefined && this.#trial !== undefined) {
      if (trial.rate > this.#trial.rate * MUCH_FASTER) {
        this.#pauseMs = TURN_MS
        this.#tryAt = now
      }
      this.#trial = undefined
    }
    if (slowest === undefined) return undefined
    const returning = this.#best(waiting)
    if (returning !== undefined && returning.rate > slowest.rate * MUCH_FASTER) return { out: slowest.peerId, in: returning.peerId }
    const untried = waiting.find(peerId => !this.#rates.has(peerId))
    if (untried === undefined) return undefined
    const middle = others[others.length >> 1]
    const lags = middle !== undefined && slowest.rate * MUCH_FASTER < middle.rate
    if (!lags) {
      if (now < this.#tryAt) return undefined
      this.#trial = { peerId: untried, rate: slowest.rate }
      this.#tryAt = now + this.#pauseMs
      this.#pauseMs = Math.min(this.#pauseMs * 2, PAUSE_MS_MAX)
    }
    return { out: slowest.peerId, in: untried }
  }

  /** Who has not had its place for long enough is left out. */
  #measure (seated: Iterable<Seated>, now: number): Array<{ peerId: string, rate: number }> {
    const measured: Array<{ peerId: string, rate: number }> = []
    for (const { peerId, receivedBytes } of seated) {
      const mark = this.#marks.get(peerId)
      if (mark === undefined || now - mark.at < TURN_MS) continue
      const rate = (receivedBytes - mark.receivedBytes) / (now - mark.at) * 1000
      this.#rates.set(peerId, rate)
      this.#marks.set(peerId, { receivedBytes, at: now })
      measured.push({ peerId, rate })
    }
    return measured
  }

  /** The fastest of those that had a place before. */
  #best (waiting: string[]): { peerId: string, rate: number } | undefined {
    let best: { peerId: string, rate: number } | undefined
    for (const peerId of waiting) {
      const rate = this.#rates.get(peerId)
      if (rate !== undefined && (best === undefined || rate > best.rate)) best = { peerId, rate }
    }
    return best
  }
}
