import { abortReason, throwIfAborted } from './errors.ts'

/** Lets a number of tasks run at a time, in the order they came. */
export class Semaphore {
  #free: number
  readonly #waiting = new Set<() => void>()

  constructor (width: number) { this.#free = width }

  /** Throws the signal's reason when it aborts before the task's turn; what the task does with it is up to the task. */
  async run<T> (task: () => Promise<T>, signal: AbortSignal): Promise<T> {
    throwIfAborted(signal)
    if (this.#free > 0) this.#free--
    else await this.#turn(signal)
    try {
      return await task()
    } finally {
      const [next] = this.#waiting
      if (next === undefined) this.#free++
      else next()
    }
  }

  /** The same for what ends when the returned function is called. */
  async enter (signal: AbortSignal): Promise<() => void> {
    return await new Promise((resolve, reject) => {
      this.run(async () => { await new Promise<void>(leave => { resolve(leave) }) }, signal).catch(reject)
    })
  }

  async #turn (signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const end = (settle: () => void): void => {
        this.#waiting.delete(begin)
        signal.removeEventListener('abort', onAbort)
        settle()
      }
      const begin = (): void => { end(resolve) }
      const onAbort = (): void => { end(() => { reject(abortReason(signal)) }) }
      this.#waiting.add(begin)
      signal.addEventListener('abort', onAbort, { once: true })
    })
  }
}
