import type { ServerResponse } from 'node:http'
import { AbortError, asError, type Clock } from '../base/index.ts'

/** How long a request waits for its head, so that a failure can still be told: less than the ten seconds in which clients give up. */
const HEAD_MS = 6_000
/** A reader that takes one piece no sooner is as good as gone. Of one that takes nothing at all the connection is closed before (server.ts). */
const WRITE_STALL_MS = 300_000

/**
 * When the head of an answer has to go out. Made when the request comes, because clients count from there, whatever is waited for: its
 * name, its model, and perhaps another model after that. `signal` aborts when the answer is over.
 */
export async function headDue (clock: Clock, signal: AbortSignal): Promise<void> {
  await new Promise<void>(resolve => {
    if (signal.aborted) return
    const cancel = clock.setTimeout(resolve, HEAD_MS)
    signal.addEventListener('abort', cancel, { once: true })
  })
}

export interface BodyInit {
  response: ServerResponse
  clock: Clock
  /** Writes the head. */
  begin: () => void
  /** Of headDue(). */
  due: Promise<void>
  /** Aborts when the reader is gone. */
  signal: AbortSignal
}

/** What goes out as the body of one answer, for as long as its reader takes it, and its head in time. */
export class Body {
  readonly signal: AbortSignal
  readonly #init: BodyInit
  #sent = 0

  constructor (init: BodyInit) {
    this.#init = init
    this.signal = init.signal
  }

  /** Bytes that were given to the reader. */
  get sent (): number { return this.#sent }
  get begun (): boolean { return this.#init.response.headersSent }

  begin (): void { if (!this.begun) this.#init.begin() }

  end (): void {
    this.begin()
    this.#init.response.end()
  }

  /** Whether it was ready before the head is due. Throws what it throws. */
  async isSoon (ready: Promise<unknown>): Promise<boolean> {
    return await Promise.race([ready.then(() => true), this.#init.due.then(() => false)])
  }

  /** A sign of life. */
  sendHead (): void {
    if (this.begun) return
    this.begin()
    this.#init.response.flushHeaders()
  }

  /** Waits, and lets the head go when it is due. Throws what `ready` throws; while the head is not out, that can be told. */
  async headed<T> (ready: Promise<T>): Promise<T> {
    if (!this.begun && !await this.isSoon(ready)) this.sendHead()
    return await ready
  }

  /** Whether it was ready in this time. Throws what it throws. */
  async within (ready: Promise<unknown>, timeoutMs: number): Promise<boolean> {
    let cancel = (): void => undefined
    const late = new Promise<false>(resolve => { cancel = this.#init.clock.setTimeout(() => { resolve(false) }, timeoutMs) })
    try {
      return await Promise.race([ready.then(() => true), late])
    } finally {
      cancel()
    }
  }

  /** Resolves when the kernel has taken them: the buffer may be used again. Throws AbortError when the reader is gone or stands still: Node calls nobody back then. */
  async write (bytes: Uint8Array): Promise<void> {
    const { clock, response, signal } = this.#init
    if (signal.aborted) throw new AbortError('the reader is gone')
    this.begin()
    this.#sent += bytes.length
    await new Promise<void>((resolve, reject) => {
      const end = (error?: Error | null): void => {
        cancel()
        signal.removeEventListener('abort', onAbort)
        if (error === null || error === undefined) resolve()
        else reject(asError(error))
      }
      const onAbort = (): void => { end(new AbortError('the reader is gone')) }
      const cancel = clock.setTimeout(() => { response.destroy(); end(new AbortError('the reader takes nothing any more')) }, WRITE_STALL_MS)
      signal.addEventListener('abort', onAbort, { once: true })
      response.write(bytes, end)
    })
  }
}
