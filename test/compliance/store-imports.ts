import assert from 'node:assert/strict'
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock, type Clock } from '../../src/base/index.ts'
import type { ModelStore, RunningAdd, StoredFile } from '../../src/storage/index.ts'
import { fileOf, importAll, load, readBlock, sampleOf, smallModel, told, withSlot, writeBlock, type Sample } from './store-fixtures.ts'
import type { StoreHarness } from './store.ts'

/** What every ModelStore does with files that come in whole, or stay where they are. */
export function importCompliance (name: string, harness: StoreHarness): void {
  describe(`${name}: import compliance`, () => {
    let store: ModelStore
    let stop: () => Promise<void>

    beforeEach(async () => { ({ store, stop } = await harness.create()) })
    afterEach(async () => { await stop() })

    describe('imports', () => {
      const sampleFile = (seed: number): Sample => smallModel(seed)

      it('bring a whole file in, which a model then finds complete', async () => {
        const sample = sampleFile(60)
        const given = sample.files[0]
        assert.ok(given)
        const log = told(store)
        const { file, newBytes } = await importAll(store, given)
        assert.equal(newBytes, given.content.length)
        assert.equal(file.present.full, true)
        assert.deepEqual(log.complete, [file.key])
        const model = await store.putModel(sample.model, { published: true })
        assert.equal(model.complete, true)
        assert.ok(given.content.equals(await store.readRange(fileOf(store, sample), 0, given.content.length)))
      })

      it('count as nothing new the second time', async () => {
        const given = sampleFile(61).files[0]
        assert.ok(given)
        const first = await importAll(store, given)
        const second = await importAll(store, given)
        assert.equal(second.newBytes, 0)
        assert.equal(second.file, first.file)
      })

      it('keep a file that was here for another model, though that goes before the new one is told', async () => {
        const content = smallModel(69).files[0]?.content ?? Buffer.alloc(0)
        const before = sampleOf([{ path: 'shared.bin', content }])
        const added = sampleOf([{ path: 'a-shared.bin', content }, { path: 'own.bin', content: Buffer.from('own') }])
        await load(store, before)
        for (const given of added.files) await importAll(store, given)
        await store.removeModel(before.cid)
        await store.gc()
        const model = await store.putModel(added.model, { published: true })
        assert.equal(model.complete, true)
        assert.ok(content.equals(await store.readRange(fileOf(store, added, 0), 0, content.length)))
        assert.equal((await store.removeModel(added.cid)).freedBytes, content.length + 3)
      })

      it('fill what a partly loaded file lacks', async () => {
        const sample = sampleFile(62)
        const given = sample.files[0]
        assert.ok(given)
        await store.putModel(sample.model)
        await writeBlock(store, fileOf(store, sample), given.content, 2)
        await store.flush()
        const { newBytes } = await importAll(store, given)
        assert.equal(newBytes, given.content.length - (given.index.value.sizes[2] ?? 0))
        assert.equal(store.model(sample.cid)?.complete, true)
        assert.deepEqual((await store.verify(undefined)).bad, [])
      })

      it('refuse what is not whole, and leave nothing when aborted', async () => {
        const given = sampleFile(63).files[0]
        assert.ok(given)
        const target = await store.importFile(given.content.length)
        await assert.rejects(target.commit(given.index), { name: 'UsageError' })
        await withSlot(async slot => {
          slot.prepare(given.content.length - 1, 5)
          await assert.rejects(target.write(given.content.length - 1, slot), { name: 'RangeError' })
        })
        await target.abort()
        await target.abort()
        await assert.rejects(target.commit(given.index), { name: 'UsageError' })
        assert.equal((await store.status()).heldBytes, 0)
      })

      it('take a file that is given as it is, or leave it', async () => {
        const sample = sampleFile(64)
        const given = sample.files[0]
        assert.ok(given)
        const directory = await mkdtemp(join(tmpdir(), 'shoal-given-'))
        try {
          const path = join(directory, 'given.bin')
          await writeFile(path, given.content)
          const take = async (): ReturnType<ModelStore['cloneFile']> => await store.cloneFile(path, given.content.length, { evict: true, isGiven: true })
          const left = await take()
          if (left === undefined) {
            assert.equal((await store.status()).volumeFreeBytes, undefined, 'a store on a disk has to take it')
            return
          }
          await left.abort()
          const { ino } = await stat(path)
          for (const newBytes of [given.content.length, 0]) {
            const taken = await take()
            assert.ok(taken)
            const came = await taken.commit(given.index)
            assert.equal(came.newBytes, newBytes)
            const own = await stat(came.file.path ?? '')
            assert.deepEqual([own.ino, own.mode & 0o777], [ino, 0o444])
          }
          await rm(path)
          assert.equal((await store.putModel(sample.model)).complete, true)
          assert.deepEqual((await store.verify(undefined)).bad, [])
        } finally {
          await rm(directory, { recursive: true })
        }
      })

      it('are known by their size as long as they are here', async () => {
        const [one, two] = [sampleFile(65), sampleFile(66)] as [Sample, Sample]
        assert.equal(store.mayHold(one.bytes), false)
        await store.putModel(one.model)
        assert.equal(store.mayHold(one.bytes), false, 'nothing of it has come')
        await load(store, one)
        assert.deepEqual([store.mayHold(one.bytes), store.mayHold(two.bytes)], [true, false])
        await store.removeModel(one.cid)
        assert.equal(store.mayHold(one.bytes), false)
      })

      it('take an empty file', async () => {
        const sample = sampleOf([{ path: 'empty', content: Buffer.alloc(0) }])
        const given = sample.files[0]
        assert.ok(given)
        assert.equal((await importAll(store, given)).file.present.full, true)
        assert.equal((await store.putModel(sample.model)).complete, true)
      })
    })

    describe('adds', () => {
      let directory: string
      let now = 0
      const clock: Clock = { ...systemClock, monotonic: () => now }
      const all = (): Sample[] => [80, 81, 82].map(seed => smallModel(seed))

      beforeEach(async () => {
        directory = await mkdtemp(join(tmpdir(), 'shoal-adds-'))
        await stop()
        ;({ store, stop } = await harness.create({ clock }))
      })
      afterEach(async () => { await rm(directory, { recursive: true, force: true }) })

      const bring = async ({ model, files: [given] }: Sample, add: RunningAdd, how: 'copied' | 'in place'): Promise<void> => {
        const [index] = model.indexes
        assert.ok(given !== undefined && index !== undefined)
        if (how === 'copied') {
          await importAll(store, given, add)
          return
        }
        const path = join(directory, model.manifest.cid.toString())
        await writeFile(path, given.content)
        const { size, mtimeMs, ino } = await stat(path)
        await store.referenceFile(index, { path, size, mtimeMs, ino }, add)
      }
      const isHere = ({ files }: Sample): boolean => store.findBlock(files[0]?.index.value.blocks.at(0) ?? assert.fail('no block')) !== undefined

      for (const how of ['copied', 'in place'] as const) {
        it(`keep what is ${how} while they run, however long, and nothing of it when they failed, whatever else is added`, async () => {
          const [one, two, other] = all() as [Sample, Sample, Sample]
          const [running, failed] = [store.startAdd(), store.startAdd()]
          await bring(one, running, how)
          await bring(two, failed, how)
          now += 24 * 60 * 60_000
          await store.gc()
          assert.deepEqual([isHere(one), isHere(two)], [true, true])
          failed.end()
          await bring(other, running, how)
          const { leftoverBytes } = await store.gc()
          assert.equal(leftoverBytes, how === 'copied' ? two.bytes : 0)
          assert.deepEqual([isHere(one), isHere(two), isHere(other)], [true, false, true])
          assert.equal((await store.putModel(one.model, { published: true })).complete, true)
          running.end()
          running.end()
          await store.gc()
          assert.deepEqual([isHere(one), isHere(two), isHere(other)], [true, false, false])
        })
      }

      it('keep no file of another model that is removed once they have ended, each of those that brought it', async () => {
        const [sample] = all() as [Sample]
        await load(store, sample)
        const adds = [store.startAdd(), store.startAdd()]
        for (const add of adds) await bring(sample, add, 'copied')
        adds[0]?.end()
        assert.equal((await store.removeModel(sample.cid)).freedBytes, 0)
        assert.equal((await store.putModel(sample.model)).complete, true)
        adds[1]?.end()
        assert.equal((await store.removeModel(sample.cid)).freedBytes, sample.bytes)
      })

      it('end in no model, and change none, when part of it was lost meanwhile', async () => {
        const [one, other] = all() as [Sample, Sample]
        await stop()
        ;({ store, stop } = await harness.create({ clock, settings: { quota: Math.max(one.bytes, other.bytes) + 100 } }))
        await load(store, other)
        await assert.rejects(store.putModel(one.model, { published: true, whole: true }), { name: 'SourceChangedError' })
        assert.deepEqual(store.models().map(({ cid, complete }) => [cid, complete]), [[other.cid, true]], 'and nothing went for it')
        await store.putModel(one.model)
        await assert.rejects(store.putModel(one.model, { published: true, whole: true }), { name: 'SourceChangedError' })
        assert.equal(store.model(one.cid)?.published, false)
        await load(store, one)
        assert.equal((await store.putModel(one.model, { published: true, whole: true })).published, true)
      })

      it('that failed make room for others', async () => {
        const [one, two] = all() as [Sample, Sample]
        await stop()
        ;({ store, stop } = await harness.create({ clock, settings: { quota: Math.max(one.bytes, two.bytes) + 100 } }))
        const failed = store.startAdd()
        await bring(one, failed, 'copied')
        await assert.rejects(store.importFile(two.bytes), { name: 'QuotaExceededError' })
        failed.end()
        await (await store.importFile(two.bytes)).abort()
      })
    })

    describe('files in place', () => {
      let directory: string
      let path: string
      let sample: Sample
      let content: Buffer

      beforeEach(async () => {
        directory = await mkdtemp(join(tmpdir(), 'shoal-in-place-'))
        path = join(directory, 'model.bin')
        sample = smallModel(70)
        content = sample.files[0]?.content ?? Buffer.alloc(0)
        await writeFile(path, content)
      })
      afterEach(async () => { await rm(directory, { recursive: true, force: true }) })

      const reference = async (): Promise<{ file: StoredFile, newBytes: number }> => {
        const { size, mtimeMs, ino } = await stat(path)
        const index = sample.model.indexes[0]
        assert.ok(index)
        return await store.referenceFile(index, { path, size, mtimeMs, ino })
      }

      it('are served from where they are and count for no bytes held', async () => {
        const { file, newBytes } = await reference()
        assert.equal(newBytes, content.length)
        assert.equal(file.inPlace, true)
        assert.equal(file.path, path)
        const model = await store.putModel(sample.model, { published: true })
        assert.equal(model.complete, true)
        assert.equal(model.directory, undefined)
        const offset = file.offsets[5] ?? 0
        assert.ok((await readBlock(store, file, 5))?.equals(content.subarray(offset, offset + (file.index.sizes[5] ?? 0))))
        assert.ok(content.equals(await store.readRange(file, 0, content.length)))
        assert.equal((await store.status()).heldBytes, 0)
        assert.equal((await reference()).newBytes, 0)
      })

      it('are not where a block is read from when there is a copy, however often they have it', async () => {
        content = Buffer.alloc(20_000)
        await writeFile(path, content)
        sample = sampleOf([{ path: 'often', content, sizes: Array.from({ length: 20_000 }, () => 1) }])
        const { file } = await reference()
        const cid = file.index.blocks.at(0)
        assert.ok(cid)
        assert.deepEqual([store.findBlock(cid)?.file.key, store.findBlock(cid)?.block], [file.key, 0])
        const once = sampleOf([{ path: 'once', content: Buffer.of(1, 0), sizes: [1, 1] }])
        await load(store, once)
        assert.deepEqual([store.findBlock(cid)?.file.key, store.findBlock(cid)?.block], [fileOf(store, once).key, 1])
      })

      const changes: Array<[string, () => Promise<void>]> = [
        ['written to', async () => { await writeFile(path, Buffer.concat([content.subarray(1), Buffer.of(1)])) }],
        ['cut short', async () => { await writeFile(path, content.subarray(0, 100)) }],
        ['replaced', async () => { await rm(path); await writeFile(path, content) }],
        ['deleted', async () => { await rm(path) }]
      ]
      for (const [what, change] of changes) {
        it(`are withdrawn, not served, once ${what}`, async () => {
          const { file } = await reference()
          await store.putModel(sample.model, { published: true })
          const log = told(store)
          await new Promise(resolve => { setTimeout(resolve, 5) }) // beyond the clock tick of mtime
          await change()
          assert.equal(await readBlock(store, file, 0), undefined)
          assert.equal(log.lost.length, file.index.blocks.length)
          assert.equal(file.present.count, 0)
          assert.equal(file.inPlace, false)
          const cid = file.index.blocks.at(0)
          assert.ok(cid)
          assert.equal(store.findBlock(cid), undefined)
          await load(store, sample)
          assert.equal(file.present.full, true, 'it can be loaded like any other')
        })
      }

      it('are told block by block when verify finds them changed, though they go as a whole', async () => {
        const { file } = await reference()
        await store.putModel(sample.model, { published: true })
        await writeFile(path, content.subarray(0, 100))
        const { blocks, bytes, bad } = await store.verify(undefined)
        assert.deepEqual([blocks, bytes, file.present.count], [8, content.length, 0])
        assert.deepEqual(bad.map(({ model, path, block }) => [model, path, block]), Array.from({ length: 8 }, (_, block) => [sample.cid, 'model.bin', block]))
        for (const { reason } of bad) assert.match(reason, /changed: its (size|mtimeMs) was/)
        assert.deepEqual(await store.verify(undefined), { blocks: 0, bytes: 0, bad: [] }, 'they are told once')
      })

      it('are withdrawn when a read of a range finds them changed', async () => {
        const { file } = await reference()
        await store.putModel(sample.model)
        await writeFile(path, content.subarray(0, 50))
        await assert.rejects(store.readRange(file, 0, 10), { name: 'DiskError' })
        assert.equal(file.present.count, 0)
      })

      it('give way to a copy of our own', async () => {
        const { file } = await reference()
        await store.putModel(sample.model, { published: true })
        const given = sample.files[0]
        assert.ok(given)
        assert.equal((await importAll(store, given)).newBytes, 0)
        assert.equal(file.inPlace, false)
        assert.equal(file.present.full, true)
        await rm(path)
        assert.ok(content.equals(await store.readRange(file, 0, content.length)))
        await writeFile(path, content)
        await reference()
        assert.equal(file.inPlace, false, 'the copy is kept')
      })

      it('fill what a partly loaded file lacks', async () => {
        await store.putModel(sample.model)
        await writeBlock(store, fileOf(store, sample), content, 0)
        await store.flush()
        const { file } = await reference()
        assert.equal(file.inPlace, false)
        assert.equal(file.present.full, true)
      })

      it('are refused when they changed since they were hashed', async () => {
        const { size, mtimeMs, ino } = await stat(path)
        const index = sample.model.indexes[0]
        assert.ok(index)
        await assert.rejects(store.referenceFile(index, { path, size, mtimeMs: mtimeMs - 1, ino }), { name: 'SourceChangedError' })
        await assert.rejects(store.referenceFile(index, { path, size: size + 1, mtimeMs, ino }), { name: 'SourceChangedError' })
      })
    })
  })
}
