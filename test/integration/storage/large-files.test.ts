import assert from 'node:assert/strict'
import { seededRandom } from '../../../src/base/index.ts'
import { Catalog } from '../../../src/storage/catalog.ts'
import { contentOf, load, sampleOf, type Sample } from '../../compliance/store-fixtures.ts'
import { onDisk } from './on-disk.ts'

/** More than go into the catalog in one go, or out of it. */
const BLOCKS = 700

describe('files: of many blocks', () => {
  const disk = onDisk()
  const random = seededRandom(1)
  const large = (): Sample => sampleOf([{ path: 'a.bin', content: contentOf(random, 3 * BLOCKS), sizes: Array<number>(BLOCKS).fill(3) }])
  const rows = (sample: Sample): number => {
    using catalog = new Catalog(disk.at('catalog.sqlite'))
    let found = 0
    for (const { multihash } of sample.model.indexes[0]?.value.blocks ?? []) catalog.locate(multihash.bytes, () => { found++; return 'more' })
    return found
  }

  it('leave nothing in the catalog when their model is removed, nor when gc finds that nobody named them', async () => {
    const [kept, gone, unnamed] = [large(), large(), large()]
    for (const { model } of [kept, gone, unnamed]) await disk.store.putModel(model)
    await load(disk.store, gone)
    await disk.store.removeModel(gone.cid)
    await disk.reopen(async () => {
      assert.deepEqual([rows(kept), rows(gone), rows(unnamed)], [BLOCKS, 0, BLOCKS])
      using catalog = new Catalog(disk.at('catalog.sqlite'))
      catalog.remove([unnamed.cid], [])
    })
    await disk.store.gc()
    await disk.reopen(async () => { assert.deepEqual([rows(kept), rows(gone), rows(unnamed)], [BLOCKS, 0, 0]) })
    assert.deepEqual(disk.store.models().map(({ cid }) => cid), [kept.cid])
    await disk.store.putModel(gone.model)
    await load(disk.store, gone)
    assert.equal(disk.store.model(gone.cid)?.complete, true)
  })

  it('of which a start finds rows without a file are put again as if nothing had been', async () => {
    const sample = large()
    const [index] = sample.model.indexes
    assert.ok(index !== undefined)
    await disk.reopen(async () => {
      const catalog = new Catalog(disk.at('catalog.sqlite'))
      const offsets = new Float64Array(BLOCKS)
      const adding = catalog.addFiles([{ file: { index, present: new Uint8Array(Math.ceil(BLOCKS / 8)), presentBytes: 0, rescan: undefined, guard: undefined }, offsets }])
      catalog[Symbol.dispose]()
      await assert.rejects(adding)
      assert.ok(rows(sample) > 0)
    })
    await disk.reopen(async () => { assert.equal(rows(sample), 0) })
    await disk.store.putModel(sample.model)
    await load(disk.store, sample)
    await disk.reopen(async () => { assert.equal(rows(sample), BLOCKS) })
    assert.equal(disk.store.model(sample.cid)?.complete, true)
  })
})
