import { PeerTimeoutError, type Clock } from '../base/index.ts'

/** A timer that comes so much later than it should, when this process did not get to listen either, says nothing about who is waited for. */
const LATE_MS = 1_000
/** The wait begins anew so often at most. */
const LATE_MAX = 3

/**
 * Runs `work` with a signal that fires when `signal` does, or after `timeoutMs` with a PeerTimeoutError about `what`. A process that was held up
 * for seconds waits again: on a busy host all deadlines would pass at once, and what was nearly done be begun anew. Leaves no timer. `work` must end
 * when its signal fires.
 */
export async function within<T> (clock: Clock, timeoutMs: number, what: string, signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const deadline = new AbortController()
  const onAbort = (): void => { deadline.abort(signal.reason) }
  if (signal.aborted) onAbort()
  else signal.addEventListener('abort', onAbort, { once: true })
  let late = 0
  let cancel = (): void => undefined
  const wait = (): void => {
    const due = clock.monotonic() + timeoutMs
    cancel = clock.setTimeout(() => {
      if (clock.monotonic() - due > LATE_MS && late++ < LATE_MAX) wait()
      else deadline.abort(new PeerTimeoutError(`${what} took longer than ${timeoutMs} ms`))
    }, timeoutMs)
  }
  wait()
  try {
    return await work(deadline.signal)
  } finally {
    cancel()
    signal.removeEventListener('abort', onAbort)
  }
}
