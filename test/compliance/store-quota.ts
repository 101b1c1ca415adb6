import assert from 'node:assert/strict'
import { seededRandom, type Clock } from '../../src/base/index.ts'
import type { ModelStore } from '../../src/storage/index.ts'
import { contentOf, fileOf, load, readBlock, sampleOf, smallModel, told, writeBlock, type Sample } from './store-fixtures.ts'
import type { StoreHarness } from './store.ts'

/** How every ModelStore keeps to its quota. */
export function quotaCompliance (name: string, harness: StoreHarness): void {
  describe(`${name}: quota compliance`, () => {
    let store: ModelStore
    let stop: () => Promise<void>

    const restart = async (init?: Parameters<StoreHarness['create']>[0]): Promise<void> => {
      await stop()
      ;({ store, stop } = await harness.create(init))
    }
    beforeEach(async () => { ({ store, stop } = await harness.create()) })
    afterEach(async () => { await stop() })

    describe('quota', () => {
      const size = (sample: Sample): number => sample.bytes

      it('evicts least recently used cached models, and no others', async () => {
        let now = 1_000
        const clock: Clock = { now: () => now++, monotonic: () => performance.now(), setTimeout: (fn, ms) => { const timer = setTimeout(fn, ms); return () => { clearTimeout(timer) } } }
        const samples = [40, 41, 42, 43, 44, 45].map(seed => smallModel(seed))
        const [pinned, published, held, oldest, used, incoming] = samples as [Sample, Sample, Sample, Sample, Sample, Sample]
        await restart({ clock, settings: { quota: samples.slice(0, 5).reduce((sum, sample) => sum + size(sample), 0) + 10 } })
        for (const sample of [pinned, published, held, oldest, used]) await load(store, sample)
        await store.setPinned(pinned.cid, true)
        await store.putModel(published.model, { published: true })
        const letGo = store.holdModel(held.cid)
        await store.touchModel(oldest.cid)
        await store.touchModel(used.cid)
        const log = told(store)
        await store.putModel(incoming.model)
        assert.deepEqual(log.removed[0], oldest.cid)
        assert.ok(log.removed.every(cid => cid === oldest.cid || cid === used.cid))
        letGo()
      })

      it('refuses what cannot fit, and evicts nothing in vain', async () => {
        const small = smallModel(46)
        const large = smallModel(47, 40)
        await restart({ settings: { quota: size(small) + 1_000 } })
        await load(store, small)
        await assert.rejects(store.putModel(large.model), { name: 'QuotaExceededError' })
        await assert.rejects(store.importFile(size(large)), { name: 'QuotaExceededError' })
        assert.deepEqual(store.models().map(({ cid }) => cid), [small.cid])
        assert.equal(store.model(small.cid)?.complete, true)
      })

      it('counts what running loads and imports still need', async () => {
        const one = smallModel(48)
        const two = smallModel(49)
        await restart({ settings: { quota: Math.max(size(one), size(two)) + 5_000 } })
        const letGo = store.holdModel(one.cid)
        await store.putModel(one.model)
        await assert.rejects(store.putModel(two.model), { name: 'QuotaExceededError' })
        letGo()
        const open = await store.importFile(size(two))
        await assert.rejects(store.importFile(size(one)), { name: 'QuotaExceededError' })
        await open.abort()
        await store.putModel(two.model)
      })

      it('has a load that comes back ask for its room again', async () => {
        for (const again of ['put', 'want'] as const) {
          const [interrupted, pinned] = [smallModel(54), smallModel(55)] as [Sample, Sample]
          await restart({ settings: { quota: Math.max(size(interrupted), size(pinned)) + 20_000 } })
          const first = store.holdModel(interrupted.cid)
          await store.putModel(interrupted.model)
          await writeBlock(store, fileOf(store, interrupted), interrupted.files[0]?.content ?? Buffer.alloc(0), 0)
          await store.flush()
          first()
          const other = store.holdModel(pinned.cid)
          await load(store, pinned)
          await store.setPinned(pinned.cid, true)
          other()
          const second = store.holdModel(interrupted.cid)
          assert.equal(store.model(interrupted.cid)?.complete, false)
          await assert.rejects(again === 'put' ? store.putModel(interrupted.model) : store.wantFiles(interrupted.cid, { wanted: [0] }), { name: 'QuotaExceededError' })
          second()
        }
      })

      it('promises a file that two running loads want once', async () => {
        const random = seededRandom(56)
        const shared = { path: 'shared', content: contentOf(random, 50_000), sizes: [25_000, 25_000] }
        const alone = sampleOf([shared])
        const beside = sampleOf([shared, { path: 'small', content: contentOf(random, 500) }])
        await restart({ settings: { quota: 51_000 } })
        const letGo = [alone, beside].map(({ cid }) => store.holdModel(cid))
        await store.putModel(alone.model)
        await store.putModel(beside.model, { wanted: [] })
        await store.wantFiles(beside.cid, { wanted: [0] })
        await store.putModel(beside.model)
        await assert.rejects(store.importFile(1_000), { name: 'QuotaExceededError' })
        letGo[0]?.()
        await assert.rejects(store.importFile(1_000), { name: 'QuotaExceededError' }) // the other one still wants it
        letGo[1]?.()
        await (await store.importFile(1_000)).abort()
      })

      it('makes room for the wanted files only', async () => {
        const random = seededRandom(50)
        const sample = sampleOf([{ path: 'large', content: contentOf(random, 100_000), sizes: [50_000, 50_000] }, { path: 'small', content: contentOf(random, 500), sizes: [500] }])
        await restart({ settings: { quota: 10_000 } })
        await assert.rejects(store.putModel(sample.model), { name: 'QuotaExceededError' })
        await store.putModel(sample.model, { wanted: [1] })
        const letGo = store.holdModel(sample.cid)
        await assert.rejects(store.putModel(sample.model, { wanted: [0] }), { name: 'QuotaExceededError' })
        await assert.rejects(store.wantFiles(sample.cid, { wanted: [0] }), { name: 'QuotaExceededError' })
        await assert.rejects(store.wantFiles('nothing', { wanted: [0] }), { name: 'ModelNotFoundError' })
        letGo()
      })

      it('holds room for parts on their way in, for each block once, until it is let go of', async () => {
        const random = seededRandom(54)
        const sample = sampleOf([{ path: 'large', content: contentOf(random, 50_000), sizes: [10_000, 10_000, 10_000, 10_000, 10_000] }])
        const cached = sampleOf([{ path: 'cached', content: contentOf(random, 15_000) }])
        await restart({ settings: { quota: size(cached) + 20_000 } })
        await load(store, cached)
        await store.putModel(sample.model, { wanted: [] })
        const file = fileOf(store, sample)
        const letGoModel = store.holdModel(sample.cid)
        const hold = async (first: number, count: number): Promise<() => void> => await store.holdRoom({ file, first, count }, 'a part')
        const one = await hold(0, 2)
        const again = await hold(1, 1) // held already
        assert.equal(store.models().length, 2)
        const two = await hold(2, 1)
        assert.deepEqual(store.models().map(({ cid }) => cid), [sample.cid], 'the cached model made room')
        await assert.rejects(store.makeRoom(size(cached), 'something else'), { name: 'QuotaExceededError' })
        await assert.rejects(hold(0, 5), { name: 'QuotaExceededError', message: /a part needs/ })
        await writeBlock(store, file, sample.files[0]?.content ?? Buffer.alloc(0), 0)
        await store.flush()
        await assert.rejects(store.makeRoom(size(cached), 'it was held for what has come'), { name: 'QuotaExceededError' })
        one(); one(); two()
        await store.makeRoom(size(cached), 'only what came, and what is held twice, still counts')
        await assert.rejects(store.makeRoom(size(cached) + 1, 'too much'), { name: 'QuotaExceededError' })
        again()
        await store.makeRoom(size(cached) + 10_000, 'all but what came')
        letGoModel()
        await store.removeModel(sample.cid)
        await assert.rejects(hold(0, 1), { name: 'ModelNotFoundError' })
      })

      it('asks for room that is held for a part no second time when all of the file is wanted', async () => {
        const sample = smallModel(58)
        for (const how of ['again', 'anew'] as const) {
          await restart({ settings: { quota: sample.bytes + 10 } })
          await store.putModel(sample.model, { wanted: [] })
          const letGo = await store.holdRoom({ file: fileOf(store, sample), first: 0, count: 3 }, 'a part')
          const wanted = how === 'again' ? sample : sampleOf([{ path: 'other-name.bin', content: sample.files[0]?.content ?? Buffer.alloc(0), sizes: sample.files[0]?.index.value.sizes ?? [] }])
          const letGoModel = store.holdModel(wanted.cid)
          await store.putModel(wanted.model)
          await assert.rejects(store.makeRoom(11, 'something else'), { name: 'QuotaExceededError' })
          letGo()
          await assert.rejects(store.makeRoom(11, 'it is kept for all of the file'), { name: 'QuotaExceededError' })
          letGoModel()
          await store.makeRoom(sample.bytes + 10, 'everything')
        }
      })

      it('never evicts what was promised to others, until it is not any more', async () => {
        const [kept, cached, incoming] = [smallModel(60), smallModel(61), smallModel(62)] as [Sample, Sample, Sample]
        await restart({ settings: { quota: size(kept) + size(cached) + 10 } })
        store.keepModel(kept.cid, true) // by name: it may come later
        await load(store, kept)
        await load(store, cached)
        await assert.rejects(store.makeRoom(size(cached) + 1_000, 'too much'), { name: 'QuotaExceededError' })
        assert.equal(store.models().length, 2)
        await store.makeRoom(1_000, 'a shard')
        assert.deepEqual(store.models().map(({ cid }) => cid), [kept.cid])
        await store.makeRoom(0, 'nothing')
        store.keepModel(kept.cid, false)
        await store.makeRoom(size(kept) + size(cached), 'all of it')
        assert.deepEqual(store.models(), [])
        store.keepModel(incoming.cid, true)
        await load(store, incoming)
        await store.gc()
        assert.equal((await store.removeModel(incoming.cid)).freedBytes, size(incoming)) // its user may
      })

      it('evicts spare parts of what is kept before any cached model, and leaves the rest as it was', async () => {
        const [kept, cached] = [smallModel(63), smallModel(64)] as [Sample, Sample]
        await restart({ settings: { quota: size(kept) + size(cached) + 10 } })
        store.keepModel(kept.cid, true)
        await load(store, kept)
        await load(store, cached)
        const file = fileOf(store, kept)
        const { sizes } = file.index
        const spareBytes = (sizes[2] ?? 0) + (sizes[3] ?? 0) + (sizes[4] ?? 0)
        store.spareParts(kept.cid, [{ file, first: 2, count: 3 }])
        const log = told(store)
        await store.makeRoom(10 + spareBytes, 'a shard')
        assert.deepEqual(log.removed, [])
        assert.deepEqual(log.lost, [2, 3, 4].map(block => [file.key, block]))
        assert.deepEqual([...file.present], [0, 1, 5, 6, 7])
        assert.equal(file.presentBytes, size(kept) - spareBytes)
        assert.equal((await store.status()).heldBytes, size(kept) + size(cached) - spareBytes)
        const content = kept.files[0]?.content ?? Buffer.alloc(0)
        for (const block of [0, 1, 5, 6, 7]) {
          const offset = file.offsets[block] ?? 0
          assert.deepEqual(await readBlock(store, file, block), content.subarray(offset, offset + (sizes[block] ?? 0)))
        }
        assert.equal(await readBlock(store, file, 3), undefined)
        assert.deepEqual((await store.verify(undefined)).bad, [])
        await load(store, kept) // and it can come back
        assert.ok(file.present.full)
        assert.deepEqual((await store.verify(kept.cid)).bad, [])
      })

      it('evicts no part that is held, pinned or published, taken back, or that another model may need', async () => {
        const random = seededRandom(65)
        const shared = { path: 'shared', content: contentOf(random, 40_000), sizes: [10_000, 10_000, 20_000] }
        const [one, two] = [sampleOf([shared, { path: 'a', content: contentOf(random, 500) }]), sampleOf([shared, { path: 'b', content: contentOf(random, 500) }])]
        for (const sample of [one, two]) await load(store, sample)
        const file = one.files.findIndex(({ path }) => path === 'shared')
        const part = { file: fileOf(store, one, file), first: 0, count: 2 }
        const evict = async (): Promise<number> => await store.evictParts([part], 20_000)
        assert.equal(await evict(), 0, 'nobody said so')
        store.spareParts(one.cid, [part])
        assert.equal(await evict(), 0, 'the other model has it too')
        store.spareParts(two.cid, [part])
        const letGo = store.holdModel(two.cid)
        assert.equal(await evict(), 0, 'held')
        letGo()
        await store.setPinned(one.cid, true)
        assert.equal(await evict(), 0, 'pinned')
        await store.setPinned(one.cid, false)
        store.spareParts(two.cid, [])
        assert.equal(await evict(), 0, 'taken back')
        store.spareParts(two.cid, [{ ...part, count: 3 }])
        assert.equal(await store.evictParts([part], 0), 0, 'nothing is lacking')
        assert.equal(await evict(), 20_000)
        assert.equal(await evict(), 0, 'it is gone')
        await store.putModel(two.model, { published: true })
        assert.equal(await store.evictParts([{ ...part, count: 3 }], 20_000), 0, 'published')
      })

      it('refuses what spare parts are not enough for, and evicts none of them in vain', async () => {
        const kept = smallModel(66)
        await restart({ settings: { quota: size(kept) + 10 } })
        store.keepModel(kept.cid, true)
        await load(store, kept)
        const file = fileOf(store, kept)
        store.spareParts(kept.cid, [{ file, first: 0, count: 1 }])
        await assert.rejects(store.makeRoom(size(kept), 'too much'), { name: 'QuotaExceededError' })
        assert.ok(file.present.full)
      })

      it('gc goes down to the quota; a dry run only says so', async () => {
        const [one, two, three] = [smallModel(51), smallModel(52), smallModel(53)] as [Sample, Sample, Sample]
        const quota = size(one) + size(two) + 20_000
        await restart({ settings: { quota } })
        await load(store, one)
        await load(store, two)
        assert.deepEqual(await store.gc(), { removed: [], freedBytes: 0, leftoverBytes: 0 })
        const status = await store.status()
        assert.equal(status.heldBytes, size(one) + size(two))
        assert.equal(status.quotaBytes, quota)

        await store.putModel(three.model, { wanted: [] }) // and then more was fetched than was asked room for
        await store.setPinned(one.cid, true)
        for (let block = 0; block < 8; block++) await writeBlock(store, fileOf(store, three), three.files[0]?.content ?? Buffer.alloc(0), block)
        await store.flush()
        const expected = { removed: [{ cid: two.cid, freedBytes: size(two) }], freedBytes: size(two), leftoverBytes: 0 }
        assert.deepEqual(await store.gc({ dryRun: true }), expected)
        assert.equal(store.models().length, 3)
        assert.deepEqual(await store.gc(), expected)
        assert.deepEqual(store.models().map(({ cid }) => cid), [one.cid, three.cid])
      })
    })
  })
}
