import assert from 'node:assert/strict'
import { mkdir, open, readFile, readdir, rename, rm, rmdir, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { NodeStoppedError, silentLogger } from '../../../src/base/index.ts'
import { Catalog } from '../../../src/storage/catalog.ts'
import { setCatalogAside } from '../../../src/storage/recover.ts'
import { fileOf, fileStore, load, smallModel, writeBlock, type Sample } from '../../compliance/store-fixtures.ts'
import { contentAt, onDisk, twoFiles } from './on-disk.ts'

describe('files: a lost catalog', () => {
  const disk = onDisk()
  const { at, reopen } = disk

  const placed = async (): Promise<{ sample: Sample, inPlace: Sample, partial: Sample }> => {
    const sample = twoFiles(30)
    const inPlace = smallModel(31)
    const partial = smallModel(32)
    await load(disk.store, sample)
    await disk.store.setPinned(sample.cid, true)
    const path = at('user.bin')
    await writeFile(path, contentAt(inPlace))
    const { size, mtimeMs, ino } = await stat(path)
    const index = inPlace.model.indexes[0]
    assert.ok(index)
    await disk.store.referenceFile(index, { path, size, mtimeMs, ino })
    await disk.store.putModel(inPlace.model, { published: true })
    await disk.store.putModel(partial.model)
    for (const block of [1, 4, 6]) await writeBlock(disk.store, fileOf(disk.store, partial), contentAt(partial), block)
    await disk.store.flush()
    return { sample, inPlace, partial }
  }
  const check = async ({ sample, inPlace, partial }: Awaited<ReturnType<typeof placed>>): Promise<void> => {
    assert.equal(disk.store.models().length, 3)
    assert.equal(disk.store.model(sample.cid)?.pinned, true)
    assert.equal(disk.store.model(sample.cid)?.complete, true)
    assert.equal(disk.store.model(inPlace.cid)?.published, true)
    assert.equal(disk.store.model(inPlace.cid)?.complete, true)
    assert.equal(fileOf(disk.store, inPlace).inPlace, true)
    assert.deepEqual([...fileOf(disk.store, partial).present], [1, 4, 6])
    const index = partial.model.indexes[0]
    assert.ok(index)
    assert.deepEqual(Buffer.from(disk.store.metadata(index.cid) ?? []), Buffer.from(index.bytes))
    const { bad, blocks } = await disk.store.verify(undefined)
    assert.deepEqual(bad, [])
    assert.equal(blocks, 4 + 8 + 3)
    await load(disk.store, partial)
    assert.equal(disk.store.model(partial.cid)?.complete, true)
  }
  const removeCatalog = async (): Promise<void> => {
    for (const name of await readdir(disk.directory)) if (name.startsWith('catalog.sqlite')) await rm(at(name))
  }

  it('is rebuilt from the files: deleted', async () => {
    const models = await placed()
    await reopen(removeCatalog)
    await check(models)
    await reopen()
    assert.equal(disk.store.model(models.partial.cid)?.complete, true)
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
    const file = fileOf(disk.store, models.partial)
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
    await reopen(async () => {
      await removeCatalog()
      const cut = fileStore(disk.directory)
      const starting = cut.start()
      await Promise.all([assert.rejects(starting, { name: 'NodeStoppedError' }), cut.stop()])
    })
    await check(models)
  })

  it('is rebuilt though the last start ended as soon as it had made a new one', async () => {
    const models = await placed()
    await reopen(async () => {
      await removeCatalog()
      new Catalog(at('catalog.sqlite'))[Symbol.dispose]()
    })
    await check(models)
  })

  it('is never left without its log: what is set aside goes before that', async () => {
    const models = await placed()
    await reopen(async () => {
      await writeFile(at('catalog.sqlite-wal'), 'what was recorded last')
      await mkdir(at('catalog.sqlite-shm')) // so that it is cut short after the log
      await assert.rejects(setCatalogAside(at('catalog.sqlite')))
      assert.ok(!(await readdir(disk.directory)).includes('catalog.sqlite'))
      await rmdir(at('catalog.sqlite-shm'))
    })
    await check(models)
  })

  it('ends the start for the reason of its signal, amid what is hashed, and the next start goes on', async () => {
    const models = await placed()
    await reopen(async () => {
      await removeCatalog()
      const [stop, reason] = [new AbortController(), new NodeStoppedError('enough')]
      const cut = fileStore(disk.directory, { logger: { ...silentLogger, warn: (_details, message) => { if (message.includes('is rebuilt')) stop.abort(reason) } } })
      await assert.rejects(cut.start({ signal: stop.signal }), error => error === reason)
    })
    await check(models)
  })

  it('leaves out a model whose metadata is damaged too, and keeps the rest', async () => {
    const models = await placed()
    await reopen(async () => {
      await removeCatalog()
      await truncate(at('meta', `${models.partial.cid}.car`), 100)
    })
    assert.equal(disk.store.models().length, 2)
    assert.equal(disk.store.model(models.sample.cid)?.complete, true)
    const { leftoverBytes } = await disk.store.gc()
    assert.ok(leftoverBytes > 0)
    await load(disk.store, models.partial)
    assert.equal(disk.store.model(models.partial.cid)?.complete, true)
  })

  it('keeps a model whose flags are damaged too: it counts as published', async () => {
    const { sample } = await placed()
    await reopen(async () => {
      await removeCatalog()
      await writeFile(at('meta', `${sample.cid}.json`), '')
    })
    assert.equal(disk.store.model(sample.cid)?.published, true)
    assert.equal(disk.store.model(sample.cid)?.complete, true)
    assert.equal((await disk.store.gc()).leftoverBytes, 0)
  })

  it('keeps the files of a pinned or published model whose metadata is damaged too, until somebody says that they can go', async () => {
    const { sample } = await placed()
    await reopen(async () => {
      await removeCatalog()
      await truncate(at('meta', `${sample.cid}.car`), 100)
    })
    assert.equal(disk.store.model(sample.cid), undefined)
    for (const between of [async () => undefined, removeCatalog]) {
      await reopen(between)
      assert.equal((await disk.store.gc({ dryRun: true })).leftoverBytes, 0)
      assert.equal((await disk.store.gc()).leftoverBytes, 0)
      assert.ok((await readFile(at('models', sample.cid, 'weights/a.bin'))).equals(contentAt(sample, 1)))
    }
    for (const kind of ['car', 'json']) await rm(at('meta', `${sample.cid}.${kind}`))
    assert.ok((await disk.store.gc()).leftoverBytes >= sample.bytes)
  })

  it('does not start without a model that cannot be read for now', async () => {
    const models = await placed()
    await reopen(async () => {
      await removeCatalog()
      const [car, aside] = [at('meta', `${models.sample.cid}.car`), at('car')]
      await rename(car, aside)
      await symlink(car, car) // ELOOP, as good as EMFILE or EIO
      await assert.rejects(fileStore(disk.directory).start(), { name: 'DiskError', message: new RegExp(`the model ${models.sample.cid}: ELOOP.*start again`) })
      await rename(aside, car)
    })
    await check(models)
  })
})

async function overwrite (path: string, what: (size: number) => Array<[number, Buffer]>): Promise<void> {
  const handle = await open(path, 'r+')
  for (const [offset, bytes] of what((await handle.stat()).size)) await handle.write(bytes, 0, bytes.length, offset)
  await handle.close()
}
