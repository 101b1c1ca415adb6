import { NodeStoppedError, throwIfAborted, withSignal, type Clock } from '../base/index.ts'

/** Work that many wait for, each with a signal of their own. When nobody has waited for a while it is given up, unless it is kept. */
export class SharedWork<T> {
  readonly #clock: Clock
  readonly #lingerMs: number
  readonly #stop = new AbortController()
  readonly #result: Promise<T>
  #waiting = 0
  #kept = false
  #ended = false
  #cancel: () => void = () => undefined

  constructor ({ clock, lingerMs, signal }: { clock: Clock, lingerMs: number, signal: AbortSignal }, work: (signal: AbortSignal) => Promise<T>) {
    this.#clock = clock
    this.#lingerMs = lingerMs
    this.#result = work(AbortSignal.any([signal, this.#stop.signal]))
    this.#result.catch(() => undefined) // told to each who waits
    void this.#result.finally(() => { this.#ended = true; this.#cancel() }).catch(() => undefined)
    this.#linger()
  }

  get ended (): boolean { return this.#ended || this.#stop.signal.aborted }

  /** Resolves when it is over, however. */
  async over (): Promise<void> { await this.#result.catch(() => undefined) }

  /** Goes on to its end, whoever leaves. */
  keep (keep: boolean): void {
    this.#kept = keep
    if (!keep && this.#waiting === 0) this.#linger()
  }

  async join (signal: AbortSignal): Promise<T> {
    throwIfAborted(signal)
    this.#waiting++
    this.#cancel()
    try {
      return await withSignal(this.#result, signal)
    } finally {
      this.#waiting--
      if (this.#waiting === 0) this.#linger()
    }
  }

  #linger (): void {
    this.#cancel()
    if (this.#ended || this.#kept) return
    this.#cancel = this.#clock.setTimeout(() => {
      if (this.#waiting === 0 && !this.#kept) this.#stop.abort(new NodeStoppedError('nobody waits for this any more'))
    }, this.#lingerMs)
  }
}
