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

/** Runs `task` for each item, a few at a time; all end before it resolves, or rejects with the first error. */
export async function inParallel<T> (width: number, items: T[], task: (item: T) => Promise<void>): Promise<void> {
  let next = 0
  const outcomes = await Promise.allSettled(Array.from({ length: Math.min(width, items.length) }, async () => {
    for (let item = items[next++]; item !== undefined; item = items[next++]) await task(item)
  }))
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw asError(outcome.reason)
}
