import assert from 'node:assert/strict'
import { seededRandom, silentLogger, systemClock } from '../../../src/base/index.ts'
import { BlockStore } from '../../../src/storage/block-store.ts'
import type { ImportTarget } from '../../../src/storage/byte-store.ts'
import { WORK_SLOTS } from '../../../src/storage/core.ts'
import { DiskBytes } from '../../../src/storage/disk-bytes.ts'
import type { ModelStore, StoredFile } from '../../../src/storage/index.ts'
import { contentOf, fileOf, importAll, load, readBlock, sampleOf, settings, temporaryDirectory, writeBlock, type Sample } from '../../compliance/store-fixtures.ts'

/** Real files; looks at what is read and written of those on their way in. */
class WatchedBytes extends DiskBytes {
  onImportRead: () => Promise<void> = async () => undefined
  onImportWrite: () => Promise<void> = async () => undefined

  override async startImport (...args: Parameters<DiskBytes['startImport']>): Promise<ImportTarget> {
    const target = await super.startImport(...args)
    return {
      path: target.path,
      write: async (offset, slot) => { await this.onImportWrite(); await target.write(offset, slot) },
      read: async (offset, into) => { await this.onImportRead(); return await target.read(offset, into) },
      sync: async () => { await target.sync() },
      discard: async () => { await target.discard() }
    }
  }
}

const BLOCK_BYTES = 40_000
const BLOCKS = 24

describe('files: parts are evicted', () => {
  let directory: AsyncDisposable & { path: string }
  let bytes: WatchedBytes
  let store: ModelStore

  beforeEach(async () => {
    directory = await temporaryDirectory()
    bytes = new WatchedBytes({ directory: directory.path, directIo: 'auto', random: seededRandom(7), logger: silentLogger })
    store = new BlockStore(bytes, { clock: systemClock, logger: silentLogger, settings })
    await store.start()
  })
  afterEach(async () => {
    await store.stop()
    await directory[Symbol.asyncDispose]()
  })

  const sampleWith = (blocks: number): Sample => {
    const sizes = Array.from({ length: blocks }, () => BLOCK_BYTES)
    return sampleOf([{ path: 'model.bin', content: contentOf(seededRandom(blocks), blocks * BLOCK_BYTES), sizes }])
  }
  const isRight = async (file: StoredFile, content: Buffer): Promise<void> => {
    for (const block of file.present) {
      assert.ok((await readBlock(store, file, block))?.equals(content.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)), `block ${block}`)
    }
  }

  it('while others fill that file, and hold all slots there are for it', async () => {
    const sample = sampleWith(3)
    const [given] = sample.files
    assert.ok(given)
    await store.putModel(sample.model)
    const file = fileOf(store, sample)
    await writeBlock(store, file, given.content, 2)
    await store.flush()
    store.keepModel(sample.cid, true)
    store.spareParts(sample.cid, [{ file, first: 2, count: 1 }])
    // All fills stand between reading what comes in and writing it when the eviction begins.
    let filling = 0
    const opened = Promise.withResolvers<undefined>()
    const all = Promise.withResolvers<undefined>()
    bytes.onImportRead = async () => {
      if (++filling === WORK_SLOTS) all.resolve(undefined)
      await opened.promise
    }
    const fills = Array.from({ length: WORK_SLOTS }, async () => await importAll(store, given))
    await all.promise
    const space = Promise.withResolvers<undefined>()
    const before = bytes.space.bind(bytes)
    bytes.space = async () => {
      try { return await before() } finally { setImmediate(space.resolve, undefined) }
    }
    const evicting = store.evictParts([{ file, first: 2, count: 1 }], BLOCK_BYTES)
    await space.promise // it looked for room, and goes for the file
    opened.resolve(undefined)
    const freed = await evicting
    await Promise.all(fills)
    assert.ok(freed === 0 || freed === BLOCK_BYTES)
    assert.deepEqual([...file.present], freed === 0 ? [0, 1, 2] : [0, 1])
    await isRight(file, given.content)
    await store.gc() // nothing holds on to what the store has one of
  })

  it('many of one file at the cost of one', async () => {
    const sample = sampleWith(BLOCKS)
    await load(store, sample)
    const file = fileOf(store, sample)
    store.keepModel(sample.cid, true)
    const parts = [0, 2, 4, 6, 8, 10].map(first => ({ file, first, count: 1 }))
    store.spareParts(sample.cid, parts)
    let writes = 0
    bytes.onImportWrite = async () => { writes++ }
    assert.equal(await store.evictParts(parts, 4 * BLOCK_BYTES), 4 * BLOCK_BYTES)
    assert.equal(writes, BLOCKS - 4)
    assert.deepEqual([...file.present].slice(0, 6), [1, 3, 5, 7, 8, 9], 'no more of them than it takes')
    await isRight(file, sample.files[0]?.content ?? Buffer.alloc(0))
    assert.deepEqual((await store.verify(undefined)).bad, [])
  })

  it('not when somebody comes to need them while the rest is copied', async () => {
    const sample = sampleWith(BLOCKS)
    await load(store, sample)
    const file = fileOf(store, sample)
    store.keepModel(sample.cid, true)
    const parts = [{ file, first: 0, count: 2 }]
    store.spareParts(sample.cid, parts)
    let letGo = (): void => undefined
    bytes.onImportWrite = async () => {
      bytes.onImportWrite = async () => undefined
      letGo = store.holdModel(sample.cid)
    }
    assert.equal(await store.evictParts(parts, 2 * BLOCK_BYTES), 0)
    assert.ok(file.present.full)
    letGo()
    assert.equal(await store.evictParts(parts, 2 * BLOCK_BYTES), 2 * BLOCK_BYTES)
  })

  it('not any more when the store stops', async () => {
    const sample = sampleWith(BLOCKS)
    await load(store, sample)
    const file = fileOf(store, sample)
    store.keepModel(sample.cid, true)
    store.spareParts(sample.cid, [{ file, first: 0, count: 2 }])
    let writes = 0
    let stopping: Promise<void> | undefined
    bytes.onImportWrite = async () => {
      writes++
      stopping ??= store.stop()
    }
    await assert.rejects(store.evictParts([{ file, first: 0, count: 2 }], 2 * BLOCK_BYTES), { name: 'NodeStoppedError' })
    await stopping
    assert.equal(writes, 1)
  })
})
