import assert from 'node:assert/strict'
import { CID } from 'multiformats/cid'
import { seededRandom, shuffle, type Clock } from '../../src/base/index.ts'
import type { ModelStore, StoreSettings } from '../../src/storage/index.ts'
import {
  contentOf, fileOf, load, nextEvent, readBlock, sampleOf, seedOf, smallModel, told, withSlot, writeBlock
} from './store-fixtures.ts'

export interface StoreHarness {
  /** A started store; `stop` ends it and removes what it kept. */
  create: (init?: { settings?: Partial<StoreSettings>, clock?: Clock }) => Promise<{ store: ModelStore, stop: () => Promise<void> }>
}

/** What every ModelStore does; store-imports.ts and store-quota.ts have the rest. */
export function storeCompliance (name: string, harness: StoreHarness): void {
  describe(`${name}: store compliance`, () => {
    let store: ModelStore
    let stop: () => Promise<void>

    beforeEach(async () => { ({ store, stop } = await harness.create()) })
    afterEach(async () => { await stop() })

    describe('models', () => {
      it('registers a model, and again without a change', async () => {
        const sample = smallModel(1)
        const model = await store.putModel(sample.model)
        assert.equal(model.cid, sample.cid)
        assert.equal(model.bytes, sample.bytes)
        assert.equal(model.presentBytes, 0)
        assert.equal(model.complete, false)
        assert.equal(model.published, false)
        assert.equal(await store.putModel(sample.model), model)
        assert.deepEqual(store.models(), [model])
        assert.equal(store.model('nothing'), undefined)
      })

      it('has the metadata of what it holds, and of nothing else', async () => {
        const sample = smallModel(2)
        await store.putModel(sample.model)
        assert.deepEqual(Buffer.from(store.metadata(sample.model.manifest.cid) ?? []), Buffer.from(sample.model.manifest.bytes))
        const index = sample.model.indexes[0]
        assert.ok(index)
        assert.deepEqual(Buffer.from(store.metadata(index.cid) ?? []), Buffer.from(index.bytes))
        assert.equal(store.metadata(smallModel(3).model.manifest.cid), undefined)
        assert.deepEqual([sample.model.manifest.cid, index.cid, smallModel(3).model.manifest.cid].map(cid => store.hasMetadata(cid)), [true, true, false])
      })

      it('refuses indexes that are not the ones the manifest names', async () => {
        const one = smallModel(4)
        const other = smallModel(5)
        await assert.rejects(store.putModel({ manifest: one.model.manifest, indexes: other.model.indexes }), { name: 'HashMismatchError' })
        await assert.rejects(store.putModel({ manifest: one.model.manifest, indexes: [] }), { name: 'HashMismatchError' })
        assert.deepEqual(store.models(), [])
      })

      it('knows a file that two paths have once, and completes both', async () => {
        const content = contentOf(seededRandom(6), 30_000)
        const sample = sampleOf([{ path: 'a.bin', content, sizes: [10_000, 20_000] }, { path: 'b/c.bin', content, sizes: [10_000, 20_000] }])
        const model = await store.putModel(sample.model)
        assert.equal(model.files[0], model.files[1])
        const file = fileOf(store, sample)
        await writeBlock(store, file, content, 0)
        await writeBlock(store, file, content, 1)
        await store.flush()
        assert.equal(model.complete, true)
        assert.equal(model.presentBytes, 60_000)
        assert.equal((await store.status()).heldBytes, 30_000)
      })

      it('holds an empty file as complete', async () => {
        const sample = sampleOf([{ path: 'empty', content: Buffer.alloc(0) }, { path: 'full', content: contentOf(seededRandom(7), 1_000), sizes: [1_000] }])
        const model = await store.putModel(sample.model)
        assert.equal(model.files[0]?.present.full, true)
        assert.equal(model.complete, false)
        assert.equal((await store.readRange(fileOf(store, sample), 0, 0)).length, 0)
      })

      it('pins, unpins and marks published; unknown models are named', async () => {
        const sample = smallModel(8)
        const model = await store.putModel(sample.model)
        await store.setPinned(sample.cid, true)
        assert.equal(model.pinned, true)
        await store.setPinned(sample.cid, false)
        assert.equal(model.pinned, false)
        await store.putModel(sample.model, { published: true })
        assert.equal(model.published, true)
        await store.putModel(sample.model)
        assert.equal(model.published, true, 'loading it again does not take that back')
        await assert.rejects(store.setPinned('nothing', true), { name: 'ModelNotFoundError' })
        await assert.rejects(store.touchModel('nothing'), { name: 'ModelNotFoundError' })
        await assert.rejects(store.removeModel('nothing'), { name: 'ModelNotFoundError' })
        await assert.rejects(store.verify('nothing'), { name: 'ModelNotFoundError' })
      })

      it('stops an aborted putModel before it changes anything', async () => {
        const signal = AbortSignal.abort()
        await assert.rejects(store.putModel(smallModel(9).model, { signal }), { name: 'AbortError' })
        assert.deepEqual(store.models(), [])
      })
    })

    describe('blocks', () => {
      it('records a block after its sync, tells it once, and finds it', async () => {
        const sample = smallModel(10)
        await store.putModel(sample.model)
        const log = told(store)
        const file = fileOf(store, sample)
        const content = sample.files[0]?.content ?? Buffer.alloc(0)
        const cid = file.index.blocks.at(3)
        assert.ok(cid)
        assert.equal(store.findBlock(cid), undefined)
        await writeBlock(store, file, content, 3)
        await store.flush()
        assert.deepEqual(log.present, [[file.key, 3]])
        assert.equal(file.present.has(3), true)
        assert.equal(file.presentBytes, file.index.sizes[3])
        const found = store.findBlock(cid)
        assert.deepEqual({ ...found, file: found?.file.key }, { file: file.key, block: 3, offset: file.offsets[3], size: file.index.sizes[3] })
        await writeBlock(store, file, content, 3)
        await store.flush()
        assert.equal(log.present.length, 1)
      })

      it('records without being asked to flush', async () => {
        const sample = smallModel(11)
        await store.putModel(sample.model)
        const event = nextEvent(store, 'blocks:present')
        await writeBlock(store, fileOf(store, sample), sample.files[0]?.content ?? Buffer.alloc(0), 0)
        await event
        assert.equal(fileOf(store, sample).present.count, 1)
      })

      it('writes a block once when two write it at the same time', async () => {
        const sample = smallModel(12)
        await store.putModel(sample.model)
        const log = told(store)
        const content = sample.files[0]?.content ?? Buffer.alloc(0)
        const file = fileOf(store, sample)
        await Promise.all([writeBlock(store, file, content, 1), writeBlock(store, file, content, 1), writeBlock(store, file, content, 1)])
        await store.flush()
        assert.deepEqual(log.present, [[file.key, 1]])
        assert.equal(file.presentBytes, file.index.sizes[1])
      })

      it('reads back what was written at random boundaries in random order', async () => {
        const seed = seedOf()
        const random = seededRandom(seed)
        const sample = sampleOf([{ path: 'a', content: contentOf(random, 3_000_001) }, { path: 'b', content: contentOf(random, 40_007) }], random)
        await store.putModel(sample.model)
        const log = told(store)
        const work = sample.files.flatMap((given, position) => [...given.index.value.blocks].map((_, block) => ({ position, block })))
        shuffle(random, work)
        await Promise.all([0, 1, 2].map(async () => {
          for (let next = work.pop(); next !== undefined; next = work.pop()) {
            await writeBlock(store, fileOf(store, sample, next.position), sample.files[next.position]?.content ?? Buffer.alloc(0), next.block)
          }
        }))
        await store.flush()
        assert.equal(store.model(sample.cid)?.complete, true, `seed ${seed}`)
        assert.deepEqual(log.complete.sort(), [fileOf(store, sample, 0).key, fileOf(store, sample, 1).key].sort())
        for (const [position, { content }] of sample.files.entries()) {
          const file = fileOf(store, sample, position)
          for (let block = 0; block < file.index.blocks.length; block++) {
            const offset = file.offsets[block] ?? 0
            const read = await readBlock(store, file, block)
            assert.ok(read?.equals(content.subarray(offset, offset + (file.index.sizes[block] ?? 0))), `seed ${seed}, file ${position}, block ${block}`)
          }
          assert.ok(content.equals(await store.readRange(file, 0, content.length)), `seed ${seed}`)
        }
      })

      it('reads ranges across blocks, and refuses ranges that are not here or not in the file', async () => {
        const sample = smallModel(13)
        await store.putModel(sample.model)
        const content = sample.files[0]?.content ?? Buffer.alloc(0)
        const file = fileOf(store, sample)
        await writeBlock(store, file, content, 2)
        await writeBlock(store, file, content, 3)
        await store.flush()
        const start = (file.offsets[2] ?? 0) + 17
        const end = (file.offsets[4] ?? 0) - 3
        assert.deepEqual(Buffer.from(await store.readRange(file, start, end - start)), content.subarray(start, end))
        await assert.rejects(store.readRange(file, start, end - start + 4), { name: 'DiskError' })
        await assert.rejects(store.readRange(file, 0, 1), { name: 'DiskError' })
        await assert.rejects(store.readRange(file, file.index.size, 1), { name: 'UsageError' })
        await assert.rejects(store.readRange(file, -1, 1), { name: 'UsageError' })
      })

      it('refuses a slot that does not fit the block', async () => {
        const sample = smallModel(14)
        await store.putModel(sample.model)
        const file = fileOf(store, sample)
        await withSlot(async slot => {
          slot.prepare(0, 5)
          await assert.rejects(store.writeBlock(file, 0, slot), { name: 'RangeError' })
          await assert.rejects(store.writeBlock(file, 1_000, slot), { name: 'RangeError' })
        })
        assert.equal(file.present.count, 0)
      })

      it('finds a block beside a file that names it more often than places are looked at', async () => {
        const often = sampleOf([{ path: 'often', content: Buffer.alloc(20_000), sizes: Array.from({ length: 20_000 }, () => 1) }])
        await store.putModel(often.model)
        const cid = fileOf(store, often).index.blocks.at(0)
        assert.ok(cid)
        assert.equal(store.findBlock(cid), undefined)
        const once = sampleOf([{ path: 'once', content: Buffer.of(0, 1), sizes: [1, 1] }])
        await load(store, once)
        assert.equal(store.findBlock(cid)?.file.key, fileOf(store, once).key)
        assert.equal(store.findBlock(cid, new Set([fileOf(store, once)])), undefined)
      })

      it('does not find raw blocks under other codecs', async () => {
        const sample = smallModel(15)
        await load(store, sample)
        const cid = fileOf(store, sample).index.blocks.at(0)
        assert.ok(cid)
        assert.ok(store.findBlock(cid))
        assert.equal(store.findBlock(CID.createV1(0x71, cid.multihash)), undefined)
      })
    })

    describe('blocks that are here already', () => {
      it('are copied from other files, at other offsets, and only the rest is missing', async () => {
        const random = seededRandom(20)
        const shared = [contentOf(random, 9_001), contentOf(random, 14_000), contentOf(random, 3)]
        const base = sampleOf([{ path: 'base', content: Buffer.concat(shared), sizes: shared.map(part => part.length) }])
        const changed = contentOf(random, 5_555)
        const parts = [changed, ...shared]
        const tuned = sampleOf([{ path: 'tuned', content: Buffer.concat(parts), sizes: parts.map(part => part.length) }])
        await load(store, base)
        const model = await store.putModel(tuned.model)
        assert.equal(model.presentBytes, tuned.bytes - changed.length)
        const file = fileOf(store, tuned)
        assert.deepEqual([...file.present], [1, 2, 3])
        for (const block of file.present) {
          const offset = file.offsets[block] ?? 0
          assert.ok((await readBlock(store, file, block))?.equals(tuned.files[0]?.content.subarray(offset, offset + (file.index.sizes[block] ?? 0)) ?? Buffer.alloc(0)))
        }
      })

      it('whole files are shared between models and survive the removal of one', async () => {
        const random = seededRandom(21)
        const content = contentOf(random, 20_000)
        const one = sampleOf([{ path: 'same', content, sizes: [20_000] }, { path: 'own', content: contentOf(random, 100), sizes: [100] }])
        const two = sampleOf([{ path: 'renamed', content, sizes: [20_000] }])
        await load(store, one)
        const model = await store.putModel(two.model)
        assert.equal(model.complete, true)
        assert.deepEqual(await store.removeModel(one.cid), { cid: one.cid, freedBytes: 100 })
        assert.ok(content.equals(await store.readRange(fileOf(store, two), 0, content.length)))
        assert.deepEqual(await store.removeModel(two.cid), { cid: two.cid, freedBytes: 20_000 })
        assert.equal((await store.status()).heldBytes, 0)
      })
    })

    describe('removing', () => {
      it('forgets the model, its blocks and metadata, and tells', async () => {
        const sample = smallModel(30)
        await load(store, sample)
        const log = told(store)
        const file = fileOf(store, sample)
        const cid = file.index.blocks.at(0)
        assert.ok(cid)
        await store.removeModel(sample.cid)
        assert.deepEqual(log.removed, [sample.cid])
        assert.equal(store.model(sample.cid), undefined)
        assert.equal(store.findBlock(cid), undefined)
        assert.equal(store.metadata(sample.model.manifest.cid), undefined)
        assert.equal(store.hasMetadata(sample.model.manifest.cid), false)
        assert.equal(await readBlock(store, file, 0), undefined)
        await assert.rejects(writeBlock(store, file, sample.files[0]?.content ?? Buffer.alloc(0), 0), { name: 'ModelNotFoundError' })
        await assert.rejects(store.readRange(file, 0, 1), { name: 'ModelNotFoundError' })
        assert.equal(file.index.blocks.length, 8, 'who still holds the file can ask for its index')
      })

      it('starts from nothing when it is put again', async () => {
        const sample = smallModel(31)
        await load(store, sample)
        await store.removeModel(sample.cid)
        const model = await store.putModel(sample.model)
        assert.equal(model.presentBytes, 0)
        await load(store, sample)
        assert.equal(model.complete, true)
      })

      it('refuses a model that is held, until it is let go', async () => {
        const sample = smallModel(32)
        await load(store, sample)
        const one = store.holdModel(sample.cid)
        const two = store.holdModel(sample.cid)
        one()
        one()
        await assert.rejects(store.removeModel(sample.cid), { name: 'ModelInUseError' })
        two()
        await store.removeModel(sample.cid)
      })

      it('drops blocks that are on their way when their model goes', async () => {
        const sample = smallModel(33)
        await store.putModel(sample.model)
        const log = told(store)
        const content = sample.files[0]?.content ?? Buffer.alloc(0)
        const file = fileOf(store, sample)
        await writeBlock(store, file, content, 0)
        await Promise.all([store.removeModel(sample.cid), writeBlock(store, file, content, 1).catch(() => undefined)])
        await store.flush()
        assert.equal((await store.status()).heldBytes, 0)
        const model = await store.putModel(sample.model)
        assert.equal(model.presentBytes, 0)
        assert.equal(log.present.filter(([, block]) => block > 0).length, 0)
      })
    })

    describe('verifyRange', () => {
      it('checks what is recorded of some blocks of a file', async () => {
        const sample = smallModel(70)
        await load(store, sample)
        const file = fileOf(store, sample)
        const sizes = file.index.sizes
        assert.deepEqual(await store.verifyRange(file, 2, 3), { blocks: 3, bytes: (sizes[2] ?? 0) + (sizes[3] ?? 0) + (sizes[4] ?? 0), bad: [] })
        assert.equal((await store.verifyRange(file, 0, 1_000)).blocks, sizes.length)
      })

      it('leaves out what is not here, and knows no file that went', async () => {
        const sample = smallModel(71)
        await store.putModel(sample.model)
        const file = fileOf(store, sample)
        assert.deepEqual(await store.verifyRange(file, 0, 8), { blocks: 0, bytes: 0, bad: [] })
        await store.removeModel(sample.cid)
        await assert.rejects(store.verifyRange(file, 0, 8), { name: 'ModelNotFoundError' })
      })
    })

    describe('verify', () => {
      it('finds everything good, and counts it', async () => {
        const sample = smallModel(80)
        await load(store, sample)
        const seen: number[] = []
        const result = await store.verify(sample.cid, { onProgress: ({ bytesDone }) => { seen.push(bytesDone) } })
        assert.deepEqual(result, { blocks: 8, bytes: sample.bytes, bad: [] })
        assert.equal(seen.at(-1), sample.bytes)
      })

      it('stops when aborted', async () => {
        const sample = smallModel(81)
        await load(store, sample)
        const abort = new AbortController()
        await assert.rejects(store.verify(undefined, { signal: abort.signal, onProgress: () => { abort.abort() } }), { name: 'AbortError' })
      })
    })

    describe('stopping', () => {
      it('records what is written, then refuses', async () => {
        const sample = smallModel(90)
        await store.putModel(sample.model)
        const log = told(store)
        const file = fileOf(store, sample)
        await writeBlock(store, file, sample.files[0]?.content ?? Buffer.alloc(0), 0)
        await store.stop()
        await store.stop()
        assert.equal(log.present.length, 1)
        await assert.rejects(store.putModel(sample.model), { name: 'NodeStoppedError' })
        await assert.rejects(store.flush(), { name: 'NodeStoppedError' })
        await assert.rejects(store.start(), { name: 'NodeStoppedError' })
        assert.deepEqual(store.models(), [])
      })
    })
  })
}
