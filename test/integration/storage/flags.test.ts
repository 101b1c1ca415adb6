import assert from 'node:assert/strict'
import { mkdir, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { ModelStore } from '../../../src/storage/index.ts'
import { fileStore, load, smallModel, temporaryDirectory } from '../../compliance/store-fixtures.ts'

describe('files: a pin that cannot be recorded', () => {
  let directory: AsyncDisposable & { path: string }
  let store: ModelStore

  beforeEach(async () => {
    directory = await temporaryDirectory()
    store = fileStore(directory.path)
    await store.start()
  })
  afterEach(async () => {
    await store.stop()
    await directory[Symbol.asyncDispose]()
  })

  for (const pinned of [true, false]) {
    it(`leaves the model ${pinned ? 'pinned' : 'as it was'}, after a restart too`, async () => {
      const sample = smallModel(1)
      await load(store, sample)
      await store.setPinned(sample.cid, pinned)
      const inTheWay = join(directory.path, 'meta', `${sample.cid}.json.new`)
      await mkdir(inTheWay)
      await assert.rejects(store.setPinned(sample.cid, !pinned), { name: 'DiskError' })
      assert.equal(store.model(sample.cid)?.pinned, pinned)
      await rmdir(inTheWay)
      await store.stop()
      store = fileStore(directory.path)
      await store.start()
      assert.equal(store.model(sample.cid)?.pinned, pinned)
      await store.setPinned(sample.cid, !pinned)
      assert.equal(store.model(sample.cid)?.pinned, !pinned)
    })
  }
})
