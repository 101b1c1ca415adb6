import { performance } from 'node:perf_hooks' // the global of that name is a getter, which costs twice as much a call

/**
 * Time, injected. Everything that waits or stamps asks a Clock, so that simulations and tests own time.
 */
export interface Clock {
  /** Wall clock, milliseconds since 1970. May jump; only for what is shown to people or stored. */
  now: () => number
  /** Monotonic milliseconds since an arbitrary start. For intervals, rates and deadlines. */
  monotonic: () => number
  /** Calls `fn` once after `delayMs`; the returned function cancels it and may be called any number of times. */
  setTimeout: (fn: () => void, delayMs: number) => () => void
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimeout: (fn, delayMs) => {
    const timer = setTimeout(fn, delayMs)
    return () => { clearTimeout(timer) }
  }
}

/** Waits `delayMs` on `clock`; rejects with the signal's reason when it aborts first. */
export function sleep (clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) { reject(signal.reason as Error); return }
    const onAbort = (): void => { cancel(); reject(signal?.reason as Error) }
    const cancel = clock.setTimeout(() => { signal?.removeEventListener('abort', onAbort); resolve() }, delayMs)
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}
