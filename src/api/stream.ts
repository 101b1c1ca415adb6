import { PROGRESS_PER_SECOND_MAX } from '../base/index.ts'

const PROGRESS_INTERVAL_MS = 1000 / PROGRESS_PER_SECOND_MAX

/** What the work behind a stream writes to. */
export interface Sink<Message extends object> {
  /** Kept in order and never dropped: a stream has a handful of these. */
  send: (message: Message) => void
  /** Only the newest is kept until the reader takes it, and it takes at most PROGRESS_PER_SECOND_MAX a second. */
  progress: (message: Message) => void
}

/**
 * Runs `work` while its messages are read as NDJSON; the stream ends when the work does. The reader sets the pace:
 * nothing is written ahead of it, so one that is slow or stopped costs the newest progress and no more.
 *
 * When the reader goes, or the server stops, the work's signal aborts, and nobody waits for the work any more. What
 * fails otherwise is told by `onError`, whose message is the last line.
 */
export function ndjson<Message extends object> (
  work: (sink: Sink<Message>, signal: AbortSignal) => Promise<void>,
  init: { reader: AbortSignal, stopping: AbortSignal, onError: (error: unknown) => object }
): ReadableStream<Uint8Array> {
  const gone = new AbortController()
  const lines: object[] = []
  let latest: object | undefined
  let ended = false
  let wake = (): void => undefined
  let lastProgressAt = -Infinity
  const encoder = new TextEncoder()
  const line = (message: object): Uint8Array => encoder.encode(`${JSON.stringify(message)}\n`)

  const signal = AbortSignal.any([init.reader, init.stopping, gone.signal])
  const sink: Sink<Message> = {
    send: message => {
      // What was true before is told before; a newer progress comes after.
      if (latest !== undefined) lines.push(latest)
      latest = undefined
      lines.push(message)
      wake()
    },
    progress: message => { latest = message; wake() }
  }
  const stopped = aborted(signal)
  void Promise.race([work(sink, signal), stopped.promise]).catch(error => {
    latest = undefined
    if (!gone.signal.aborted && !init.reader.aborted) lines.push(init.onError(error))
  }).finally(() => {
    stopped.dispose()
    ended = true
    wake()
  })

  /** Resolves at the next message, end, or after `timeoutMs`. */
  const change = async (timeoutMs?: number): Promise<void> => {
    await new Promise<void>(resolve => {
      const timer = timeoutMs === undefined ? undefined : setTimeout(resolve, timeoutMs)
      wake = () => {
        // While throttled, newer progress is no reason to wake.
        if (timer !== undefined && lines.length === 0 && !ended) return
        clearTimeout(timer)
        resolve()
      }
    })
    wake = () => undefined
  }

  return new ReadableStream<Uint8Array>({
    async pull (controller) {
      while (!gone.signal.aborted) {
        const next = lines.shift()
        if (next !== undefined) { controller.enqueue(line(next)); return }
        const waitMs = lastProgressAt + PROGRESS_INTERVAL_MS - performance.now()
        if (latest !== undefined && (waitMs <= 0 || ended)) {
          lastProgressAt = performance.now()
          const message = latest
          latest = undefined
          controller.enqueue(line(message))
          return
        }
        if (ended) { controller.close(); return }
        await change(latest === undefined ? undefined : waitMs)
      }
    },
    cancel (reason) {
      gone.abort(reason)
      wake()
    }
  }, { highWaterMark: 0 })
}

/** Rejects when the signal aborts; `dispose` takes the listener away. */
function aborted (signal: AbortSignal): { promise: Promise<never>, dispose: () => void } {
  let dispose = (): void => undefined
  const promise = new Promise<never>((_resolve, reject) => {
    const onAbort = (): void => { reject(signal.reason as Error) }
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort, { once: true })
    dispose = () => { signal.removeEventListener('abort', onAbort) }
  })
  promise.catch(() => undefined) // raced
  return { promise, dispose }
}
