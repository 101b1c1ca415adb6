import assert from 'node:assert/strict'
import { readdir, readlink } from 'node:fs/promises'
import { seededRandom, silentLogger, systemClock } from '../../../src/base/index.ts'
import { BlockStore } from '../../../src/storage/block-store.ts'
import { DiskBytes } from '../../../src/storage/disk-bytes.ts'
import type { ModelStore } from '../../../src/storage/index.ts'
import { contentOf, fileOf, readBlock, sampleOf, settings, temporaryDirectory, writeBlock } from '../../compliance/store-fixtures.ts'

describe('files: one that another takes the place of', () => {
  let directory: AsyncDisposable & { path: string }
  let bytes: DiskBytes
  let store: ModelStore

  beforeEach(async () => {
    directory = await temporaryDirectory()
    bytes = new DiskBytes({ directory: directory.path, directIo: 'auto', random: seededRandom(7), logger: silentLogger })
    store = new BlockStore(bytes, { clock: systemClock, logger: silentLogger, settings })
    await store.start()
  })
  afterEach(async () => {
    await store.stop()
    await directory[Symbol.asyncDispose]()
  })

  /** Reads that begin whenever the pool has just closed what was open of this path: at the worst moment of each replacement. */
  const readWheneverForgotten = (path: string | undefined, read: () => Promise<unknown>): Array<Promise<unknown>> => {
    const reads: Array<Promise<unknown>> = []
    const forget = bytes.handles.forget.bind(bytes.handles)
    bytes.handles.forget = async given => {
      await forget(given)
      if (given !== path) return
      const reading = read()
      reads.push(reading)
      await reading
    }
    return reads
  }

  const openOf = async (deleted: string): Promise<string[]> => {
    const targets = await Promise.all((await readdir('/proc/self/fd')).map(async fd => await readlink(`/proc/self/fd/${fd}`).catch(() => '')))
    return targets.filter(target => target === `${deleted} (deleted)`)
  }

  it('is not read any more, though a read begins while a part of it is evicted', async () => {
    const content = contentOf(seededRandom(1), 80_000)
    const sample = sampleOf([{ path: 'm.bin', content, sizes: [20_000, 20_000, 20_000, 20_000] }])
    await store.putModel(sample.model)
    const file = fileOf(store, sample)
    for (const block of [0, 1]) await writeBlock(store, file, content, block)
    await store.flush()
    store.spareParts(sample.cid, [{ file, first: 0, count: 1 }])
    const reads = readWheneverForgotten(file.path, async () => { await readBlock(store, file, 1) })
    assert.equal(await store.evictParts([{ file, first: 0, count: 1 }], 1), 20_000)
    assert.ok(reads.length > 0)
    for (const block of [0, 2, 3]) await writeBlock(store, file, content, block)
    await store.flush()
    assert.equal(store.model(sample.cid)?.complete, true)
    assert.ok(content.equals(await store.readRange(file, 0, content.length)))
    assert.deepEqual((await store.verify(undefined)).bad, [])
  })

  it('is not kept open by a read that begins while it is removed', async () => {
    const content = contentOf(seededRandom(2), 40_000)
    const sample = sampleOf([{ path: 'm.bin', content, sizes: [20_000, 20_000] }])
    await store.putModel(sample.model)
    const file = fileOf(store, sample)
    const path = file.path ?? ''
    await writeBlock(store, file, content, 1)
    await store.flush()
    const reads = readWheneverForgotten(path, async () => { await bytes.handles.use(path, 'read', async () => undefined).catch(() => undefined) })
    await store.removeModel(sample.cid)
    assert.ok(reads.length > 0)
    assert.deepEqual(await openOf(path), [], 'a deleted file frees nothing while it is open')
  })
})
