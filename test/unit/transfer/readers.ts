import assert from 'node:assert/strict'
import type { CID } from 'multiformats/cid'
import { KiB, LANE_FRAME_PAYLOAD_BYTES_MAX, MiB, SERVER_REQUESTS_PER_PEER_MAX, seededRandom, silentLogger, type Clock } from '../../../src/base/index.ts'
import { createMemoryStore, type ModelStore } from '../../../src/storage/index.ts'
import { BlockServer, type BlockServerSettings } from '../../../src/transfer/block-server.ts'
import type { FrameStream, FrameStreamHandler } from '../../../src/transfer/frame-stream.ts'
import { CANCEL, HEAD, REQUEST, REQUEST_LATER, decodeHead, encodeIds, encodeRequests } from '../../../src/transfer/messages.ts'
import { FRAME_HEAD_BYTES } from '../../../src/transfer/wire.ts'
import { contentOf, load, sampleOf, type Sample } from '../../compliance/store-fixtures.ts'

/** Time that goes by when the test says so. */
export class TestClock implements Clock {
  #time = 0
  #timers: Array<{ at: number, fn: () => void }> = []

  now (): number { return this.#time }
  monotonic (): number { return this.#time }

  setTimeout (fn: () => void, delayMs: number): () => void {
    const timer = { at: this.#time + Math.max(0, delayMs), fn }
    this.#timers.push(timer)
    return () => { this.#timers = this.#timers.filter(other => other !== timer) }
  }

  async pass (ms: number): Promise<void> {
    const end = this.#time + ms
    for (;;) {
      await settled()
      const next = this.#timers.reduce<{ at: number, fn: () => void } | undefined>((first, timer) => first !== undefined && first.at <= timer.at ? first : timer, undefined)
      if (next === undefined || next.at > end) break
      this.#time = next.at
      this.#timers = this.#timers.filter(other => other !== next)
      next.fn()
    }
    this.#time = end
  }
}

/** What the server and a store in memory do by themselves is done after that. */
async function settled (): Promise<void> {
  for (let i = 0; i < 4; i++) await new Promise(resolve => { setImmediate(resolve) })
}

/** The server over a store in memory, in time that the test owns. */
export class Served implements AsyncDisposable {
  readonly clock = new TestClock()
  readonly violations: string[] = []
  readonly server: BlockServer
  readonly sample: Sample
  readonly #store: ModelStore

  private constructor (store: ModelStore, sample: Sample, settings: Partial<BlockServerSettings>) {
    this.sample = sample
    this.#store = store
    this.server = new BlockServer({ store, clock: this.clock, logger: silentLogger }, {
      serverRequestsPerPeer: SERVER_REQUESTS_PER_PEER_MAX, requestTimeoutMs: 60_000, uploadBytesPerSecond: undefined, ...settings
    }, { sent: () => undefined, violation: (_peerId, reason) => { this.violations.push(reason) } })
  }

  /** `wrap`: what the server is given for the store. */
  static async start (settings: Partial<BlockServerSettings> = {}, { blockBytes = 4 * MiB, wrap = (store: ModelStore) => store } = {}): Promise<Served> {
    const store = createMemoryStore({
      clock: new TestClock(), random: seededRandom(1), logger: silentLogger,
      settings: { quota: undefined, directIo: 'off', slots: 4, syncBytes: MiB, syncIntervalMs: 20 }
    })
    await store.start()
    const sample = sampleOf([{ path: 'a', content: contentOf(seededRandom(1), 4 * blockBytes), sizes: Array.from({ length: 4 }, () => blockBytes) }])
    await load(store, sample)
    return new Served(wrap(store), sample, settings)
  }

  cid (block: number): CID { return this.sample.files[0]?.index.value.blocks.at(block % 4) as CID }

  /** One that takes so many bytes a second, with nothing asked for yet. */
  reader (peerId: string, bytesPerSecond: number): Reader {
    const reader = new Reader(this, bytesPerSecond)
    assert(this.server.accept(peerId, (_rules, handler) => { reader.handler = handler; return reader }))
    return reader
  }

  async [Symbol.asyncDispose] (): Promise<void> {
    this.server.stop()
    await this.#store.stop()
  }
}

/** The other end of a stream, at a rate of its own. What was asked for with `keep` is asked for again when it is over. */
export class Reader implements FrameStream {
  handler!: FrameStreamHandler
  readonly shape = { frameBytesMax: LANE_FRAME_PAYLOAD_BYTES_MAX, sendBytesMax: LANE_FRAME_PAYLOAD_BYTES_MAX }
  readonly lent = false
  /** Bytes of blocks: those that somebody waits for, and the others. */
  bytes = { first: 0, later: 0 }
  /** Whole blocks. */
  done = 0
  /** Each piece: when it came, and its bytes. */
  readonly pieces: Array<{ at: number, bytes: number }> = []
  /** Types of the other frames. */
  readonly frames: number[] = []
  readonly #served: Served
  readonly #bytesPerSecond: number
  readonly #asked = new Map<number, { later: boolean, keep: boolean }>()
  readonly #sizes = new Map<number, number>()
  #lastId = 0
  #queued = 0
  #leftAt = 0

  constructor (served: Served, bytesPerSecond: number) {
    this.#served = served
    this.#bytesPerSecond = bytesPerSecond
  }

  get blocked (): boolean { return this.#queued >= 256 * KiB }

  ask (count: number, { later = false, keep = false, cid = undefined as CID | undefined } = {}): void {
    const wanted = Array.from({ length: count }, () => ({ id: ++this.#lastId, cid: cid ?? this.#served.cid(this.#lastId) }))
    for (const { id } of wanted) this.#asked.set(id, { later, keep })
    const type = later ? REQUEST_LATER : REQUEST
    for (const frame of encodeRequests(type, wanted)) this.tell(type, frame)
  }

  cancel (ids: number[]): void {
    for (const frame of encodeIds(CANCEL, ids)) this.tell(CANCEL, frame)
  }

  /** As a stream does: what the handler throws ends it. */
  tell (type: number, frame: Uint8Array): void {
    try {
      this.handler.frame(type, frame.subarray(FRAME_HEAD_BYTES))
    } catch (error) {
      this.handler.closed(error as Error)
    }
  }

  allocate (bytes: number): Uint8Array { return new Uint8Array(bytes) }

  send (frames: Uint8Array): boolean {
    this.frames.push(frames[4] ?? 0)
    if (frames[4] === HEAD) {
      const { id, size } = decodeHead(frames.subarray(FRAME_HEAD_BYTES))
      this.#sizes.set(id, size)
    }
    this.#leaves(frames.length)
    return !this.blocked
  }

  sendData (_type: number, id: number, source: Uint8Array, offset: number): number {
    const bytes = Math.min(this.shape.sendBytesMax, source.length - offset)
    const asked = this.#asked.get(id)
    assert(asked !== undefined, 'it was asked for')
    this.bytes[asked.later ? 'later' : 'first'] += bytes
    this.pieces.push({ at: this.#served.clock.monotonic(), bytes })
    this.#leaves(bytes)
    if (offset + bytes === this.#sizes.get(id)) {
      this.done++
      this.#asked.delete(id)
      if (asked.keep) queueMicrotask(() => { this.ask(1, asked) })
    }
    return bytes
  }

  hold (): void { /* what it asks for is no more than a server takes */ }
  resume (): void { /* as above */ }
  settle (done: () => void): void { done() }
  close (): void { this.abort() }
  abort (): void { this.#asked.clear() }

  #leaves (bytes: number): void {
    const { clock } = this.#served
    this.#queued += bytes
    this.#leftAt = Math.max(this.#leftAt, clock.monotonic()) + bytes / this.#bytesPerSecond * 1000
    clock.setTimeout(() => {
      const { blocked } = this
      this.#queued -= bytes
      if (blocked && !this.blocked) this.handler.drained()
    }, this.#leftAt - clock.monotonic())
  }
}
