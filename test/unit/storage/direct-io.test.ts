import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { open, readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { BLOCK_BYTES_MAX, PAGE_BYTES, STORE_HANDLES_MAX, seededRandom, shuffle, silentLogger } from '../../../src/base/index.ts'
import { BlockWriter } from '../../../src/storage/direct-io.ts'
import { Edges } from '../../../src/storage/edges.ts'
import { HandlePool, readFully } from '../../../src/storage/handles.ts'
import { contentOf, seedOf, temporaryDirectory, withSlot } from '../../compliance/store-fixtures.ts'

describe('BlockWriter', () => {
  for (const mode of ['auto', 'off'] as const) {
    it(`writes blocks of any boundaries, in any order, several at a time, beside readers and flushes: directIo ${mode}`, async function () {
      this.timeout(20_000)
      const seed = seedOf()
      await using directory = await temporaryDirectory()
      const handles = new HandlePool(STORE_HANDLES_MAX)
      const writer = new BlockWriter(handles, mode, silentLogger)
      await writer.probe(directory.path)
      if (mode === 'off') assert.equal(writer.direct, false)
      let files = 0
      // Sizes around what decides the path: pages, the smallest direct write, tiny neighbours within one page.
      const size = fc.oneof(fc.integer({ min: 1, max: 50 }), fc.integer({ min: PAGE_BYTES - 2, max: 2 * PAGE_BYTES + 2 }), fc.integer({ min: 120_000, max: 400_000 }), fc.constant(BLOCK_BYTES_MAX))
      await fc.assert(fc.asyncProperty(fc.array(size, { minLength: 1, maxLength: 12 }), fc.integer(), async (sizes, order) => {
        const path = join(directory.path, `file${files++}`)
        const total = sizes.reduce((sum, next) => sum + next, 0)
        const content = contentOf(seededRandom(order), total)
        const handle = await open(path, 'w')
        await handle.truncate(total)
        await handle.close()
        let offset = 0
        const blocks = sizes.map(length => ({ offset: (offset += length) - length, length }))
        shuffle(seededRandom(order), blocks)
        const edges = new Edges()
        let writing = true
        const reader = (async () => {
          const into = new Uint8Array(100_000)
          for (let at = 0; writing; at = (at + 77_777) % total) await handles.use(path, 'read', async open => await readFully(open, into, at))
        })()
        await Promise.all([0, 1, 2].map(async () => {
          for (let next = blocks.pop(); next !== undefined; next = blocks.pop()) {
            const { offset: at, length } = next
            await withSlot(async slot => {
              slot.prepare(at, length).set(content.subarray(at, at + length))
              await writer.write(path, at, slot, edges)
              if (at % 3 === 0) await writer.flush(path, edges)
            })
          }
        }))
        writing = false
        await reader
        await writer.flush(path, edges)
        assert.ok((await readFile(path)).equals(content))
        await handles.forget(path)
      }), { seed, numRuns: 25 })
      await handles.close()
    })
  }

  describe('where the volume refuses O_DIRECT', () => {
    let refusing: (AsyncDisposable & { path: string }) | undefined
    const place = (): string => refusing?.path ?? assert.fail('nothing is mounted')
    const content = contentOf(seededRandom(7), BLOCK_BYTES_MAX)

    /** Blocks with ragged edges, then what is on the disk. */
    async function written (writer: BlockWriter, path: string): Promise<Buffer> {
      const handle = await open(path, 'w')
      await handle.truncate(content.length)
      await handle.close()
      const edges = new Edges()
      for (const [from, to] of [[1_000_001, content.length], [0, 300_001], [300_001, 1_000_001]] as const) {
        await withSlot(async slot => {
          slot.prepare(from, to - from).set(content.subarray(from, to))
          await writer.write(path, from, slot, edges)
        })
      }
      await writer.flush(path, edges)
      return await readFile(path)
    }

    before(async function () {
      if (process.getuid?.() !== 0) this.skip() // mounting needs root
      refusing = await temporaryDirectory()
      execFileSync('mount', ['-t', 'ramfs', 'shoal-test', refusing.path])
    })
    after(async () => {
      if (refusing === undefined) return
      execFileSync('umount', [refusing.path])
      await refusing[Symbol.asyncDispose]()
    })

    it('finds that out at the start, and writes through the page cache', async () => {
      const handles = new HandlePool(STORE_HANDLES_MAX)
      const writer = new BlockWriter(handles, 'auto', silentLogger)
      await writer.probe(place())
      assert.equal(writer.direct, false)
      assert.ok((await written(writer, join(place(), 'file'))).equals(content))
      assert.deepEqual(await readdir(place()), ['file'])
      await handles.close()
    })

    it('says so when it was told to', async () => {
      const handles = new HandlePool(STORE_HANDLES_MAX)
      await assert.rejects(new BlockWriter(handles, 'on', silentLogger).probe(place()), { name: 'ConfigError', message: /refuses O_DIRECT.*set it to auto/ })
      await handles.close()
    })

    it('goes on through the page cache when it refuses only later', async function () {
      await using directory = await temporaryDirectory()
      const handles = new HandlePool(STORE_HANDLES_MAX)
      const writer = new BlockWriter(handles, 'auto', silentLogger)
      await writer.probe(directory.path)
      if (!writer.direct) this.skip()
      assert.ok((await written(writer, join(directory.path, 'file'))).equals(content))
      assert.equal(writer.direct, true, 'was it written direct at all?')
      assert.ok((await written(writer, join(place(), 'later'))).equals(content))
      assert.equal(writer.direct, false)
      await handles.close()
    })
  })

  it('refuses a slot that lies at another offset than its block', async () => {
    const handles = new HandlePool(1)
    const writer = new BlockWriter(handles, 'off', silentLogger)
    await withSlot(async slot => {
      slot.prepare(1, 10)
      await assert.rejects(writer.write('/nowhere', 2, slot, new Edges()), RangeError)
    })
  })
})
