/**
 * The bytes of a file, in order, as they are verified. One that is whole here is read ahead by one buffer; of one that is
 * still loading, each piece is waited for, the next ones are asked for before they are needed, and so much is kept back that
 * a reader who would give up after ten silent seconds gets something every two.
 */
import type { ServerResponse } from 'node:http'
import { AbortError, BLOCK_BYTES_MAX, MiB, asError, type Clock } from '../base/index.ts'
import type { ShoalNode } from '../node/types.ts'
import type { Buffers } from './buffers.ts'
import type { ByteRange } from './ranges.ts'

export interface StreamComponents {
  node: Pick<ShoalNode, 'open' | 'wholeFile'>
  buffers: Buffers
  clock: Clock
}

export interface StreamedFile { cid: string, path: string, range: ByteRange }

/** Fills `into` from `offset`; the bytes are verified when it resolves. */
type Read = (offset: number, into: Uint8Array) => Promise<void>

/** So much is waited for at once: what is verified of a block's neighbours goes out without waiting for those. */
const PIECE_BYTES = 1 * MiB
/**
 * Asked for ahead of the reader, in windows, so that blocks come in the order it needs them. Each range somebody waits for is
 * synced as soon as it is written: one wait for a window costs one sync, one for each block would cost as many.
 */
const WINDOW_BYTES = 4 * BLOCK_BYTES_MAX
const AHEAD_BYTES = 2 * WINDOW_BYTES
/** Kept back while the next bytes are on their way, and let go in drops: 32 of them last longer than a load waits for a provider. */
const RESERVE_BYTES = 64 * 1024
const DROP_BYTES = 2 * 1024
const DROP_EVERY_MS = 2_000
/** A reader that takes nothing for this long is gone, or has forgotten. */
const WRITE_STALL_MS = 300_000
/** How long an answer waits for its first byte, so that a failure can still be told: less than clients wait for a head. */
const FIRST_BYTE_MS = 6_000

/**
 * Writes the range as the body of `response` and ends it. Throws what went wrong; the caller decides by `headersSent`
 * whether that can still be told, or the connection has to be cut. `begin` writes the head.
 */
export async function streamFile (components: StreamComponents, file: StreamedFile, response: ServerResponse, begin: () => void, signal: AbortSignal): Promise<void> {
  const body = new Body(components, response, signal)
  const whole = components.node.wholeFile(file.cid, file.path)
  if (whole !== undefined) {
    // Found bad in between: it becomes a file to load, and the rest comes from others.
    const done = await body.copy(file.range, async (offset, into) => { await whole.read(offset, into) }, begin)
    if (done === file.range.length) { body.end(); return }
    file = { ...file, range: { offset: file.range.offset + done, length: file.range.length - done } }
  }
  await body.load(file, begin)
  body.end()
}

class Body {
  readonly #components: StreamComponents
  readonly #response: ServerResponse
  readonly #signal: AbortSignal

  constructor (components: StreamComponents, response: ServerResponse, signal: AbortSignal) {
    this.#components = components
    this.#response = response
    this.#signal = signal
  }

  end (): void { this.#response.end() }

  /** Says how many bytes went out: all, unless a read failed. */
  async copy ({ offset, length }: ByteRange, read: Read, begin: () => void): Promise<number> {
    const { buffers } = this.#components
    const ahead = (at: number): { buffer: Buffer, bytes: Buffer, ready: Promise<unknown> } => {
      const buffer = buffers.take()
      const bytes = buffer.subarray(0, Math.min(buffer.length, length - at))
      const ready = read(offset + at, bytes)
      ready.catch(() => undefined) // told when its turn comes, or nobody waits any more
      return { buffer, bytes, ready }
    }
    let done = 0
    let next = length > 0 ? ahead(0) : undefined
    if (next === undefined) begin()
    while (next !== undefined) {
      const { buffer, bytes, ready } = next
      next = undefined
      try {
        try {
          await ready
        } catch {
          return done
        }
        if (done === 0) begin()
        if (done + bytes.length < length) next = ahead(done + bytes.length)
        await this.#write(bytes)
        done += bytes.length
      } catch (error) {
        if (next !== undefined) {
          const { buffer: unused, ready: reading } = next
          void reading.catch(() => undefined).finally(() => { buffers.give(unused) })
        }
        throw error
      } finally {
        buffers.give(buffer)
      }
    }
    return done
  }

  async load ({ cid, path, range }: StreamedFile, begin: () => void): Promise<void> {
    const { node } = this.#components
    const over = new AbortController()
    const signal = AbortSignal.any([this.#signal, over.signal])
    const model = await node.open(cid, { include: [path], order: 'sequential', signal })
    const end = range.offset + range.length
    let asked = range.offset
    const askAhead = (at: number): void => {
      while (asked < end && asked < at + AHEAD_BYTES) {
        const length = Math.min(end - asked, WINDOW_BYTES)
        model.waitFor(path, asked, length, { signal }).catch(() => undefined) // told when its first piece is waited for
        asked += length
      }
    }
    try {
      let done = range.offset
      let kept = 0
      while (done < end) {
        const upTo = Math.min(end, done + PIECE_BYTES)
        const ready = model.waitFor(path, done, upTo - done, { signal })
        askAhead(done)
        if (!this.#response.headersSent) {
          await this.#soon(ready)
          begin()
        }
        const at = done
        kept = await this.#meanwhile(ready, kept, async (bytes, left) => { await this.#send(model, path, { offset: at - left, length: bytes }) })
        const keep = upTo === end ? 0 : Math.min(RESERVE_BYTES, upTo - done + kept)
        await this.#send(model, path, { offset: done - kept, length: upTo - done + kept - keep })
        kept = keep
        done = upTo
      }
      if (!this.#response.headersSent) begin()
    } finally {
      over.abort(new AbortError('the answer has ended'))
      model.close()
    }
  }

  /** Waits for `ready`, and every while lets go a drop of the bytes that are kept back. Says how many are left. */
  async #meanwhile (ready: Promise<void>, kept: number, drop: (bytes: number, left: number) => Promise<void>): Promise<number> {
    let left = kept
    for (;;) {
      if (await this.#within(ready, DROP_EVERY_MS)) return left
      const bytes = Math.min(DROP_BYTES, left)
      if (bytes > 0) await drop(bytes, left)
      left -= bytes
    }
  }

  async #soon (ready: Promise<void>): Promise<void> { await this.#within(ready, FIRST_BYTE_MS) }

  /** Whether it was ready in this time. Throws what it throws. */
  async #within (ready: Promise<void>, timeoutMs: number): Promise<boolean> {
    let cancel = (): void => undefined
    const late = new Promise<false>(resolve => { cancel = this.#components.clock.setTimeout(() => { resolve(false) }, timeoutMs) })
    try {
      return await Promise.race([ready.then(() => true), late])
    } finally {
      cancel()
    }
  }

  async #send (model: { read: (path: string, offset: number, length: number, options: { into: Uint8Array }) => Promise<unknown> }, path: string, { offset, length }: ByteRange): Promise<void> {
    const { buffers } = this.#components
    for (let done = 0; done < length;) {
      const buffer = buffers.take()
      try {
        const bytes = buffer.subarray(0, Math.min(buffer.length, length - done))
        await model.read(path, offset + done, bytes.length, { into: bytes })
        await this.#write(bytes)
        done += bytes.length
      } finally {
        buffers.give(buffer)
      }
    }
  }

  /** Resolves when the kernel has taken them: the buffer may be used again. */
  async #write (bytes: Uint8Array): Promise<void> {
    const { clock } = this.#components
    const signal = this.#signal
    if (signal.aborted) throw new AbortError('the reader is gone')
    await new Promise<void>((resolve, reject) => {
      const end = (error?: Error | null): void => {
        cancel()
        signal.removeEventListener('abort', onAbort)
        if (error === null || error === undefined) resolve()
        else reject(asError(error))
      }
      const onAbort = (): void => { end(new AbortError('the reader is gone')) }
      const cancel = clock.setTimeout(() => { this.#response.destroy(); end(new AbortError('the reader takes nothing any more')) }, WRITE_STALL_MS)
      signal.addEventListener('abort', onAbort, { once: true })
      this.#response.write(bytes, end)
    })
  }
}
