import type { Clock } from '../base/index.ts'

/** What came in without an add stays so long for the model that is to name it. */
const ALONE_MS = 10 * 60_000

/** An add, from its start to its end. */
export class RunningAdd {
  /** Of the files that came in with it. */
  readonly keys = new Set<string>()
  /** What lies about was looked for, to make room for this one. */
  hasTidied = false
  readonly #end: (add: RunningAdd) => void

  constructor (end: (add: RunningAdd) => void) {
    this.#end = end
  }

  /** Nothing comes in with it any more. What no model names by now goes when there is need of its room. */
  end (): void { this.#end(this) }
}

/**
 * An add brings its files in one by one, and its model names them all at its end. Until then they stay: no leftovers, though no
 * model names them, and not removed with another model that does.
 */
export class RunningAdds {
  readonly #clock: Clock
  readonly #running = new Set<RunningAdd>()
  /** How many adds have brought a file, by key. */
  readonly #waiting = new Map<string, number>()
  /** When files came in without an add, each as often as it did; the latest last. */
  readonly #alone = new Map<string, number[]>()

  constructor (clock: Clock) {
    this.#clock = clock
  }

  start (): RunningAdd {
    const add = new RunningAdd(add => { this.#end(add) })
    this.#running.add(add)
    return add
  }

  cameIn (key: string, add: RunningAdd | undefined): void {
    if (add === undefined) {
      const times = [...this.#timesOf(key), this.#clock.monotonic()]
      this.#alone.delete(key)
      this.#alone.set(key, times)
      for (const earlier of this.#alone.keys()) if (this.#timesOf(earlier).length > 0) break
    } else if (this.#running.has(add) && !add.keys.has(key)) {
      add.keys.add(key)
      this.#waiting.set(key, (this.#waiting.get(key) ?? 0) + 1)
    }
  }

  /** A model names these: what came in without an add has its model. */
  named (keys: Iterable<string>): void {
    if (this.#alone.size === 0) return
    for (const key of keys) {
      const times = this.#timesOf(key).slice(1)
      if (times.length > 0) this.#alone.set(key, times)
      else this.#alone.delete(key)
    }
  }

  /** Whether a file has to stay. */
  has (key: string): boolean { return this.#waiting.has(key) || this.#timesOf(key).length > 0 }

  #timesOf (key: string): number[] {
    const times = this.#alone.get(key) ?? []
    const left = times.filter(time => this.#clock.monotonic() - time < ALONE_MS)
    if (left.length === 0) this.#alone.delete(key)
    return left
  }

  #end (add: RunningAdd): void {
    if (!this.#running.delete(add)) return
    for (const key of add.keys) {
      const others = (this.#waiting.get(key) ?? 1) - 1
      if (others > 0) this.#waiting.set(key, others)
      else this.#waiting.delete(key)
    }
    add.keys.clear()
  }
}
