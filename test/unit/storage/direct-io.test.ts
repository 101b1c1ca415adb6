import assert from 'node:assert/strict'
import { open, readFile } from 'node:fs/promises'
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

  it('refuses a slot that lies at another offset than its block', async () => {
    const handles = new HandlePool(1)
    const writer = new BlockWriter(handles, 'off', silentLogger)
    await withSlot(async slot => {
      slot.prepare(1, 10)
      await assert.rejects(writer.write('/nowhere', 2, slot, new Edges()), RangeError)
    })
  })
})
