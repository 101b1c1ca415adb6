import assert from 'node:assert/strict'
import { rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { seededRandom, silentLogger, systemClock } from '../../../src/base/index.ts'
import { BlockStore } from '../../../src/storage/block-store.ts'
import { DiskBytes } from '../../../src/storage/disk-bytes.ts'
import type { ModelStore } from '../../../src/storage/index.ts'
import { fileOf, load, settings, smallModel, temporaryDirectory, type Sample } from '../../compliance/store-fixtures.ts'

function failure (code: string, syscall: string): Error {
  return Object.assign(new Error(`${code}: planted`), { code, syscall })
}

/** What a failed call says about this process, or this moment, is no reason to give up what is held. */
describe('files: what cannot be checked', () => {
  let directory: AsyncDisposable & { path: string }
  let bytes: DiskBytes
  let store: ModelStore
  let sample: Sample

  const make = (): void => {
    bytes = new DiskBytes({ directory: directory.path, directIo: 'auto', random: seededRandom(7), logger: silentLogger })
    store = new BlockStore(bytes, { clock: systemClock, logger: silentLogger, settings })
  }
  beforeEach(async () => {
    directory = await temporaryDirectory()
    make()
    await store.start()
    sample = smallModel(1, 4)
  })
  afterEach(async () => {
    await store.stop()
    await directory[Symbol.asyncDispose]()
  })

  const hold = async (inPlace: boolean): Promise<void> => {
    if (!inPlace) {
      await load(store, sample)
      return
    }
    const path = join(directory.path, 'user.bin')
    await writeFile(path, sample.files[0]?.content ?? Buffer.alloc(0))
    const { size, mtimeMs, ino } = await stat(path)
    const index = sample.model.indexes[0]
    assert.ok(index)
    await store.referenceFile(index, { path, size, mtimeMs, ino })
    await store.putModel(sample.model, { published: true })
  }
  /** Opening fails so, `times` times. */
  const failsToOpen = (error: Error, times: number): () => void => {
    const acquire = bytes.handles.acquire.bind(bytes.handles)
    bytes.handles.acquire = async (...args) => {
      if (args[1] === 'read' && times-- > 0) throw error
      return await acquire(...args)
    }
    return () => { bytes.handles.acquire = acquire }
  }

  for (const inPlace of [false, true]) {
    for (const error of [failure('EMFILE', 'open'), failure('EIO', 'open'), failure('EACCES', 'open')]) {
      if (inPlace && error.message.startsWith('EACCES')) continue // then it is away
      it(`of a file ${inPlace ? 'in place' : 'of ours'} stays, and is told (${error.message})`, async () => {
        await hold(inPlace)
        const file = fileOf(store, sample)
        const works = failsToOpen(error, 1)
        const first = await store.verify(undefined)
        works()
        assert.deepEqual([first.blocks, first.bad, first.unchecked?.blocks], [3, [], 1])
        assert.match(first.unchecked?.reason ?? '', /planted/)
        const open = failsToOpen(error, 2)
        const range = await store.verifyRange(file, 0, 4)
        open()
        assert.deepEqual([range.blocks, range.bad, range.unchecked?.blocks], [2, [], 2])
        assert.deepEqual([file.present.full, file.inPlace], [true, inPlace])
        const again = await store.verify(undefined)
        assert.deepEqual(again, { blocks: 4, bytes: sample.bytes, bad: [] })
      })
    }
  }

  it('is withdrawn where the disk does not give the bytes of a file of ours, and only there', async () => {
    await hold(false)
    const file = fileOf(store, sample)
    const read = bytes.read.bind(bytes)
    bytes.read = async (record, offset, into) => {
      if (offset === file.offsets[2]) throw failure('EIO', 'read')
      return await read(record, offset, into)
    }
    const { bad, unchecked } = await store.verify(undefined)
    assert.deepEqual([bad.map(({ block }) => block), unchecked, [...file.present]], [[2], undefined, [0, 1, 3]])
  })

  it('is not lost of a file in place that cannot be read for a while', async () => {
    await hold(true)
    const works = failsToOpen(failure('EIO', 'read'), 4)
    const { bad, unchecked } = await store.verify(undefined)
    works()
    assert.deepEqual([bad, unchecked?.blocks, fileOf(store, sample).inPlace], [[], 4, true])
  })

  it('is hashed at the next start when the catalog was lost and a read failed for want of a descriptor', async () => {
    await hold(false)
    await store.stop()
    for (const suffix of ['', '-wal', '-shm']) await rm(join(directory.path, `catalog.sqlite${suffix}`), { force: true })
    make()
    const works = failsToOpen(failure('EMFILE', 'open'), 1)
    await store.start()
    works()
    await store.stop()
    make()
    await store.start()
    assert.equal(store.model(sample.cid)?.complete, true)
  })
})
