import assert from 'node:assert/strict'
import { appendFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB, seededRandom, systemClock } from '../../src/base/index.ts'
import { hashBlock } from '../../src/model/index.ts'
import { publish } from '../../src/node/publish.ts'
import type { AddProgress, AddResult } from '../../src/node/types.ts'
import type { ModelStore } from '../../src/storage/index.ts'
import { contentOf, fileStore, load, sampleOf, withSlot, type Sample } from '../compliance/store-fixtures.ts'
import { temporaryDirectory, writeTree } from '../support/files.ts'

const LARGE = { 'a.bin': 3 * MiB, 'b.bin': 2 * MiB, 'c.bin': 2 * MiB, 'small/1': 100_000, 'small/2': 50_000 }
const BYTES = Object.values(LARGE).reduce((sum, size) => sum + size, 0)
const CACHED_BYTES = 4 * MiB

describe('adding what is here already, without room for a copy', () => {
  let top: Awaited<ReturnType<typeof temporaryDirectory>>
  let source: string
  let store: ModelStore
  let cached: Sample
  let progress: AddProgress[]

  const add = async (path = source): Promise<AddResult> => {
    progress = []
    return await publish({ store, clock: systemClock }, path, { onProgress: update => { progress.push(update) } })
  }
  const start = async (quota: number, name = 'data'): Promise<void> => {
    store = fileStore(join(top.path, name), { settings: { quota } })
    await store.start()
    await add()
    cached = sampleOf([{ path: 'cached.bin', content: contentOf(seededRandom(2), CACHED_BYTES), sizes: Array.from({ length: 4 }, () => MiB) }])
    await load(store, cached)
  }
  beforeEach(async () => {
    top = await temporaryDirectory('again')
    source = join(top.path, 'model')
    await writeTree(source, LARGE)
  })
  afterEach(async () => {
    await store.stop()
    await top[Symbol.asyncDispose]()
  })

  it('evicts nothing and is not refused, whatever room there is', async () => {
    // None at all; enough for some of the files; and enough for all when the cached model goes.
    for (const [position, spare] of [10, 2.5 * MiB, BYTES - MiB].entries()) {
      await start(BYTES + CACHED_BYTES + spare, `data-${position}`)
      const { newBytes } = await add()
      assert.equal(newBytes, 0)
      assert.equal(store.model(cached.cid)?.complete, true, `with ${spare} bytes of room`)
      assert.equal(progress.at(-1)?.bytesDone, BYTES)
      await store.stop()
    }
  })

  it('needs room for what changed alone', async () => {
    await start(BYTES + CACHED_BYTES + 100_100)
    await appendFile(join(source, 'small/1'), 'more')
    const { newBytes, cid } = await add()
    assert.equal(newBytes, 100_004)
    assert.equal(store.model(cid)?.complete, true)
    assert.equal(store.model(cached.cid)?.complete, true)
  })

  it('is refused, or makes room, for a file of the same size that is another one', async () => {
    await start(BYTES + CACHED_BYTES)
    const other = join(top.path, 'other')
    await mkdir(other)
    await writeFile(join(other, 'a.bin'), contentOf(seededRandom(3), 3 * MiB))
    const { newBytes } = await add(other)
    assert.equal(newBytes, 3 * MiB)
    assert.equal(store.model(cached.cid), undefined)
    assert.equal(progress.at(-1)?.bytesDone, 3 * MiB)
    await writeFile(join(other, 'a.bin'), contentOf(seededRandom(4), 3 * MiB))
    await assert.rejects(add(other), { name: 'QuotaExceededError' })
  })
})

describe('adding files in place, of which one is lost before the end', () => {
  it('fails, and leaves no model of what is left', async () => {
    await using top = await temporaryDirectory('lost')
    const source = join(top.path, 'model')
    await writeTree(source, { 'a.bin': 9_000, 'b.bin': 3 * MiB })
    const store = fileStore(join(top.path, 'data'))
    await store.start()
    try {
      let stored = 0
      const lose = async (): Promise<void> => {
        if (++stored < 2) return
        const at = store.findBlock(hashBlock(await readFile(join(source, 'a.bin')))) ?? assert.fail('it was stored')
        await appendFile(join(source, 'a.bin'), 'more')
        await withSlot(async slot => { assert.equal(await store.readBlock(at, slot), false) }) // a peer asks for it
      }
      await assert.rejects(publish({ store, clock: systemClock }, source, { inPlace: true, onStored: lose }), { name: 'SourceChangedError', message: /were lost while it was added/ })
      assert.deepEqual(store.models(), [])
      assert.equal((await publish({ store, clock: systemClock }, source, { inPlace: true })).files, 2)
    } finally {
      await store.stop()
    }
  })
})
