import assert from 'node:assert/strict'
import { seededRandom, type Clock } from '../../src/base/index.ts'
import type { ModelStore } from '../../src/storage/index.ts'
import { contentOf, fileOf, load, sampleOf, smallModel, told, writeBlock, type Sample } from './store-fixtures.ts'
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
        await store.putModel(one.model)
        const letGo = store.holdModel(one.cid)
        await assert.rejects(store.putModel(two.model), { name: 'QuotaExceededError' })
        letGo()
        const open = await store.importFile(size(two))
        await assert.rejects(store.importFile(size(one)), { name: 'QuotaExceededError' })
        await open.abort()
        await store.putModel(two.model)
      })

      it('makes room for the wanted files only', async () => {
        const random = seededRandom(50)
        const sample = sampleOf([{ path: 'large', content: contentOf(random, 100_000), sizes: [50_000, 50_000] }, { path: 'small', content: contentOf(random, 500), sizes: [500] }])
        await restart({ settings: { quota: 10_000 } })
        await assert.rejects(store.putModel(sample.model), { name: 'QuotaExceededError' })
        await store.putModel(sample.model, { wanted: [1] })
        const letGo = store.holdModel(sample.cid)
        await assert.rejects(store.putModel(sample.model, { wanted: [0] }), { name: 'QuotaExceededError' })
        letGo()
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
