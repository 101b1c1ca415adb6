/**
 * A file of a model that is on its way from the upstream. It goes out as soon as it is whole and its hash was compared, while the rest of
 * the model still comes; where another node fetches, as soon as that one has published it. Until then, a reader who would give up
 * after ten silent seconds gets its first bytes in drops, as far as anybody has them; they are compared with what the file turns
 * out to be before the rest goes out, so nobody gets a file that is whole and wrong.
 */
import { createHash } from 'node:crypto'
import { AbortError, DiskError, NoProviderError, UpstreamMismatchError, throwIfAborted, withSignal, type Clock } from '../base/index.ts'
import type { ArrivedFile, OriginModel } from '../node/types.ts'
import type { Body } from './body.ts'
import type { ByteRange } from './ranges.ts'
import { streamFile, streamWhole, type StreamComponents } from './stream.ts'

export interface OriginComponents extends StreamComponents { clock: Clock }
export interface OriginFile { path: string, size: number, range: ByteRange }

const DROP_EVERY_MS = 2_000
const DROP_BYTES_MAX = 512
/** Of a range, so that a small one lasts as well: 8 minutes. */
const DROPS_MIN = 256
/** What went out in drops is read again in pieces of this. */
const COMPARE_BYTES = 64 * 1024
/** A peer that has another model, or lost it, is no reason to fail while there are others. */
const TRIES = 4

/** The model that has the file, or the file alone, which is there before its model. */
type Source = { cid: string } | { arrived: ArrivedFile }

/** Throws what cannot be mended; whether that can be told depends on whether the head is out. */
export async function streamOrigin (components: OriginComponents, model: OriginModel, file: OriginFile, body: Body): Promise<void> {
  const { path, size } = file
  const drops = new Drops(components.clock, model, file, body)
  for (let tries = 1; ; tries++) {
    const source = await drops.meanwhile(sourceOf(model, path, body.signal))
    if ('arrived' in source) {
      await sendArrived(components, source.arrived, drops, path, body)
      return
    }
    const { cid } = source
    try {
      await compareModel(components, { cid, path }, drops)
      await streamFile(components, { cid, path, size, range: drops.rest, isElsewhere: true }, body)
      return
    } catch (error) {
      if (!(error instanceof NoProviderError)) throw error
      model.lose(cid) // so that the upstream is asked, now or by the next who asks
      // Who has got bytes of it comes back for the rest by a range.
      if (body.sent > drops.sent || tries === TRIES) throw error
    }
  }
}

/** Whatever is there first. */
async function sourceOf (model: OriginModel, path: string, signal: AbortSignal): Promise<Source> {
  const over = new AbortController()
  const found = here(model, path, signal).then(cid => ({ cid }))
  const arrival = model.arrival(path, AbortSignal.any([signal, over.signal])).then(arrived => ({ arrived }))
  let source: Source | undefined
  try {
    // A file that cannot be opened comes with the model.
    return source = await Promise.race([found, arrival.catch(async () => await found)])
  } finally {
    over.abort(new AbortError('the file is not waited for any more'))
    if (source === undefined || 'cid' in source) arrival.then(release, () => undefined)
  }
}

function release (source: Source): void {
  if ('arrived' in source) source.arrived.close().catch(() => undefined) // of a file that was read only
}

async function sendArrived (components: StreamComponents, arrived: ArrivedFile, drops: Drops, path: string, body: Body): Promise<void> {
  try {
    await compare(drops, path, async (offset, into) => { await arrived.read(offset, into) })
    const { rest } = drops
    const sent = await streamWhole(components, arrived, rest, body)
    if (sent < rest.length) throw new DiskError(`${path} came from the upstream and cannot be read any more; ask again`)
    body.end()
  } finally {
    await arrived.close()
  }
}

/** The model that has the file, which is compared with the upstream's hash. */
async function here (model: OriginModel, path: string, signal: AbortSignal): Promise<string> {
  for (let tries = 1; ; tries++) {
    throwIfAborted(signal)
    const cid = await model.find(signal)
    if (model.isVerified(cid, path)) return cid
    try {
      await model.verify(path, signal)
      if (model.isVerified(cid, path)) return cid // it may be another one by now
    } catch (error) {
      if (tries >= TRIES || !(error instanceof UpstreamMismatchError || error instanceof NoProviderError)) throw error
      if (error instanceof NoProviderError) model.lose(cid)
    }
  }
}

async function compareModel ({ node }: StreamComponents, { cid, path }: { cid: string, path: string }, drops: Drops): Promise<void> {
  if (drops.sent === 0) return
  const model = await node.open(cid, { include: [path] })
  try {
    await compare(drops, path, async (offset, into) => { await model.read(path, offset, into.length, { into }) })
  } finally {
    model.close()
  }
}

/** Throws UpstreamMismatchError when what went out in drops was something else: the connection is cut then. */
async function compare (drops: Drops, path: string, read: (offset: number, into: Uint8Array) => Promise<void>): Promise<void> {
  const hash = createHash('sha256')
  const buffer = Buffer.alloc(Math.min(COMPARE_BYTES, drops.sent))
  for (let at = 0; at < drops.sent; at += buffer.length) {
    const into = buffer.subarray(0, Math.min(buffer.length, drops.sent - at))
    await read(drops.offset + at, into)
    hash.update(into)
  }
  if (!hash.digest().equals(drops.digest())) throw new UpstreamMismatchError(`the first ${drops.sent} bytes of ${path} were others than those of the file, and the answer is cut off; ask again`)
}

class Drops {
  sent = 0
  readonly #clock: Clock
  readonly #model: OriginModel
  readonly #file: OriginFile
  readonly #body: Body
  readonly #hash = createHash('sha256')

  constructor (clock: Clock, model: OriginModel, file: OriginFile, body: Body) {
    this.#clock = clock
    this.#model = model
    this.#file = file
    this.#body = body
  }

  /** Where the range begins. */
  get offset (): number { return this.#file.range.offset }
  /** What is still to be sent. */
  get rest (): ByteRange { return { offset: this.offset + this.sent, length: this.#file.range.length - this.sent } }
  digest (): Buffer { return this.#hash.copy().digest() }

  /** Waits for `ready`, and keeps the reader there. When that one leaves, `ready` is let go of whatever is being sent. */
  async meanwhile (ready: Promise<Source>): Promise<Source> {
    ready.catch(() => undefined) // told below, or nobody waits any more
    try {
      return await withSignal(this.#wait(ready), this.#body.signal)
    } catch (error) {
      ready.then(release, () => undefined)
      throw error
    }
  }

  async #wait (ready: Promise<Source>): Promise<Source> {
    const isSoon = this.#body.begun ? await this.#body.within(ready, DROP_EVERY_MS) : await this.#body.isSoon(ready)
    if (isSoon) return await ready
    this.#body.sendHead()
    for (;;) {
      throwIfAborted(this.#body.signal)
      await this.#drop()
      if (await this.#body.within(ready, DROP_EVERY_MS)) return await ready
    }
  }

  /** The last byte of a file is never one of them. */
  async #drop (): Promise<void> {
    const { path, range } = this.#file
    const { signal } = this.#body
    const length = Math.min(Math.max(1, Math.min(DROP_BYTES_MAX, Math.floor(range.length / DROPS_MIN))), range.length - 1 - this.sent)
    if (length <= 0) return
    const over = new AbortController()
    const cancel = this.#clock.setTimeout(() => { over.abort(new AbortError('it took too long')) }, DROP_EVERY_MS)
    let bytes: Uint8Array | undefined
    try {
      bytes = await this.#model.peek(path, range.offset + this.sent, { length, signal: AbortSignal.any([signal, over.signal]) })
    } catch {
      throwIfAborted(signal)
    } finally {
      cancel()
    }
    if (bytes === undefined || bytes.length === 0) return
    const drop = bytes.subarray(0, length)
    this.#hash.update(drop)
    this.sent += drop.length
    await this.#body.write(drop)
  }
}
