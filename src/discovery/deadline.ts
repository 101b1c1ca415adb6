import { PeerTimeoutError, type Clock } from '../base/index.ts'

/**
 * Runs `work` with a signal that fires when `signal` does, or after `timeoutMs` with a PeerTimeoutError about `what`.
 * Leaves no timer. `work` must end when its signal fires.
 */
export async function within<T> (clock: Clock, timeoutMs: number, what: string, signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const deadline = new AbortController()
  const onAbort = (): void => { deadline.abort(signal.reason) }
  if (signal.aborted) onAbort()
  else signal.addEventListener('abort', onAbort, { once: true })
  const cancel = clock.setTimeout(() => { deadline.abort(new PeerTimeoutError(`${what} took longer than ${timeoutMs} ms`)) }, timeoutMs)
  try {
    return await work(deadline.signal)
  } finally {
    cancel()
    signal.removeEventListener('abort', onAbort)
  }
}
