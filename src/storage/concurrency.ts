import { asError } from '../base/index.ts'

/** A mutex for async sections: callers run one after the other, in the order they came. */
export class Lock {
  #last: Promise<unknown> = Promise.resolve()

  async run<T> (section: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(section)
    this.#last = turn.catch(() => undefined) // the caller has the error; the next in line does not care
    return await turn
  }
}

/** Counts open operations, so that stop() can refuse new ones and wait for the rest. */
export class Gate {
  #open = 0
  #closed: Error | undefined
  #idle: () => void = () => undefined

  get closed (): boolean { return this.#closed !== undefined }

  async run<T> (operation: () => Promise<T>): Promise<T> {
    if (this.#closed !== undefined) throw this.#closed
    this.#open++
    try {
      return await operation()
    } finally {
      if (--this.#open === 0) this.#idle()
    }
  }

  /** From now on `run` throws `reason`. Resolves when what was open has ended. */
  async close (reason: Error): Promise<void> {
    this.#closed ??= reason
    if (this.#open > 0) await new Promise<void>(resolve => { this.#idle = resolve })
  }
}

/**
 * Group commit: what is asked for while one run is on goes into the next, together. Who asks alone waits for nobody.
 * A run that fails is done again item by item, so that nobody fails for another.
 */
export class Grouped<Item, Result> {
  readonly #run: (items: Item[]) => Promise<Result[]>
  readonly #max: number
  readonly #waiting: Array<{ item: Item, resolve: (result: Result) => void, reject: (error: unknown) => void }> = []
  #running = false

  /** `run` answers each item of a group, `max` of them at most, in their order. What it did before it threw must not harm when it is done again. */
  constructor (max: number, run: (items: Item[]) => Promise<Result[]>) {
    this.#max = max
    this.#run = run
  }

  async add (item: Item): Promise<Result> {
    return await new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject })
      if (!this.#running) void this.#runAll()
    })
  }

  async #runAll (): Promise<void> {
    this.#running = true
    while (this.#waiting.length > 0) {
      const group = this.#waiting.splice(0, this.#max)
      try {
        const results = await this.#run(group.map(({ item }) => item))
        for (const [at, { resolve }] of group.entries()) resolve(results[at] as Result)
      } catch (error) {
        if (group.length === 1) group[0]?.reject(error)
        else for (const { item, resolve, reject } of group) await this.#run([item]).then(([result]) => { resolve(result as Result) }, reject)
      }
    }
    this.#running = false
  }
}

/** Names made at a time, of many files: twice as many as libuv has threads, so that none of these waits. */
export const LINKS_AT_ONCE = 8

/** Runs `task` for each item, a few at a time; all end before it resolves, or rejects with the first error. */
export async function inParallel<T> (width: number, items: T[], task: (item: T) => Promise<void>): Promise<void> {
  let next = 0
  const outcomes = await Promise.allSettled(Array.from({ length: Math.min(width, items.length) }, async () => {
    for (let item = items[next++]; item !== undefined; item = items[next++]) await task(item)
  }))
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw asError(outcome.reason)
}
