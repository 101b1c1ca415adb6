import { createHmac } from 'node:crypto'
import { UPSTREAM_ANSWERS_KNOWN_MAX, type Clock, type Random } from '../base/index.ts'
import type { Caller } from './types.ts'

interface Kept<T> { answer: Promise<T>, at: number, settled: boolean }

/**
 * Answers of the upstream to callers, for a while: those who ask together share one request. A token is not kept, only what
 * tells it from others while this process lives.
 */
export class Answers<T> {
  readonly #clock: Clock
  readonly #secret: Uint8Array
  readonly #kept = new Map<string, Kept<T>>()

  constructor ({ clock, random }: { clock: Clock, random: Random }) {
    this.#clock = clock
    this.#secret = random.bytes(32)
  }

  /** A failure is shared by those who wait for it, and not kept. */
  async get (caller: Caller, what: string, freshMs: number, ask: () => Promise<T>): Promise<T> {
    const key = this.#keyOf(caller, what)
    const known = this.#kept.get(key)
    if (known !== undefined && (!known.settled || this.#clock.monotonic() - known.at < freshMs)) return await known.answer
    const kept: Kept<T> = { answer: ask(), at: this.#clock.monotonic(), settled: false }
    this.#kept.delete(key)
    this.#kept.set(key, kept)
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= UPSTREAM_ANSWERS_KNOWN_MAX) break
      this.#kept.delete(oldest)
    }
    try {
      const answer = await kept.answer
      kept.settled = true
      kept.at = this.#clock.monotonic()
      return answer
    } catch (error) {
      if (this.#kept.get(key) !== kept) throw error
      // What it said before is all there is while it says nothing.
      if (known?.settled === true) this.#kept.set(key, known)
      else this.#kept.delete(key)
      throw error
    }
  }

  /** The last good answer, however old. */
  async last (caller: Caller, what: string): Promise<T | undefined> {
    const kept = this.#kept.get(this.#keyOf(caller, what))
    return kept?.settled === true ? await kept.answer : undefined
  }

  forget (caller: Caller, what: string): void {
    this.#kept.delete(this.#keyOf(caller, what))
  }

  #keyOf ({ token }: Caller, what: string): string {
    return `${createHmac('sha256', this.#secret).update(token ?? '').digest('base64url')} ${what}`
  }
}
