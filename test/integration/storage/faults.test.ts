import assert from 'node:assert/strict'
import { chmod, lstat, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { mock } from 'node:test'
import { KiB, MiB, seededRandom, silentLogger, systemClock, type Clock } from '../../../src/base/index.ts'
import { BlockStore } from '../../../src/storage/block-store.ts'
import { Catalog } from '../../../src/storage/catalog.ts'
import { DiskBytes } from '../../../src/storage/disk-bytes.ts'
import type { ModelStore } from '../../../src/storage/index.ts'
import type { FileRecord } from '../../../src/storage/records.ts'
import { contentOf, fileOf, importAll, load, nextEvent, readBlock, sampleOf, settings, smallModel, temporaryDirectory, told, withSlot, writeBlock, type Sample } from '../../compliance/store-fixtures.ts'

function failure (code: string): Error {
  return Object.assign(new Error(`${code}: planted`), { code })
}

/** Real files, with what goes wrong around them. */
class FaultyBytes extends DiskBytes {
  onReopen: () => Promise<void> = async () => undefined
  onSync: () => Promise<void> = async () => undefined
  onRead: (offset: number) => Promise<void> = async () => undefined
  onAdopted: () => Promise<void> = async () => undefined

  override async reopen (...args: Parameters<DiskBytes['reopen']>): Promise<void> {
    await this.onReopen()
    await super.reopen(...args)
  }

  override async sync (...args: Parameters<DiskBytes['sync']>): Promise<void> {
    await this.onSync()
    await super.sync(...args)
  }

  override async read (...args: Parameters<DiskBytes['read']>): Promise<number> {
    await this.onRead(args[1])
    return await super.read(...args)
  }

  override async adopt (...args: Parameters<DiskBytes['adopt']>): Promise<void> {
    await super.adopt(...args)
    await this.onAdopted()
  }
}

describe('files: faults', () => {
  let directory: AsyncDisposable & { path: string }
  let bytes: FaultyBytes
  let store: ModelStore

  const make = (clock: Clock = systemClock): void => {
    bytes = new FaultyBytes({ directory: directory.path, directIo: 'auto', random: seededRandom(7), logger: silentLogger })
    store = new BlockStore(bytes, { clock, logger: silentLogger, settings })
  }
  beforeEach(async () => {
    directory = await temporaryDirectory()
    make()
    await store.start()
  })
  afterEach(async () => {
    await store.stop()
    await directory[Symbol.asyncDispose]()
  })

  const at = (...names: string[]): string => join(directory.path, ...names)
  const content = (sample: Sample): Buffer => sample.files[0]?.content ?? Buffer.alloc(0)
  const blockOf = (sample: Sample, block: number): Buffer => {
    const { offsets, index } = fileOf(store, sample)
    const offset = offsets[block] ?? 0
    return content(sample).subarray(offset, offset + (index.sizes[block] ?? 0))
  }
  const rot = async (sample: Sample, block: number): Promise<void> => {
    const { key, offsets } = fileOf(store, sample)
    const changed = await readFile(at('files', key))
    const offset = offsets[block] ?? 0
    changed[offset] = (changed[offset] ?? 0) ^ 1
    await chmod(at('files', key), 0o644)
    await writeFile(at('files', key), changed)
    await chmod(at('files', key), 0o444)
  }
  const modeOf = async (sample: Sample): Promise<number> => (await stat(at('files', fileOf(store, sample).key))).mode & 0o777
  const isOpenAgain = async (sample: Sample, block: number): Promise<void> => {
    assert.equal(await modeOf(sample), 0o644)
    await assert.rejects(lstat(at('models', sample.cid, 'model.bin')), { code: 'ENOENT' })
    await writeBlock(store, fileOf(store, sample), content(sample), block)
    await store.flush()
    assert.ok((await readFile(at('models', sample.cid, 'model.bin'))).equals(content(sample)))
    assert.equal(await modeOf(sample), 0o444)
  }
  const place = async (sample: Sample): Promise<string> => {
    const path = at('user.bin')
    await writeFile(path, content(sample))
    await reference(sample, path)
    await store.putModel(sample.model)
    return path
  }
  const reference = async (sample: Sample, path: string): Promise<void> => {
    const { size, mtimeMs, ino } = await stat(path)
    const index = sample.model.indexes[0]
    assert.ok(index)
    await store.referenceFile(index, { path, size, mtimeMs, ino })
  }
  const removeCatalog = async (): Promise<void> => {
    for (const suffix of ['', '-wal', '-shm']) await rm(at(`catalog.sqlite${suffix}`), { force: true })
  }

  describe('a complete file that lost a block', () => {
    it('is open for its repair after a crash that came before it was opened', async () => {
      const sample = smallModel(1, 3)
      await load(store, sample)
      await rot(sample, 1)
      bytes.onReopen = async () => { throw failure('EACCES') } // as good as killed: the loss is recorded, and no more
      assert.equal((await store.verify(undefined)).bad.length, 1)
      await store.stop()
      make()
      await store.start()
      assert.deepEqual([...fileOf(store, sample).present], [0, 2])
      await isOpenAgain(sample, 1)
    })

    it('is open for its repair when a rebuild of the catalog finds it', async () => {
      const sample = smallModel(2, 3)
      await load(store, sample)
      await rot(sample, 1)
      await store.stop()
      await removeCatalog()
      make()
      await store.start()
      assert.deepEqual([...fileOf(store, sample).present], [0, 2])
      await isOpenAgain(sample, 1)
    })

    it('is opened once the volume takes writes again', async () => {
      await store.stop()
      make({ ...systemClock, setTimeout: (fn, delayMs) => systemClock.setTimeout(fn, delayMs / 50) })
      await store.start()
      const sample = smallModel(3, 3)
      await load(store, sample)
      await rot(sample, 1)
      const again = nextEvent(store, 'volume:state').then(async () => { await nextEvent(store, 'volume:state') })
      let failures = 0
      bytes.onReopen = async () => { if (failures++ === 0) throw failure('EIO') }
      assert.equal((await store.verify(undefined)).bad.length, 1)
      await again
      await store.flush()
      await isOpenAgain(sample, 1)
    })
  })

  it('a loss that could not be recorded is recorded later, and does not come back with a restart', async () => {
    const sample = smallModel(12, 3)
    await load(store, sample)
    await rot(sample, 1)
    const planted = mock.method(Catalog.prototype, 'setPresence', () => { throw failure('ENXIO') })
    try {
      assert.equal((await store.verify(undefined)).bad.length, 1)
      await store.flush()
      assert.ok(planted.mock.callCount() > 1, 'it is tried again')
    } finally {
      planted.mock.restore()
    }
    await store.stop()
    make()
    await store.start()
    assert.deepEqual([...fileOf(store, sample).present], [0, 2])
    await isOpenAgain(sample, 1)
  })

  describe('what cannot be read at the start', () => {
    it('of a file of ours counts as lost, and the rest is there', async () => {
      const sample = smallModel(4, 3)
      await load(store, sample)
      const { offsets } = fileOf(store, sample)
      await store.stop()
      await removeCatalog()
      make()
      bytes.onRead = async offset => { if (offset === offsets[1]) throw failure('EIO') }
      await store.start()
      assert.deepEqual([...fileOf(store, sample).present], [0, 2])
      bytes.onRead = async () => undefined
      await isOpenAgain(sample, 1)
    })

    for (const lost of [false, true]) {
      it(`of a file in place stays as it is${lost ? ', when the catalog was lost too' : ''}`, async () => {
        const sample = smallModel(5, 3)
        const path = await place(sample)
        await store.stop()
        await rename(path, at('aside'))
        await symlink(path, path) // looking at it fails with ELOOP, as it might with EIO or ESTALE
        if (lost) await removeCatalog()
        make()
        await store.start()
        assert.equal(fileOf(store, sample).inPlace, true)
        await assert.rejects(readBlock(store, fileOf(store, sample), 1), { name: 'DiskError' })
        await rename(at('aside'), path)
        assert.ok((await readBlock(store, fileOf(store, sample), 1))?.equals(blockOf(sample, 1)))
        await store.stop()
        make()
        await store.start()
        assert.equal(store.model(sample.cid)?.complete, true)
        assert.deepEqual((await store.verify(undefined)).bad, [])
      })
    }
  })

  describe('a sync that fails', () => {
    it('loses what was written while it ran as well', async () => {
      const sample = smallModel(6, 4)
      await store.putModel(sample.model)
      const file = fileOf(store, sample)
      await writeBlock(store, file, content(sample), 0)
      await store.flush()
      const log = told(store)
      const syncing = Promise.withResolvers<void>()
      const fail = Promise.withResolvers<void>()
      bytes.onSync = async () => {
        bytes.onSync = async () => undefined
        syncing.resolve()
        await fail.promise
        throw failure('ENXIO')
      }
      await writeBlock(store, file, content(sample), 1)
      const flushed = assert.rejects(store.flush(), { name: 'DiskError' })
      await syncing.promise
      await writeBlock(store, file, content(sample), 2)
      fail.resolve()
      await flushed
      await store.flush()
      assert.deepEqual([...file.present], [0])
      assert.deepEqual(log.lost.map(([, block]) => block), [1, 2])
      for (const block of [1, 2, 3]) await writeBlock(store, file, content(sample), block)
      await store.flush()
      assert.equal(file.present.full, true)
      assert.deepEqual((await store.verify(undefined)).bad, [])
    })

    it('is not asked of the same descriptor again: it would not tell', async () => {
      const sample = smallModel(7, 3)
      await store.putModel(sample.model)
      const path = at('files', fileOf(store, sample).key)
      const { handle, release } = await bytes.handles.acquire(path, 'write')
      release()
      handle.datasync = async () => { throw failure('ENXIO') }
      await writeBlock(store, fileOf(store, sample), content(sample), 0)
      await assert.rejects(store.flush(), { name: 'DiskError' })
      assert.equal(handle.fd, -1, 'it is closed')
      await load(store, sample)
      assert.equal(store.model(sample.cid)?.complete, true)
    })

    it('of a file that was made anew meanwhile costs the new one nothing', async () => {
      const cut = 256 * KiB + 100 // a direct write, and an edge
      const bytesOf = contentOf(seededRandom(12), MiB)
      const sample = sampleOf([{ path: 'w.bin', content: bytesOf, sizes: [cut, MiB - cut] }])
      await store.putModel(sample.model)
      const file = fileOf(store, sample) as FileRecord
      const write = async (): Promise<void> => {
        await withSlot(async slot => {
          slot.prepare(0, cut).set(bytesOf.subarray(0, cut))
          await bytes.write(file, 0, slot)
        })
      }
      const { handle, release } = await bytes.handles.acquire(bytes.pathOf(file.key), 'write')
      release()
      const late = Promise.withResolvers<undefined>()
      const asked = Promise.withResolvers<undefined>()
      handle.datasync = async () => { asked.resolve(undefined); await late.promise; throw failure('EIO') }
      await write()
      const old = bytes.sync([file])
      await asked.promise
      await bytes.create(file)
      await write()
      late.resolve(undefined)
      await assert.rejects(old, { code: 'EIO' })
      await bytes.sync([file])
      assert.ok((await readFile(bytes.pathOf(file.key))).subarray(0, cut).equals(bytesOf.subarray(0, cut)))
    })
  })

  describe('a file in place', () => {
    it('is served when it took the path of another that was in place', async () => {
      const one = smallModel(8, 3)
      const two = smallModel(9, 3)
      const path = await place(one)
      assert.ok(await readBlock(store, fileOf(store, one), 0))
      await writeFile(at('new'), content(two))
      await rename(at('new'), path)
      await reference(two, path)
      await store.putModel(two.model)
      assert.ok((await readBlock(store, fileOf(store, two), 1))?.equals(blockOf(two, 1)))
      assert.equal(store.model(two.cid)?.complete, true)
    })

    it('that changes while a copy takes its place does not cost the copy', async () => {
      const sample = smallModel(10, 3)
      const path = await place(sample)
      const file = fileOf(store, sample)
      let reading: Promise<Buffer | undefined> | undefined
      bytes.onAdopted = async () => {
        await writeFile(path, 'other')
        const lost = nextEvent(store, 'blocks:lost')
        reading = readBlock(store, file, 1)
        await lost
        await new Promise(resolve => { setTimeout(resolve, 50) }) // for what must not happen to happen
      }
      assert.ok(sample.files[0])
      await importAll(store, sample.files[0])
      assert.equal(await reading, undefined)
      assert.equal(file.present.full, true)
      assert.equal(file.inPlace, false)
      assert.deepEqual((await store.verify(undefined)).bad, [])
      assert.ok((await readFile(at('models', sample.cid, 'model.bin'))).equals(content(sample)))
      await store.stop()
      make()
      await store.start()
      assert.equal(store.model(sample.cid)?.complete, true)
      assert.deepEqual((await store.verify(undefined)).bad, [])
    })

    it('is read from the copy when that came during the read', async () => {
      const sample = smallModel(11, 3)
      const path = await place(sample)
      const file = fileOf(store, sample)
      const began = Promise.withResolvers<void>()
      const goOn = Promise.withResolvers<void>()
      const acquire = bytes.handles.acquire.bind(bytes.handles)
      bytes.handles.acquire = async (...args) => {
        if (args[0] === path) {
          began.resolve()
          await goOn.promise
        }
        return await acquire(...args)
      }
      const reading = readBlock(store, file, 1)
      const ranging = store.readRange(file, 0, 100)
      await began.promise
      assert.ok(sample.files[0])
      await importAll(store, sample.files[0])
      await writeFile(path, 'other')
      goOn.resolve()
      assert.ok((await reading)?.equals(blockOf(sample, 1)))
      assert.ok(content(sample).subarray(0, 100).equals(await ranging))
      assert.equal(file.present.full, true)
    })
  })
})
