import { asError, type Clock } from '../base/index.ts'

export interface SyncBatchInit<Item> {
  clock: Clock
  /** A run starts when this much was added since the last one, */
  bytesMax: number
  /** or this long after the first addition since. */
  intervalMs: number
  /** or when this many `keys` differ. Twice as many wait at most: each may hold a descriptor. */
  keysMax: number
  keyOf: (item: Item) => unknown
  /** Makes the items durable. Called with everything added since the last run, never twice at once. */
  run: (items: Item[]) => Promise<void>
}

/**
 * Group commit: what is added runs together, one run at a time. Decides when; `run` knows what.
 * A failed run is told to those who flush; who adds learns of it by what `run` does about it.
 */
export class SyncBatch<Item> {
  readonly #init: SyncBatchInit<Item>
  #items: Item[] = []
  #keys = new Set<unknown>()
  #bytes = 0
  #runningBytes = 0
  #runningKeys = 0
  #running: Promise<Error | undefined> | undefined
  #cancelTimer: (() => void) | undefined
  /** The time came while a run was on. */
  #due = false
  #waiting: Array<() => void> = []

  constructor (init: SyncBatchInit<Item>) {
    this.#init = init
  }

  add (item: Item, bytes: number): void {
    this.#items.push(item)
    this.#keys.add(this.#init.keyOf(item))
    this.#bytes += bytes
    if (this.#full()) this.#start()
    else this.#cancelTimer ??= this.#init.clock.setTimeout(() => { this.#cancelTimer = undefined; this.#due = true; this.#start() }, this.#init.intervalMs)
  }

  /**
   * Resolves once less than four batches wait for the disk, or two of many small items: who writes faster than it syncs is
   * slowed down here, and a power cut costs no more than that.
   */
  async room (): Promise<void> {
    const { bytesMax, keysMax } = this.#init
    while (this.#bytes + this.#runningBytes >= 4 * bytesMax || this.#keys.size + this.#runningKeys >= 2 * keysMax) await new Promise<void>(resolve => { this.#waiting.push(resolve) })
  }

  /** Resolves when everything added so far was run. Rejects with the first error on the way. */
  async flush (): Promise<void> {
    let failed: Error | undefined
    if (this.#running !== undefined) failed = await this.#running
    if (this.#items.length > 0 || this.#running !== undefined) {
      this.#start()
      failed ??= await this.#running
    }
    if (failed !== undefined) throw failed
  }

  #full (): boolean {
    return this.#bytes >= this.#init.bytesMax || this.#keys.size >= this.#init.keysMax
  }

  #start (): void {
    if (this.#running !== undefined || this.#items.length === 0) return
    this.#cancelTimer?.()
    this.#cancelTimer = undefined
    this.#due = false
    const items = this.#items
    this.#runningBytes = this.#bytes
    this.#runningKeys = this.#keys.size
    this.#items = []
    this.#keys = new Set()
    this.#bytes = 0
    this.#running = this.#init.run(items).then(() => undefined, asError).then(error => {
      this.#running = undefined
      this.#runningBytes = 0
      this.#runningKeys = 0
      for (const resume of this.#waiting.splice(0)) resume()
      if (this.#due || this.#full()) this.#start()
      return error
    })
  }
}
