import assert from 'node:assert/strict'
import type { CID } from 'multiformats/cid'
import {
  BLOCK_BYTES_MAX, KiB, LANE_FRAME_PAYLOAD_BYTES_MAX, MiB, PeerGoneError, SERVER_REQUESTS_PER_PEER_MAX, SERVE_SLOTS, randomInt, seededRandom, silentLogger, systemClock, type Random
} from '../../src/base/index.ts'
import { SlotPool, createMemoryStore, type ModelStore, type Slot } from '../../src/storage/index.ts'
import type { BlockChecks } from '../../src/transfer/block-checks.ts'
import { BlockServer } from '../../src/transfer/block-server.ts'
import { FramedBlockTransport, type BlockTransport, type BlockTransportHandler } from '../../src/transfer/block-transport.ts'
import type { FrameStream, OpenFrames } from '../../src/transfer/frame-stream.ts'
import { CANCEL, CANCELLED, DATA, REQUEST, blockServerRules, decodeRequests, encodeHead, encodeIds } from '../../src/transfer/messages.ts'
import { PeerLink } from '../../src/transfer/peer-link.ts'
import { encodeFrame, packData } from '../../src/transfer/wire.ts'
import { contentOf, load, sampleOf, seedOf, settings } from './store-fixtures.ts'
import { until } from '../support/until.ts'

export interface TransportHarness {
  /** Two ends. Each open() is a new way from one to the other, where `accept` is given it. */
  create: () => Promise<TransportEnds>
  /** How long to try to make it write into memory that it no longer may, each way of trying; undefined: it never asks where bytes should go. */
  attackMs?: number
  /** What links check their blocks with. */
  checks?: BlockChecks
}

export interface TransportEnds {
  open: (accept: (open: OpenFrames) => void) => Promise<OpenFrames>
  stop: () => Promise<void>
}

interface TestBlock { cid: CID, bytes: Buffer }

const seed = seedOf()
const SOON = { withinMs: 10_000, everyMs: 2 }

/** Between the pieces of a test that wait for nothing in particular: all that is ready happens. */
async function turns (count = 1): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise(resolve => { setImmediate(resolve) })
}

async function pause (ms: number): Promise<void> { await new Promise(resolve => { setTimeout(resolve, ms) }) }

function blocksOf (random: Random, sizes: number[]): { blocks: TestBlock[], sample: ReturnType<typeof sampleOf> } {
  const content = contentOf(random, sizes.reduce((sum, size) => sum + size, 0))
  const sample = sampleOf([{ path: 'model.bin', content, sizes }])
  let at = 0
  const blocks = [...sample.files[0]?.index.value.blocks ?? []].map((cid, i) => ({ cid, bytes: content.subarray(at, at += sizes[i] ?? 0) }))
  return { blocks, sample }
}

/** The node's own server of blocks over a store in memory. */
class Serving {
  readonly server: BlockServer
  readonly violations: string[] = []
  readonly blocks: TestBlock[]
  sentBytes = 0
  readonly #store: ModelStore

  private constructor (store: ModelStore, blocks: TestBlock[]) {
    this.#store = store
    this.blocks = blocks
    this.server = new BlockServer({ store, clock: systemClock, logger: silentLogger }, {
      serverRequestsPerPeer: SERVER_REQUESTS_PER_PEER_MAX, requestTimeoutMs: 60_000, uploadBytesPerSecond: undefined
    }, {
      sent: (_peerId, bytes) => { this.sentBytes += bytes },
      violation: (_peerId, reason) => { this.violations.push(reason) }
    })
  }

  static async start (random: Random, sizes: number[]): Promise<Serving> {
    const store = createMemoryStore({ clock: systemClock, random: seededRandom(1), logger: silentLogger, settings: { ...settings, slots: 4 } })
    await store.start()
    const { blocks, sample } = blocksOf(random, sizes)
    await load(store, sample)
    return new Serving(store, blocks)
  }

  readonly accept = (open: OpenFrames): void => { assert(this.server.accept('client', open)) }

  block (i: number): TestBlock {
    const block = this.blocks[i]
    assert(block !== undefined)
    return block
  }

  async stop (): Promise<void> {
    this.server.stop()
    await this.#store.stop()
  }
}

/**
 * A server that sends as fast as it can, in frames of any size, and takes no notice of cancels: every block comes in full.
 * Allowed, and the worst a client can have.
 */
function stubborn (blocks: TestBlock[], random: Random): (open: OpenFrames) => void {
  const bytesOf = new Map(blocks.map(({ cid, bytes }) => [cid.toString(), bytes]))
  return open => {
    const answers: Array<{ id: number, bytes: Buffer, sent: number }> = []
    const pump = (): void => {
      while (!frames.blocked) {
        const [answer] = answers
        if (answer === undefined) return
        if (answer.sent === 0) frames.send(encodeHead(answer.id, answer.bytes.length))
        const bytes = random.next() < 0.1 ? 1 + randomInt(random, 300) : random.next() < 0.5 ? 16 * KiB + randomInt(random, 60 * KiB) : frames.shape.frameBytesMax
        const frameBytesMax = Math.min(bytes, frames.shape.frameBytesMax)
        const packed = packData(DATA, answer.id, answer.bytes, answer.sent, { frameBytesMax, sendBytesMax: frameBytesMax }, length => frames.allocate(length))
        answer.sent += packed.bytes
        if (answer.sent === answer.bytes.length) answers.shift()
        frames.send(packed.frames)
      }
    }
    const frames: FrameStream = open(blockServerRules, {
      frame: (type, body) => {
        if (type === CANCEL) return
        for (const { id, cid } of decodeRequests(body)) answers.push({ id, bytes: bytesOf.get(cid.toString()) ?? Buffer.alloc(1), sent: 0 })
        pump()
      },
      data: () => undefined,
      drained: pump,
      closed: () => { answers.length = 0 }
    })
  }
}

interface Ending { id: number, how: 'complete' | 'not-here' | 'cancelled' }

/** Writes down all that a transport tells. */
class Client implements BlockTransportHandler {
  readonly transport: BlockTransport
  readonly heads: Array<{ id: number, size: number }> = []
  readonly endings: Ending[] = []
  readonly closedWith: Error[] = []
  /** Bytes of each request, as they came. */
  readonly bytes = new Map<number, Buffer[]>()
  calls = 0
  /** After every call, with what it was. */
  after: (call: 'head' | 'data' | 'end', id: number) => void = () => undefined
  #next = 1

  constructor (open: OpenFrames) { this.transport = new FramedBlockTransport(open, this) }

  ask (cid: CID): number {
    const id = this.#next++
    this.transport.request(id, cid)
    return id
  }

  content (id: number): Buffer { return Buffer.concat(this.bytes.get(id) ?? []) }
  ended (id: number): Ending['how'] | undefined { return this.endings.find(ending => ending.id === id)?.how }

  head (id: number, size: number): void {
    this.calls++
    this.heads.push({ id, size })
    this.bytes.set(id, [])
    this.after('head', id)
  }

  data (id: number, bytes: Uint8Array, isLast: boolean): void {
    this.calls++
    assert(bytes.length > 0)
    assert.equal(this.ended(id), undefined, 'bytes after the last ones')
    this.bytes.get(id)?.push(Buffer.from(bytes)) // they are valid during the call only
    if (isLast) this.#end(id, 'complete')
    this.after('data', id)
  }

  place (): undefined { return undefined }
  notHere (id: number): void { this.calls++; this.#end(id, 'not-here'); this.after('end', id) }
  cancelled (id: number): void { this.calls++; this.#end(id, 'cancelled'); this.after('end', id) }
  closed (error: Error): void { this.calls++; this.closedWith.push(error) }

  #end (id: number, how: Ending['how']): void {
    assert.equal(this.ended(id), undefined, `request ${id} ended twice`)
    this.endings.push({ id, how })
  }
}

const FREE = 0xa5
const FREE_BYTES = Buffer.alloc(BLOCK_BYTES_MAX + 4 * KiB, FREE)

/** Slots that see it when somebody writes into one that is free. */
class WatchedSlots extends SlotPool {
  readonly #held = new Set<Slot>()
  readonly #known = new Set<Slot>()

  override tryAcquire (): Slot | undefined {
    const slot = super.tryAcquire()
    return slot === undefined ? undefined : this.#watch(slot)
  }

  override acquire (then: (slot: Slot) => void): () => void {
    return super.acquire(slot => { then(this.#watch(slot)) })
  }

  /** All of them are free, and as they were left. */
  check (): void {
    assert.equal(this.#held.size, 0, 'a slot is still held')
    assert.equal(this.free, this.size)
    for (const slot of this.#known) assertFree(slot.slab)
  }

  #watch (slot: Slot): Slot {
    if (this.#held.has(slot)) return slot
    if (this.#known.has(slot)) {
      assertFree(slot.slab)
    } else {
      this.#known.add(slot)
      const release = slot.release.bind(slot)
      slot.release = () => {
        if (this.#held.delete(slot)) slot.slab.fill(FREE)
        release()
      }
    }
    this.#held.add(slot)
    return slot
  }
}

function assertFree (memory: Uint8Array): void {
  assert(FREE_BYTES.subarray(0, memory.length).equals(memory), 'memory was written into after it had been given back')
}

const SMALL = 300

/** What every transport of blocks does: BlockTransport over any FrameStream. */
export function transportCompliance (name: string, harness: TransportHarness): void {
  describe(`${name}: transport compliance (seed ${seed})`, function () {
    this.timeout(20_000)
    const { checks } = harness
    const random = seededRandom(seed)
    let ends: TransportEnds
    let small: Serving
    let large: Serving

    before(async () => {
      ends = await harness.create()
      // A 4 MiB block after each fifty small ones.
      small = await Serving.start(random, Array.from({ length: SMALL }, (_, i) => i % 50 === 49 ? BLOCK_BYTES_MAX : 1 + randomInt(random, 16 * KiB)))
      large = await Serving.start(random, Array.from({ length: 6 }, () => BLOCK_BYTES_MAX))
    })

    after(async () => {
      await ends.stop()
      await small.stop()
      await large.stop()
      assert.deepEqual([...small.violations, ...large.violations], [])
    })

    async function clientOf (serving: Serving): Promise<Client> { return new Client(await ends.open(serving.accept)) }

    /** Requests the first `count` blocks, and resolves when all have come; checks them. */
    async function askAll (client: Client, serving: Serving, ids: Map<number, TestBlock>): Promise<void> {
      for (const block of serving.blocks) ids.set(client.ask(block.cid), block)
      await until('all blocks', () => client.endings.length === ids.size, SOON)
      assert.deepEqual(client.heads.map(({ id }) => id), [...ids.keys()], 'heads in the order of the requests')
      for (const [id, { bytes }] of ids) {
        assert.equal(client.ended(id), 'complete')
        assert(client.content(id).equals(bytes), `request ${id}: other bytes than it should have`)
      }
    }

    it(`${SMALL} blocks of a byte to 4 MiB, all asked for at once: each exactly, once and in order`, async () => {
      const client = await clientOf(small)
      const ids = new Map<number, TestBlock>()
      await askAll(client, small, ids)
      for (const { id, size } of client.heads) assert.equal(size, ids.get(id)?.bytes.length)
      const { calls } = client
      await pause(20)
      assert.equal(client.calls, calls)
      client.transport.close()
    })

    it('what is not here is told before what is asked for before it has come', async () => {
      const client = await clientOf(large)
      const before = [0, 1, 2, 3].map(i => client.ask(large.block(i).cid))
      const lacking = client.ask(small.block(0).cid)
      await until('all ends', () => client.endings.length === 5, SOON)
      assert.equal(client.ended(lacking), 'not-here')
      assert(client.endings.findIndex(({ id }) => id === lacking) < client.endings.findIndex(({ id }) => id === before[3]))
      client.transport.close()
    })

    it('ids rise', async () => {
      const client = await clientOf(small)
      client.transport.request(5, small.block(0).cid)
      for (const id of [5, 4, 0]) assert.throws(() => { client.transport.request(id, small.block(0).cid) }, RangeError)
      client.transport.abort(new PeerGoneError('enough'))
    })

    it('cancelled before it was sent, before its head, within its bytes, within a call, twice, and after its end: it ends once', async () => {
      for (let round = 0; round < 3; round++) {
        const client = await clientOf(large)
        const ids: number[] = []
        client.after = (call, id) => {
          if (call === 'head' && random.next() < 0.2) client.transport.cancel(id)
          if (call === 'data' && random.next() < 0.02) client.transport.cancel(id)
          if (random.next() < 0.02) client.transport.cancel(ids[randomInt(random, ids.length)] ?? 1)
        }
        for (let i = 0; i < 16; i++) {
          ids.push(client.ask(large.block(i % 6).cid))
          if (random.next() < 0.2) client.transport.cancel(ids[randomInt(random, ids.length)] ?? 1)
          if (random.next() < 0.3) await turns(randomInt(random, 4))
        }
        await until('all end', () => client.endings.length === ids.length, SOON)
        client.after = () => undefined
        for (const id of ids) client.transport.cancel(id)
        const last = client.ask(large.block(0).cid)
        await until('the last one ends', () => client.ended(last) === 'complete', SOON)
        assert.deepEqual(client.endings.map(({ id }) => id).sort((a, b) => a - b), [...ids, last])
        for (const [i, id] of ids.entries()) {
          const { bytes } = large.block(i % 6)
          const came = client.content(id)
          assert(came.equals(bytes.subarray(0, came.length)))
          if (client.ended(id) === 'complete') assert.equal(came.length, bytes.length)
        }
        assert.deepEqual(client.closedWith, [])
        client.transport.close()
      }
    })

    it('hold() from outside: not a call until resume(), and nothing is lost', async () => {
      const client = await clientOf(large)
      const all = askAll(client, large, new Map())
      for (let i = 0; i < 12; i++) {
        await until('something came', () => client.endings.length === 6 || client.calls > 10 * i, SOON)
        client.transport.hold()
        if (i % 3 === 0) client.transport.hold() // holds do not add up
        const { calls } = client
        await pause(5)
        assert.equal(client.calls, calls, 'called while held')
        client.transport.resume()
      }
      await all
      client.transport.close()
    })

    for (const [when, resume] of [
      ['within the same call', (go: () => void) => { go() }],
      ['in a microtask', (go: () => void) => { queueMicrotask(go) }],
      ['in the next turn', (go: () => void) => { setImmediate(go) }],
      ['later', (go: () => void) => { setTimeout(go, 2) }]
    ] as const) {
      it(`hold() within a call, resume() ${when}: what had arrived with it waits, too`, async () => {
        const client = await clientOf(small)
        let held: number | undefined
        let holds = 0
        client.after = () => {
          assert.equal(held, undefined, 'called while held')
          if (random.next() > 0.05) return
          holds++
          client.transport.hold()
          held = client.calls
          resume(() => {
            assert.deepEqual(client.closedWith, [])
            assert.equal(client.calls, held)
            held = undefined
            client.transport.resume()
          })
        }
        await askAll(client, small, new Map())
        assert(holds > 5)
        client.transport.close()
      })
    }

    for (const way of ['close', 'abort'] as const) {
      const end = ({ transport }: Client): void => { if (way === 'close') transport.close(); else transport.abort(new PeerGoneError('enough')) }

      it(`${way}() from outside falls silent, and the server lets go of everything`, async () => {
        for (let round = 0; round < 2; round++) {
          const client = await clientOf(large)
          for (const { cid } of large.blocks) client.ask(cid)
          await until('something came', () => client.calls > 40 * round, SOON)
          end(client)
          const { calls } = client
          await until('the server lets go', () => large.server.open === 0 && large.server.slotsFree === SERVE_SLOTS, SOON)
          await pause(10)
          assert.equal(client.calls, calls)
          assert.deepEqual(client.closedWith, [])
          end(client)
          client.transport.resume()
        }
      })

      for (const within of ['head', 'data', 'end'] as const) {
        it(`${way}() within a call (${within}) falls silent at once`, async () => {
          const client = await clientOf(small)
          let left = 5
          let endedAt: number | undefined
          client.after = call => {
            assert.equal(endedAt, undefined, 'called after its end')
            if (call !== within || --left > 0) return
            end(client)
            endedAt = client.calls
          }
          for (let i = 0; i < 40; i++) {
            client.ask(small.block(i).cid)
            if (i % 3 === 0) client.ask(large.block(0).cid) // not here
          }
          await until('it ended', () => endedAt !== undefined, SOON)
          await until('the server lets go', () => small.server.open === 0, SOON)
          await pause(10)
          assert.equal(client.calls, endedAt)
          assert.deepEqual(client.closedWith, [])
        })
      }

      it(`${way}() while held falls silent`, async () => {
        const client = await clientOf(large)
        client.ask(large.block(0).cid)
        await until('something came', () => client.calls > 3, SOON)
        client.transport.hold()
        end(client)
        client.transport.resume()
        const { calls } = client
        await until('the server lets go', () => large.server.open === 0, SOON)
        assert.equal(client.calls, calls)
      })
    }

    it("the other end's death is told once, and every open request of a link fails once", async () => {
      let frames: FrameStream | undefined
      const open = await ends.open(accepted => { frames = accepted(blockServerRules, { frame: () => undefined, data: () => undefined, drained: () => undefined, closed: () => undefined }) })
      const closed: Error[] = []
      const failed: string[] = []
      const slots = new SlotPool(2, { shared: true })
      const link = new PeerLink('server', open, { slots, checks, clock: systemClock }, { received: () => 0, closed: error => { closed.push(error) } })
      const job = (block: TestBlock): Parameters<PeerLink['requestBlock']>[0] => ({
        cid: block.cid,
        size: block.bytes.length,
        fileOffset: 0,
        started: () => undefined,
        received: () => undefined,
        verified: slot => { slot.release(); failed.push('verified') },
        failed: reason => { failed.push(reason) },
        otherSize: () => { failed.push('other size') },
        wasted: () => undefined
      })
      for (const block of large.blocks) link.requestBlock(job(block))
      await until('the server is there', () => frames !== undefined, SOON)
      // Dies in the middle of the first block.
      const { bytes } = large.block(0)
      frames?.send(encodeHead(1, bytes.length))
      if (frames !== undefined) frames.send(packData(DATA, 1, bytes, 0, frames.shape, length => new Uint8Array(length)).frames)
      await until('a slot is taken', () => slots.free === 1, SOON)
      frames?.abort(new PeerGoneError('dead'))
      await until('it is told', () => closed.length > 0, SOON)
      link.requestBlock(job(large.block(0)))
      await pause(10)
      assert.deepEqual(closed.map(error => error.name), ['PeerGoneError'])
      assert.deepEqual(failed, large.blocks.map(() => 'gone').concat('gone'))
      assert.equal(link.closed, true)
      await until('its slot is back', () => slots.free === 2, SOON)
    })

    for (const [how, end] of [
      ['is cancelled', (link: PeerLink, id: number) => { link.cancel(id) }],
      ['lost its link', (link: PeerLink, id: number) => { link.abort(new PeerGoneError('gone')); link.cancel(id) }]
    ] as const) {
      it(`a wrong block that ${how} while it is being checked is its sender's fault all the same`, async () => {
        let frames: FrameStream | undefined
        const open = await ends.open(accepted => { frames = accepted(blockServerRules, { frame: () => undefined, data: () => undefined, drained: () => undefined, closed: () => undefined }) })
        const slots = new SlotPool(1, { shared: true })
        const told: string[] = []
        const link = new PeerLink('server', open, { slots, checks, clock: systemClock }, { received: () => 0, closed: error => { told.push(error.name) }, wrong: error => { told.push(error.name) } })
        const { cid, bytes } = large.block(0)
        let left = bytes.length
        const id = link.requestBlock({
          cid,
          size: bytes.length,
          fileOffset: 0,
          started: () => undefined,
          received: count => {
            left -= count
            if (left === 0) queueMicrotask(() => { end(link, id) })
          },
          verified: slot => { slot.release(); told.push('verified') },
          failed: () => undefined,
          otherSize: () => { told.push('other size') },
          wasted: () => undefined
        })
        await until('the server is there', () => frames !== undefined, SOON)
        const wrong = Buffer.from(bytes)
        wrong[wrong.length - 1] = (wrong.at(-1) ?? 0) ^ 1
        frames?.send(encodeHead(1, wrong.length))
        for (let at = 0; frames !== undefined && at < wrong.length;) {
          const sent = packData(DATA, 1, wrong, at, frames.shape, length => new Uint8Array(length))
          at += sent.bytes
          frames.send(sent.frames)
          while (frames.blocked) await pause(1)
        }
        await until('it is blamed', () => told.length > 0, SOON)
        assert.deepEqual(told, ['HashMismatchError'])
        await until('its slot is back', () => slots.free === 1, SOON)
        link.close()
      })
    }

    for (const [how, end] of [
      ['cancelled', (link: PeerLink, id: number) => { link.cancel(id) }],
      ['closed', (link: PeerLink) => { link.close() }],
      ['aborted', (link: PeerLink) => { link.abort(new PeerGoneError('enough')) }]
    ] as const) {
      it(`a request that is ${how} when its last bytes are told is not verified after that, and gives its slot back`, async () => {
        const slots = new SlotPool(1, { shared: true })
        const told: string[] = []
        const link = new PeerLink('server', await ends.open(large.accept), { slots, checks, clock: systemClock }, { received: () => 0, closed: ({ message }) => { told.push(message) } })
        const { cid, bytes } = large.block(0)
        let left = bytes.length
        const id = link.requestBlock({
          cid,
          size: bytes.length,
          fileOffset: 0,
          started: () => undefined,
          received: count => {
            left -= count
            if (left > 0) return
            end(link, id)
            told.length = 0
          },
          verified: slot => { told.push('verified'); slot.release() },
          failed: reason => { told.push(reason) },
          otherSize: () => { told.push('other size') },
          wasted: () => undefined
        })
        await until('it has come', () => left === 0, SOON)
        await until('its slot is back', () => slots.free === 1, SOON)
        await pause(5)
        link.close()
        assert.deepEqual(told, [])
      })
    }

    it('a request that waits for the slot of one that was cancelled gets it, and goes on', async () => {
      const slots = new WatchedSlots(1)
      const link = new PeerLink('server', await ends.open(large.accept), { slots, checks, clock: systemClock }, { received: () => 0, closed: error => { assert.fail(error) } })
      const ask = (block: TestBlock, told: { bytes: number, verified: boolean }): number => link.requestBlock({
        cid: block.cid,
        size: block.bytes.length,
        fileOffset: 0,
        started: () => undefined,
        received: count => { told.bytes += count },
        verified: slot => {
          told.verified = true
          assert(block.bytes.equals(slot.bytes))
          slot.release()
        },
        failed: reason => { assert.fail(reason) },
        otherSize: () => { assert.fail('its size is right') },
        wasted: () => undefined
      })
      for (let round = 0; round < 12; round++) {
        const [first, second] = [{ bytes: 0, verified: false }, { bytes: 0, verified: false }]
        const id = ask(large.block(round % 6), first)
        await until('it comes', () => first.bytes > 0, SOON)
        await turns(round % 5)
        ask(large.block((round + 1) % 6), second)
        link.cancel(id)
        await until(`the second comes (round ${round})`, () => second.verified, { ...SOON, withinMs: 2_000 })
      }
      link.close()
      await until('the slot is back', () => slots.free === 1, SOON)
      slots.check()
    })

    it('the same when the end of the first, the cancel and the head of the second come in one piece', async () => {
      const [first, second] = [large.block(0), large.block(1)]
      const slots = new WatchedSlots(1)
      let frames: FrameStream | undefined
      const open = await ends.open(accepted => {
        // One data frame of 64 KiB, of which all but the last KiB comes first.
        const cut = 63 * KiB
        frames = accepted(blockServerRules, {
          frame: (type, body) => {
            const shape = { frameBytesMax: 64 * KiB - 9, sendBytesMax: 64 * KiB - 9 }
            const whole = packData(DATA, 1, first.bytes, 0, shape, length => new Uint8Array(length)).frames
            if (type !== CANCEL) {
              if (decodeRequests(body)[0]?.id === 1) frames?.send(Buffer.concat([encodeHead(1, first.bytes.length), whole.subarray(0, cut)]))
              return
            }
            const begin = packData(DATA, 2, second.bytes, 0, { frameBytesMax: KiB, sendBytesMax: KiB }, length => new Uint8Array(length))
            frames?.send(Buffer.concat([whole.subarray(cut), ...encodeIds(CANCELLED, [1]), encodeHead(2, second.bytes.length), begin.frames]))
            setTimeout(() => {
              for (let at = begin.bytes; at < second.bytes.length;) {
                const next = packData(DATA, 2, second.bytes, at, shape, length => new Uint8Array(length))
                at += next.bytes
                frames?.send(next.frames)
              }
            }, 20)
          },
          data: () => undefined,
          drained: () => undefined,
          closed: () => undefined
        })
      })
      const link = new PeerLink('server', open, { slots, checks, clock: systemClock }, { received: () => 0, closed: error => { assert.fail(error) } })
      let came = 0
      let verified = false
      const job = { fileOffset: 0, started: () => undefined, otherSize: () => undefined, failed: () => undefined, wasted: () => undefined }
      const id = link.requestBlock({ ...job, cid: first.cid, size: first.bytes.length, received: bytes => { came += bytes }, verified: slot => { slot.release() } })
      await until('the first comes', () => came > 0, SOON)
      await pause(20)
      link.requestBlock({ ...job, cid: second.cid, size: second.bytes.length, received: () => undefined, verified: slot => { verified = true; slot.release() } })
      link.cancel(id)
      await until('the second comes', () => verified, { ...SOON, withinMs: 2_000 })
      link.close()
      await until('the slot is back', () => slots.free === 1, SOON)
      slots.check()
    })

    it('the slot of a cancelled request whose peer has fallen silent goes to whoever waits', async () => {
      const { cid, bytes } = large.block(0)
      const slots = new WatchedSlots(1)
      const open = await ends.open(accepted => {
        const frames: FrameStream = accepted(blockServerRules, {
          frame: type => {
            if (type === CANCEL) return
            const { frames: whole } = packData(DATA, 1, bytes, 0, { frameBytesMax: 65_000, sendBytesMax: 65_000 }, length => new Uint8Array(length))
            frames.send(Buffer.concat([encodeHead(1, bytes.length), whole.subarray(0, 60_000)]))
          },
          data: () => undefined,
          drained: () => undefined,
          closed: () => undefined
        })
      })
      const link = new PeerLink('server', open, { slots, checks, clock: systemClock }, { received: () => 0, closed: () => undefined })
      let came = 0
      const id = link.requestBlock({
        cid,
        size: bytes.length,
        fileOffset: 0,
        started: () => undefined,
        received: count => { came += count },
        verified: () => { assert.fail('half of it came') },
        failed: () => { assert.fail('it was cancelled') },
        otherSize: () => undefined,
        wasted: () => undefined
      })
      await until('something came', () => came > 0, SOON)
      await pause(20)
      link.cancel(id)
      let given: Slot | undefined
      slots.acquire(slot => { given = slot })
      // What PeerLinks does while somebody waits, much later.
      await until('it is given up', () => {
        if (given === undefined) link.giveUpSlowSlot(systemClock.monotonic() + 60_000)
        return given !== undefined
      }, { ...SOON, withinMs: 1_000 })
      given?.release()
      link.close()
      await pause(10)
      slots.check()
    })

    for (const [what, rubbish] of [
      ['a frame that has no place here', () => encodeFrame(REQUEST, new Uint8Array(4))],
      ['an answer that nobody asked for', () => encodeHead(77, 1)],
      ['bytes without a head', () => encodeFrame(DATA, Buffer.from([1, 0, 0, 0, 9]))],
      ['an end as cancelled of what was not', () => encodeIds(CANCELLED, [1])[0] ?? new Uint8Array()],
      ['a frame beyond the largest', () => encodeFrame(DATA, new Uint8Array(5 + LANE_FRAME_PAYLOAD_BYTES_MAX))]
    ] as const) {
      it(`${what} ends it, as the other side's fault`, async () => {
        let frames: FrameStream | undefined
        const client = new Client(await ends.open(open => {
          frames = open(blockServerRules, { frame: () => { frames?.send(rubbish()) }, data: () => undefined, drained: () => undefined, closed: () => undefined })
        }))
        client.ask(small.block(0).cid)
        await until('it ends', () => client.closedWith.length > 0, SOON)
        await pause(5)
        assert.deepEqual(client.closedWith.map(({ name }) => name), ['ProtocolError'])
        assert.equal(client.calls, 1)
      })
    }

    it('a reader that takes nothing stops the server long before it has sent what was asked for', async () => {
      const client = await clientOf(large)
      client.transport.hold()
      const before = large.sentBytes
      for (let i = 0; i < 60; i++) client.ask(large.block(i % 6).cid)
      let sent = -1
      while (sent !== large.sentBytes) { // it has come to a stop
        sent = large.sentBytes
        await pause(100)
      }
      // The kernel's buffers both ways, or a Yamux window, and the transport's own.
      assert(sent - before > 0 && sent - before < 32 * MiB, `${sent - before} bytes were sent to a reader that took none`)
      assert(large.server.slotsFree >= SERVE_SLOTS - 2)
      assert.equal(client.calls, 0)
      client.transport.abort(new PeerGoneError('enough'))
      await until('the server lets go', () => large.server.open === 0 && large.server.slotsFree === SERVE_SLOTS, SOON)
    })

    const { attackMs } = harness
    if (attackMs === undefined) return

    describe('memory that place() gave', () => {
      for (const server of ['node', 'stubborn'] as const) {
        const acceptor = (serving: Serving): (open: OpenFrames) => void => server === 'node' ? serving.accept : stubborn(serving.blocks, random)

        it(`is never written after settle() called back: cancels, holds and ends at random (${server} server)`, async () => {
          let watched: Uint8Array[] = []
          const ways = { cancel: 0, inside: 0, end: 0, lent: 0 }
          const endsAt = performance.now() + attackMs
          while (performance.now() < endsAt) {
            const memory = new Map<number, { slab: Buffer, filled: number, placed: boolean }>()
            const open = new Set<number>()
            let waiting = 0
            let over = false
            let next = 1
            const give = (id: number): void => {
              const mine = memory.get(id)
              if (!memory.delete(id) || mine === undefined) return
              waiting++
              if (transport.lent) ways.lent++
              transport.settle(() => {
                waiting--
                mine.slab.fill(FREE)
                watched.push(mine.slab)
              })
            }
            const cancel = (id: number): void => { transport.cancel(id); give(id) }
            const finish = (): void => {
              over = true
              ways.end++
              if (random.next() < 0.5) transport.close()
              else transport.abort(new PeerGoneError('enough'))
              for (const id of memory.keys()) give(id)
            }
            const mischief = (id: number): void => {
              if (over) return
              const dice = random.next()
              if (dice < 0.01) { ways.inside++; cancel(id) }
              else if (dice < 0.012) finish()
              else if (dice < 0.03) { transport.hold(); (random.next() < 0.5 ? setImmediate : queueMicrotask)(() => { transport.resume() }) }
            }
            const transport: BlockTransport = new FramedBlockTransport(await ends.open(acceptor(large)), {
              head: (id, size) => {
                assert(!over)
                if (open.has(id)) memory.set(id, { slab: Buffer.alloc(size), filled: 0, placed: false })
                mischief(id)
              },
              place: (id, bytes) => {
                const mine = memory.get(id)
                if (mine !== undefined) mine.placed = true
                return mine?.slab.subarray(mine.filled, mine.filled + bytes)
              },
              data: (id, bytes, isLast) => {
                assert(!over)
                const mine = memory.get(id)
                if (mine !== undefined) {
                  if (bytes.buffer !== mine.slab.buffer || bytes.byteOffset !== mine.slab.byteOffset + mine.filled) mine.slab.set(bytes, mine.filled)
                  mine.filled += bytes.length
                  if (isLast) {
                    assert(mine.slab.equals(large.block((id - 1) % 6).bytes), 'other bytes than it should have')
                    give(id)
                  }
                }
                if (isLast) open.delete(id)
                mischief(id)
              },
              notHere: () => { assert.fail('it is here') },
              cancelled: id => { open.delete(id); mischief(id) },
              closed: error => { assert.fail(error) }
            })
            const ask = (): void => {
              open.add(next)
              transport.request(next, large.block((next - 1) % 6).cid)
              next++
            }
            for (let i = 0; i < 4; i++) ask()
            while (!over) {
              await turns(1 + randomInt(random, 3))
              if (over) break
              if (open.size < 4) ask()
              const dice = random.next()
              const [id] = memory.keys()
              if (dice < 0.3 && id !== undefined) { ways.cancel++; cancel(id) }
              else if (dice < 0.31) finish()
            }
            await until('all memory is given back', () => waiting === 0, SOON)
            for (const slab of watched) assertFree(slab)
            await turns(3)
            for (const slab of watched) assertFree(slab)
            watched = watched.slice(-8)
          }
          assert(ways.cancel + ways.inside > 0 && ways.end > 0, JSON.stringify(ways))
        })

        for (const count of [1, 2]) {
          it(`goes from link to link through ${count} slot(s), and never to two at once (${server} server)`, async () => {
            const slots = new WatchedSlots(count)
            const tally = { verified: 0, cancelled: 0, failed: 0, links: 0 }
            const endsAt = performance.now() + attackMs
            let holding = 0
            const run = async (): Promise<void> => {
              while (performance.now() < endsAt) {
                tally.links++
                const closed: Error[] = []
                const link = new PeerLink('server', await ends.open(acceptor(large)), { slots, checks, clock: systemClock }, {
                  received: () => random.next() < 0.02 ? 1 : 0,
                  closed: error => { closed.push(error) }
                })
                const open = new Map<number, boolean>()
                const cancel = (id: number): void => {
                  if (!open.delete(id)) return
                  tally.cancelled++
                  link.cancel(id)
                }
                const ask = (): void => {
                  const { cid, bytes } = large.block(randomInt(random, 6))
                  let over = false
                  const end = (): void => {
                    assert(!over && open.has(id), 'a request ended twice, or after it was cancelled')
                    over = true
                    open.delete(id)
                  }
                  let left = bytes.length
                  const mischief = (came = 0): void => {
                    left -= came
                    assert(open.has(id), 'told after it was cancelled')
                    if (left === 0) return
                    const dice = random.next()
                    if (dice < 0.04) { over = true; cancel(id) }
                    else if (dice < 0.045) link.close()
                    else if (dice < 0.05) link.abort(new PeerGoneError('enough'))
                  }
                  const id = link.requestBlock({
                    cid,
                    size: bytes.length,
                    fileOffset: randomInt(random, 8 * KiB),
                    started: () => { mischief() },
                    received: mischief,
                    verified: slot => {
                      end()
                      tally.verified++
                      holding++
                      setTimeout(() => {
                        holding--
                        const same = bytes.equals(slot.bytes)
                        slot.release()
                        assert(same, 'a verified slot was written into')
                      }, random.next() < 0.5 ? 0 : 2)
                    },
                    failed: reason => { end(); tally.failed++; assert.equal(reason, 'gone') },
                    otherSize: () => { assert.fail('its size is right') },
                    wasted: () => undefined
                  })
                  open.set(id, true)
                }
                for (let i = 0; i < 30 && !link.closed && performance.now() < endsAt; i++) {
                  if (open.size < 3) ask()
                  await turns(1 + randomInt(random, 6))
                  const [id] = open.keys()
                  if (random.next() < 0.15 && id !== undefined) cancel(id)
                }
                if (random.next() < 0.5) link.close()
                else link.abort(new PeerGoneError('enough'))
                assert.equal(open.size, 0)
                assert.deepEqual(closed, [])
              }
            }
            await Promise.all([run(), run()])
            await until('all slots are free', () => holding === 0 && slots.free === count, SOON)
            await pause(10)
            slots.check()
            assert(tally.verified + tally.cancelled + tally.failed > 0, JSON.stringify(tally))
          })
        }
      }
    })
  })
}
