import assert from 'node:assert/strict'
import { open, readFile, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { seededRandom } from '../../../src/base/index.ts'
import type { ModelStore } from '../../../src/storage/index.ts'
import { contentOf, fileOf, fileStore, load, sampleOf, smallModel, temporaryDirectory, writeBlock, type Sample } from '../../compliance/store-fixtures.ts'

describe('files: a lost catalog', () => {
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

  const at = (...names: string[]): string => join(directory.path, ...names)
  const reopen = async (between: () => Promise<void> = async () => undefined): Promise<void> => {
    await store.stop()
    await between()
    store = fileStore(directory.path)
    await store.start()
  }
  const twoFiles = (seed: number): Sample => {
    const random = seededRandom(seed)
    return sampleOf([{ path: 'config.json', content: contentOf(random, 300), sizes: [300] }, { path: 'weights/a.bin', content: contentOf(random, 50_000), sizes: [20_000, 13_000, 17_000] }])
  }
  const content = (sample: Sample): Buffer => sample.files[0]?.content ?? Buffer.alloc(0)

  const placed = async (): Promise<{ sample: Sample, inPlace: Sample, partial: Sample }> => {
    const sample = twoFiles(30)
    const inPlace = smallModel(31)
    const partial = smallModel(32)
    await load(store, sample)
    await store.setPinned(sample.cid, true)
    const path = at('user.bin')
    await writeFile(path, content(inPlace))
    const { size, mtimeMs, ino } = await stat(path)
    const index = inPlace.model.indexes[0]
    assert.ok(index)
    await store.referenceFile(index, { path, size, mtimeMs, ino })
    await store.putModel(inPlace.model, { published: true })
    await store.putModel(partial.model)
    for (const block of [1, 4, 6]) await writeBlock(store, fileOf(store, partial), content(partial), block)
    await store.flush()
    return { sample, inPlace, partial }
  }
  const check = async ({ sample, inPlace, partial }: Awaited<ReturnType<typeof placed>>): Promise<void> => {
    assert.equal(store.models().length, 3)
    assert.equal(store.model(sample.cid)?.pinned, true)
    assert.equal(store.model(sample.cid)?.complete, true)
    assert.equal(store.model(inPlace.cid)?.published, true)
    assert.equal(store.model(inPlace.cid)?.complete, true)
    assert.equal(fileOf(store, inPlace).inPlace, true)
    assert.deepEqual([...fileOf(store, partial).present], [1, 4, 6])
    const index = partial.model.indexes[0]
    assert.ok(index)
    assert.deepEqual(Buffer.from(store.metadata(index.cid) ?? []), Buffer.from(index.bytes))
    const { bad, blocks } = await store.verify(undefined)
    assert.deepEqual(bad, [])
    assert.equal(blocks, 4 + 8 + 3)
    await load(store, partial)
    assert.equal(store.model(partial.cid)?.complete, true)
  }
  const removeCatalog = async (): Promise<void> => {
    for (const name of await readdir(directory.path)) if (name.startsWith('catalog.sqlite')) await rm(at(name))
  }

  it('is rebuilt from the files: deleted', async () => {
    const models = await placed()
    await reopen(removeCatalog)
    await check(models)
    await reopen()
    assert.equal(store.model(models.partial.cid)?.complete, true)
  })

  it('is rebuilt from the files: only the database, with its log left behind', async () => {
    const models = await placed()
    await reopen(async () => { await rm(at('catalog.sqlite')) })
    await check(models)
  })

  const damages: Array<[string, (path: string) => Promise<void>]> = [
    ['garbage', async path => { await writeFile(path, Buffer.alloc(50_000, 'garbage')) }],
    ['cut short', async path => { await truncate(path, 5_000) }],
    ['empty', async path => { await truncate(path, 0) }],
    ['a page of zeros in each table', async path => { await overwrite(path, size => Array.from({ length: Math.floor(size / 4096) - 1 }, (_, i) => [(i + 1) * 4096, Buffer.alloc(200)])) }],
    ['another schema', async path => { await overwrite(path, () => [[60, Buffer.of(0, 0, 0, 99)]]) }]
  ]
  for (const [what, damage] of damages) {
    it(`is rebuilt from the files: ${what}`, async () => {
      const models = await placed()
      await reopen(async () => { await damage(at('catalog.sqlite')) })
      await check(models)
    })
  }

  it('does not believe a flipped bit in what it says is here', async () => {
    const models = await placed()
    const file = fileOf(store, models.partial)
    const bits = Buffer.from(file.present.bytes)
    await reopen(async () => {
      const bytes = await readFile(at('catalog.sqlite'))
      const record = Buffer.concat([Buffer.from(file.key)])
      let flipped = 0
      for (let found = bytes.indexOf(record); found >= 0; found = bytes.indexOf(record, found + 1)) {
        const near = bytes.indexOf(bits, found + record.length)
        if (near < 0 || near > found + record.length + 16) continue
        bytes[near] = (bytes[near] ?? 0) | 0x80
        flipped++
      }
      assert.ok(flipped > 0, 'the test found the bits')
      await writeFile(at('catalog.sqlite'), bytes)
    })
    await check(models)
  })

  it('goes on where a rebuild was cut short', async () => {
    const models = await placed()
    await store.stop()
    await removeCatalog()
    const cut = fileStore(directory.path)
    const starting = cut.start()
    await Promise.all([assert.rejects(starting), cut.stop()])
    store = fileStore(directory.path)
    await store.start()
    await check(models)
  })

  it('leaves out a model whose metadata is damaged too, and keeps the rest', async () => {
    const models = await placed()
    await reopen(async () => {
      await removeCatalog()
      await truncate(at('meta', `${models.partial.cid}.car`), 100)
    })
    assert.equal(store.models().length, 2)
    assert.equal(store.model(models.sample.cid)?.complete, true)
    const { leftoverBytes } = await store.gc()
    assert.ok(leftoverBytes > 0)
    await load(store, models.partial)
    assert.equal(store.model(models.partial.cid)?.complete, true)
  })
})

async function overwrite (path: string, what: (size: number) => Array<[number, Buffer]>): Promise<void> {
  const handle = await open(path, 'r+')
  for (const [offset, bytes] of what((await handle.stat()).size)) await handle.write(bytes, 0, bytes.length, offset)
  await handle.close()
}
