/**
 * The bytes of a file, in order, as they are verified. One that is whole here is read ahead by one buffer; of one that is not,
 * what the reader needs next is fetched, and goes out of memory while it is written to the disk; and so much is kept back that a
 * reader who would give up after ten silent seconds gets something every two.
 */
import type { ServerResponse } from 'node:http'
import { AbortError, BLOCK_BYTES_MAX, HF_BUFFER_BYTES, asError, type Clock } from '../base/index.ts'
import type { ShoalNode, WholeFile } from '../node/types.ts'
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

/**
 * Pieces read ahead of the reader, each filled out of the block it is part of as soon as that is verified: at most four blocks. What
 * is not asked for is not fetched: it would be on disk, and out of memory, when the reader gets there.
 */
const AHEAD_PIECES = 16
const AHEAD_BYTES = AHEAD_PIECES * HF_BUFFER_BYTES
/** Kept back while the next bytes are on their way, and let go in drops: 32 of them last longer than a load waits for a provider. */
const RESERVE_BYTES = 64 * 1024
const DROP_BYTES = 2 * 1024
const DROP_EVERY_MS = 2_000
/** A reader that takes one piece no sooner is as good as gone. Of one that takes nothing at all the connection is closed before (server.ts). */
const WRITE_STALL_MS = 300_000
/** How long what went out may take to be on the disk. */
const RECORDED_MS = 60_000
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

/** Some bytes of a file on their way into memory. */
interface Piece {
  readonly buffer: Buffer
  readonly bytes: Buffer
  readonly ready: Promise<void>
  isReady: boolean
}

/** Of a file that is whole: says how many bytes of the range went out, all unless a read failed. Ends nothing. */
export async function streamWhole (components: StreamComponents, { read }: Pick<WholeFile, 'read'>, range: ByteRange, to: { response: ServerResponse, begin: () => void, signal: AbortSignal }): Promise<number> {
  return await new Body(components, to.response, to.signal).copy(range, read, to.begin)
}

/** Pieces as they come from elsewhere. Throws what they do. */
export async function streamPieces (components: StreamComponents, pieces: AsyncIterable<Uint8Array>, to: { response: ServerResponse, begin: () => void, signal: AbortSignal }): Promise<void> {
  const body = new Body(components, to.response, to.signal)
  let begun = false
  for await (const piece of pieces) {
    if (!begun) to.begin()
    begun = true
    await body.write(piece)
  }
  if (!begun) to.begin()
  body.end()
}

/** What goes out as the body of one answer, for as long as its reader takes it. */
export class Body {
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
        await this.write(bytes)
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
    const model = await node.open(cid, { include: [path], onDemand: true, signal })
    const end = range.offset + range.length
    const ahead: Piece[] = []
    let asked = range.offset
    let wanted = asked
    const isWhole = range.length === model.file(path).size
    const read = async (offset: number, into: Buffer): Promise<void> => {
      await model.read(path, offset, into.length, { into, signal })
      // Who has the last byte of a file may ask for it again, or look whether it is here.
      if (isWhole && offset + into.length === end) await model.waitFor(path, range.offset, range.length, { signal })
    }
    const ask = (): void => {
      while (asked < end && ahead.length < AHEAD_PIECES) {
        const buffer = this.#components.buffers.take()
        const bytes = buffer.subarray(0, Math.min(buffer.length, end - asked))
        const piece: Piece = { buffer, bytes, isReady: false, ready: read(asked, bytes).then(() => { piece.isReady = true }) }
        piece.ready.catch(() => undefined) // told when its turn comes, or nobody waits any more
        ahead.push(piece)
        asked += bytes.length
      }
      // Where buffers are short the fetch is to be ahead all the same.
      const done = ahead.reduce((at, { bytes }) => at - bytes.length, asked)
      for (wanted = Math.max(wanted, asked); wanted < Math.min(end, done + AHEAD_BYTES); wanted += BLOCK_BYTES_MAX) {
        model.waitFor(path, wanted, Math.min(end - wanted, BLOCK_BYTES_MAX), { signal }).catch(() => undefined) // told when it is read
      }
    }
    let kept: Buffer = Buffer.alloc(0)
    try {
      for (ask(); ahead.length > 0; ask()) {
        const [piece] = ahead as [Piece]
        if (!this.#response.headersSent) {
          const isSoon = await this.#within(piece.ready, FIRST_BYTE_MS)
          begin()
          if (!isSoon) this.#response.flushHeaders() // the reader waits for a sign of life
        }
        kept = await this.#meanwhile(piece, kept)
        if (kept.length > 0) await this.write(kept)
        const [, next] = ahead
        const keep = next === undefined || next.isReady ? 0 : Math.min(RESERVE_BYTES, piece.bytes.length)
        const goes = piece.bytes.length - keep
        if (goes > 0) await this.write(piece.bytes.subarray(0, goes))
        kept = Buffer.from(piece.bytes.subarray(goes))
        this.#components.buffers.give(piece.buffer)
        ahead.shift()
      }
      if (!this.#response.headersSent) begin()
      this.#response.end()
      // What went out of memory is not thrown away on its way to the disk.
      await model.waitFor(path, range.offset, range.length, { signal: AbortSignal.timeout(RECORDED_MS) }).catch(() => undefined)
    } finally {
      over.abort(new AbortError('the answer has ended'))
      model.close()
      // Not before nobody fills them any more.
      for (const { ready, buffer } of ahead) void ready.catch(() => undefined).finally(() => { this.#components.buffers.give(buffer) })
    }
  }

  /** Waits for a piece, and every while lets go a drop of the bytes that are kept back. Says which are left. */
  async #meanwhile ({ ready, isReady }: Piece, kept: Buffer): Promise<Buffer> {
    if (isReady) return kept
    for (let left = kept; ; left = left.subarray(DROP_BYTES)) {
      if (await this.#within(ready, DROP_EVERY_MS)) return left
      if (left.length > 0) await this.write(left.subarray(0, DROP_BYTES))
    }
  }

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

  /** Resolves when the kernel has taken them: the buffer may be used again. Throws AbortError when the reader is gone or stands still: Node calls nobody back then. */
  async write (bytes: Uint8Array): Promise<void> {
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
