import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { rmSync } from 'node:fs'
import { mkdir, readFile, readdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { seededRandom, silentLogger, systemClock } from '../../../src/base/index.ts'
import { encodeFileIndex } from '../../../src/model/index.ts'
import { publish } from '../../../src/node/publish.ts'
import { BlockStore } from '../../../src/storage/block-store.ts'
import { DiskBytes } from '../../../src/storage/disk-bytes.ts'
import { settings, temporaryDirectory, writeBlock } from '../../compliance/store-fixtures.ts'

const FILES = 600

/** Real files; counts what costs a sync of a directory, or of a batch. */
class CountedBytes extends DiskBytes {
  adopted: number[] = []
  batches: number[] = []
  tidied = 0

  override async adopt (...args: Parameters<DiskBytes['adopt']>): Promise<void> {
    this.adopted.push(args[0].length)
    await super.adopt(...args)
  }

  override async leftovers (...args: Parameters<DiskBytes['leftovers']>): ReturnType<DiskBytes['leftovers']> {
    this.tidied++
    return await super.leftovers(...args)
  }

  override async sync (...args: Parameters<DiskBytes['sync']>): Promise<void> {
    const files = [...args[0]]
    this.batches.push(files.length)
    await super.sync(files)
  }
}

describe('files: a model of many small files', function () {
  this.timeout(60_000)
  let directory: AsyncDisposable & { path: string }
  let bytes: CountedBytes
  let store: BlockStore
  const at = (...names: string[]): string => join(directory.path, ...names)
  const contents = new Map<string, Buffer>()

  const make = async (name: string, { quota }: { quota?: number } = {}): Promise<void> => {
    bytes = new CountedBytes({ directory: at(name), directIo: 'auto', random: seededRandom(7), logger: silentLogger })
    store = new BlockStore(bytes, { clock: systemClock, logger: silentLogger, settings: { ...settings, quota } })
    await store.start()
  }
  before(async () => {
    directory = await temporaryDirectory()
    const random = seededRandom(11)
    for (let i = 0; i < FILES; i++) {
      if (i % 100 === 0) await mkdir(at('source', `d${i / 100}`), { recursive: true })
      // Every tenth is what the one before it is; some are empty.
      const path = `d${Math.floor(i / 100)}/adapter-${i}.bin`
      const before = contents.get(`d${Math.floor((i - 1) / 100)}/adapter-${i - 1}.bin`)
      const content = i % 10 === 9 && before !== undefined ? before : Buffer.from(random.bytes(i % 97 === 0 ? 0 : 200 + i))
      contents.set(path, content)
      await writeFile(at('source', path), content)
    }
    await make('seeder')
  })
  after(async () => {
    await store.stop()
    await directory[Symbol.asyncDispose]()
  })
  const distinct = (): number => new Set([...contents.values()].map(content => createHash('sha256').update(content).digest('hex'))).size

  it('is added with one sync of the directory and one transaction for many files', async () => {
    const result = await publish({ store, clock: systemClock }, at('source'))
    assert.equal(result.files, FILES)
    const model = store.model(result.cid)
    assert.equal(model?.complete, true)
    assert.equal(bytes.adopted.reduce((sum, count) => sum + count, 0), distinct())
    assert.ok(bytes.adopted.length <= FILES / 8, `${bytes.adopted.length} groups for ${FILES} files`)
    assert.ok(Math.max(...bytes.adopted) <= 64)
    for (const [path, content] of contents) assert.ok((await readFile(at('seeder/models', result.cid, path))).equals(content), path)
    assert.equal((await stat(at('seeder/models', result.cid, 'd0/adapter-1.bin'))).mode & 0o777, 0o444)
    assert.deepEqual(await readdir(at('seeder/tmp')), [])
    assert.equal((await store.gc()).leftoverBytes, 0)
  })

  it('is loaded with one sync batch for many files', async () => {
    const [model] = store.models()
    assert.ok(model !== undefined)
    const content = { manifest: model.manifest, indexes: model.files.map(file => encodeFileIndex(file.index)) }
    await store.stop()
    await make('loader')
    const registered = await store.putModel(content)
    const paths = model.manifest.value.files.map(({ path }) => path)
    const queue = [...new Map(registered.files.map((file, position) => [file, paths[position] ?? ''])).entries()].values()
    await Promise.all(Array.from({ length: 4 }, async () => {
      for (const [file, path] of queue) {
        for (let block = 0; block < file.index.blocks.length; block++) await writeBlock(store, file, contents.get(path) ?? Buffer.alloc(0), block)
      }
    }))
    await store.flush()
    assert.equal(registered.complete, true)
    assert.ok(bytes.batches.length <= FILES / 8, `${bytes.batches.length} batches for ${FILES} files`)
    for (const [path, bytes] of contents) assert.ok((await readFile(at('loader/models', model.cid, path))).equals(bytes), path)
  })

  it('is not added when one of its files cannot be read, and leaves nothing behind', async () => {
    await mkdir(at('other'))
    for (let i = 0; i < 200; i++) await writeFile(at('other', `f-${100 + i}.bin`), `a small file, number ${i}`)
    await writeFile(at('other/last.bin'), 'one that goes away while the first are added')
    const onProgress = (): void => { rmSync(at('other/last.bin'), { force: true }) }
    await assert.rejects(publish({ store, clock: systemClock }, at('other'), { onProgress }), { name: 'UnreadableSourceError' })
    assert.equal(store.models().length, 1)
    assert.deepEqual(await readdir(at('loader/tmp')), [])
  })

  it('is added in the place of others with one look for what lies about', async () => {
    await store.stop()
    for (const part of ['one', 'two']) {
      await mkdir(at(part))
      for (let i = 0; i < 200; i++) await writeFile(at(part, `${i}.bin`), `${part} of many small files, number ${100 + i}`)
    }
    const bytesOfOne = 200 * 'one of many small files, number 100'.length
    await make('full', { quota: bytesOfOne + 10 })
    const { cid } = await publish({ store, clock: systemClock }, at('one'), { published: false })
    assert.equal(bytes.tidied, 0)
    await publish({ store, clock: systemClock }, at('two'))
    assert.equal(store.model(cid), undefined)
    assert.equal(bytes.tidied, 1)
  })
})
