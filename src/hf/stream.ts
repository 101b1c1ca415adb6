/**
 * The bytes of a file, in order, as they are verified. One that is whole here is read ahead by one buffer; of one that is not,
 * what the reader needs next is fetched, and goes out of memory while it is written to the disk; and so much is kept back that a
 * reader who would give up after ten silent seconds gets something every two.
 */
import { AbortError, BLOCK_BYTES_MAX, HF_BUFFER_BYTES, NoProviderError } from '../base/index.ts'
import type { OpenModel, ShoalNode, WholeFile } from '../node/types.ts'
import type { Body } from './body.ts'
import type { Buffers } from './buffers.ts'
import type { ByteRange } from './ranges.ts'

export interface StreamComponents {
  node: Pick<ShoalNode, 'open' | 'wholeFile'>
  buffers: Buffers
}

export interface StreamedFile {
  cid: string
  path: string
  /** Of the whole file. */
  size: number
  range: ByteRange
  /** It can be had from somewhere else: when nothing comes of it, that is not waited for. */
  isElsewhere?: boolean
}

/** Fills `into` from `offset`; the bytes are verified when it resolves. */
type Read = (offset: number, into: Uint8Array) => Promise<void>

/**
 * Pieces read ahead of the reader, each filled out of the block it is part of as soon as that is verified: at most four blocks. What
 * is not asked for is not fetched: it would be on disk, and out of memory, when the reader gets there.
 */
const AHEAD_PIECES = 16
const AHEAD_BYTES = AHEAD_PIECES * HF_BUFFER_BYTES
/**
 * Of who begins, and of who waited for a block until a drop was due: one block. They come in the order in which they are asked for, and nothing keeps a
 * reader there before its first, which is to stand behind one of each of the others, and not behind four.
 */
const AHEAD_BYTES_MIN = BLOCK_BYTES_MAX
/** Kept back while the next bytes are on their way, and let go in drops: 32 of them last longer than a load waits for a provider. */
const RESERVE_BYTES = 64 * 1024
const DROP_BYTES = 2 * 1024
const DROP_EVERY_MS = 2_000
/** How long what went out may take to be on the disk. */
const RECORDED_MS = 60_000
/** Who asks for so much of a file is given room for all of it; for less, room is made block by block. */
const RESERVED_SHARE = 0.5
/** A model whose manifest nobody has for so long is told to be nowhere, while that can be told. */
const FOUND_MS = 5_000
/** What can be had elsewhere is looked after so often. */
const LOOK_MS = 1_000
/** It is taken to be lost when nothing comes of it for so long: at less than this rate a block takes a minute. */
const LOST_MS = 5_000
const NOTHING_BYTES_PER_SECOND = 64 * 1024
/** Also when others get something: a little before a reader who got its head goes. Eight blocks come in this time at 3 MiB/s. */
const LATE_MS = 12_000

/**
 * Writes the range as the body of an answer and ends it. Throws what went wrong; the caller decides by what went out
 * whether that can still be told, or the connection has to be cut.
 */
export async function streamFile (components: StreamComponents, file: StreamedFile, body: Body): Promise<void> {
  const whole = components.node.wholeFile(file.cid, file.path)
  if (whole !== undefined) {
    // Found bad in between: it becomes a file to load, and the rest comes from others.
    const done = await streamWhole(components, whole, file.range, body)
    if (done === file.range.length) { body.end(); return }
    file = { ...file, range: { offset: file.range.offset + done, length: file.range.length - done } }
  }
  await load(components, file, body)
  body.end()
}

/** Pieces as they come from elsewhere. Throws what they do. */
export async function streamPieces (pieces: AsyncIterable<Uint8Array>, body: Body): Promise<void> {
  for await (const piece of pieces) await body.write(piece)
  body.end()
}

/** Of a file that is whole: says how many bytes of the range went out, all unless a read failed. Ends nothing. */
export async function streamWhole ({ buffers }: StreamComponents, { read }: Pick<WholeFile, 'read'>, { offset, length }: ByteRange, body: Body): Promise<number> {
  const ahead = (at: number): { buffer: Buffer, bytes: Buffer, ready: Promise<unknown> } => {
    const buffer = buffers.take()
    const bytes = buffer.subarray(0, Math.min(buffer.length, length - at))
    const ready = read(offset + at, bytes)
    ready.catch(() => undefined) // told when its turn comes, or nobody waits any more
    return { buffer, bytes, ready }
  }
  let done = 0
  let next = length > 0 ? ahead(0) : undefined
  while (next !== undefined) {
    const { buffer, bytes, ready } = next
    next = undefined
    try {
      try {
        await ready
      } catch {
        return done
      }
      if (done + bytes.length < length) next = ahead(done + bytes.length)
      await body.write(bytes)
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

/** Some bytes of a file on their way into memory. */
interface Piece {
  readonly buffer: Buffer
  readonly bytes: Buffer
  readonly ready: Promise<void>
  isReady: boolean
}

async function load ({ node, buffers }: StreamComponents, file: StreamedFile, body: Body): Promise<void> {
  const { cid, path, size, range } = file
  const over = new AbortController()
  const signal = AbortSignal.any([body.signal, over.signal])
  // For a header nothing is evicted that is as large as the file.
  const reserve = range.length >= size * RESERVED_SHARE
  const model = await body.headed(node.open(cid, { include: [path], onDemand: true, reserve, providerTimeoutMs: FOUND_MS, signal }))
  const end = range.offset + range.length
  const ahead: Piece[] = []
  let asked = range.offset
  let wanted = asked
  let reach = endOfBlock(asked) - asked
  const isWhole = range.length === size
  const read: Read = async (offset, into) => {
    await model.read(path, offset, into.length, { into, signal })
    // Who has the last byte of a file may ask for it again, or look whether it is here.
    if (isWhole && offset + into.length === end) await model.waitFor(path, range.offset, range.length, { signal })
  }
  const ask = (): void => {
    const until = Math.min(end, ahead.reduce((at, { bytes }) => at - bytes.length, asked) + reach)
    while (asked < until && ahead.length < AHEAD_PIECES) {
      const buffer = buffers.take()
      const bytes = buffer.subarray(0, Math.min(buffer.length, end - asked, endOfBlock(asked) - asked))
      const piece: Piece = { buffer, bytes, isReady: false, ready: read(asked, bytes).then(() => { piece.isReady = true }) }
      piece.ready.catch(() => undefined) // told when its turn comes, or nobody waits any more
      ahead.push(piece)
      asked += bytes.length
    }
    // Where buffers are short the fetch is to be ahead all the same.
    for (wanted = Math.max(wanted, asked); wanted < until;) {
      const next = Math.min(end, endOfBlock(wanted))
      model.waitFor(path, wanted, next - wanted, { signal }).catch(() => undefined) // told when it is read
      wanted = next
    }
  }
  let kept: Buffer = Buffer.alloc(0)
  let isFirst = true
  try {
    for (ask(); ahead.length > 0; ask()) {
      const [piece] = ahead as [Piece]
      if (isFirst || !piece.isReady) {
        const ready = isFirst && file.isElsewhere === true ? unlessLost(piece.ready, model, file, body) : piece.ready
        const isSoon = await body.within(ready, DROP_EVERY_MS)
        if (isFirst) await body.headed(ready)
        else if (!isSoon) kept = await drip(ready, kept, body)
        isFirst = false
        reach = isSoon ? AHEAD_BYTES : AHEAD_BYTES_MIN
        ask()
      }
      if (kept.length > 0) await body.write(kept)
      const [, next] = ahead
      const keep = next === undefined || next.isReady ? 0 : Math.min(RESERVE_BYTES, piece.bytes.length)
      const goes = piece.bytes.length - keep
      if (goes > 0) await body.write(piece.bytes.subarray(0, goes))
      kept = Buffer.from(piece.bytes.subarray(goes))
      buffers.give(piece.buffer)
      ahead.shift()
    }
    body.end()
    // What went out of memory is not thrown away on its way to the disk.
    await model.waitFor(path, range.offset, range.length, { signal: AbortSignal.timeout(RECORDED_MS) }).catch(() => undefined)
  } finally {
    over.abort(new AbortError('the answer has ended'))
    model.close()
    // Not before nobody fills them any more.
    for (const { ready, buffer } of ahead) void ready.catch(() => undefined).finally(() => { buffers.give(buffer) })
  }
}

/** Where the block ends in which a piece begins, as large blocks are cut, or the next one: what is left of it is enough to be kept back. */
function endOfBlock (offset: number): number {
  return Math.ceil((offset + RESERVE_BYTES) / BLOCK_BYTES_MAX) * BLOCK_BYTES_MAX
}

/** Lets go a drop of the bytes that are kept back, and another every while, until it is ready. Says which are left. */
async function drip (ready: Promise<void>, kept: Buffer, body: Body): Promise<Buffer> {
  let left = kept
  do {
    if (left.length > 0) await body.write(left.subarray(0, DROP_BYTES))
    left = left.subarray(DROP_BYTES)
  } while (!await body.within(ready, DROP_EVERY_MS))
  return left
}

/** Waits for the first piece. Throws NoProviderError when nothing comes of the model, or of this for longer. */
async function unlessLost (ready: Promise<void>, model: OpenModel, { cid, path }: StreamedFile, body: Body): Promise<void> {
  for (let waitedMs = LOOK_MS; !await body.within(ready, LOOK_MS); waitedMs += LOOK_MS) {
    const isSilent = model.progress().rate < NOTHING_BYTES_PER_SECOND
    if (waitedMs >= (isSilent ? LOST_MS : LATE_MS)) throw new NoProviderError(`nobody gives ${path} of ${cid}; ask again`)
  }
}
