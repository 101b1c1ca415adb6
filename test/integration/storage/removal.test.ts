import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { seededRandom, silentLogger, systemClock } from '../../../src/base/index.ts'
import { BlockStore } from '../../../src/storage/block-store.ts'
import { LINKS_AT_ONCE } from '../../../src/storage/concurrency.ts'
import { DiskBytes } from '../../../src/storage/disk-bytes.ts'
import { contentOf, importAll, load, readBlock, sampleOf, settings, smallModel, temporaryDirectory, type Sample } from '../../compliance/store-fixtures.ts'

const FILES = 20
const FILE_BYTES = 5_000

/** Real files, whose deletion waits to be let on; with a volume that has no room for more until they are gone. */
class SlowBytes extends DiskBytes {
  removing = 0
  readonly begun = Promise.withResolvers<undefined>()
  readonly letOn = Promise.withResolvers<undefined>()
  freeBytes: number | undefined

  override async remove (...args: Parameters<DiskBytes['remove']>): Promise<void> {
    if (++this.removing === LINKS_AT_ONCE) this.begun.resolve(undefined)
    await this.letOn.promise
    await super.remove(...args)
    if (this.freeBytes !== undefined) this.freeBytes += args[0].size
  }

  override async space (): Promise<{ freeBytes: number, reserveBytes: number }> {
    return this.freeBytes === undefined ? await super.space() : { freeBytes: this.freeBytes, reserveBytes: 0 }
  }
}

describe('files: a model that goes', () => {
  let directory: AsyncDisposable & { path: string }
  let bytes: SlowBytes
  let store: BlockStore
  let sample: Sample
  let removing: Promise<unknown>

  const make = async (): Promise<void> => {
    bytes = new SlowBytes({ directory: directory.path, directIo: 'auto', random: seededRandom(7), logger: silentLogger })
    store = new BlockStore(bytes, { clock: systemClock, logger: silentLogger, settings })
    await store.start()
  }
  const filesThere = async (): Promise<number> => (await readdir(join(directory.path, 'files'))).length

  /** In which what does not wait, but should, would come. */
  const aMoment = async (): Promise<void> => { await new Promise(resolve => { setTimeout(resolve, 50) }) }

  beforeEach(async () => {
    directory = await temporaryDirectory()
    await make()
    const random = seededRandom(90)
    sample = sampleOf(Array.from({ length: FILES }, (_, i) => ({ path: `${i}.bin`, content: contentOf(random, FILE_BYTES), sizes: [FILE_BYTES] })))
    await load(store, sample)
    removing = store.removeModel(sample.cid)
    await bytes.begun.promise // several at once, or it never comes
  })
  afterEach(async () => {
    bytes.letOn.resolve(undefined)
    await store.stop()
    await directory[Symbol.asyncDispose]()
  })

  it('keeps nobody waiting who adds something else', async () => {
    const other = smallModel(91)
    assert.equal(store.model(sample.cid), undefined)
    const [given] = other.files
    assert.ok(given)
    await importAll(store, given)
    assert.equal((await store.putModel(other.model)).complete, true)
    assert.equal(await filesThere(), FILES + 1)
    bytes.letOn.resolve(undefined)
    assert.deepEqual(await removing, { cid: sample.cid, freedBytes: FILES * FILE_BYTES })
    assert.equal(await filesThere(), 1)
    assert.deepEqual(await readdir(join(directory.path, 'models')), [other.cid])
  })

  for (const [how, again] of [
    ['loaded', async () => { await load(store, sample) }],
    ['added', async () => {
      for (const given of sample.files) await importAll(store, given)
      await store.putModel(sample.model)
    }]
  ] as const) {
    it(`is there when it is ${how} again meanwhile`, async () => {
      const back = again()
      await aMoment()
      bytes.letOn.resolve(undefined)
      await Promise.all([back, removing])
      const model = store.model(sample.cid)
      assert.ok(model?.complete)
      for (const [position, file] of model.files.entries()) {
        assert.ok((await readBlock(store, file, 0))?.equals(sample.files[position]?.content ?? Buffer.alloc(0)))
      }
      assert.deepEqual((await store.verify(undefined)).bad, [])
      assert.equal((await readdir(join(directory.path, 'models', sample.cid))).length, FILES)
    })
  }

  it('makes its room before others go for it', async () => {
    bytes.freeBytes = 1_000
    const asked = store.makeRoom(FILES * FILE_BYTES, 'something')
    asked.catch(() => undefined) // looked at below
    await aMoment()
    bytes.letOn.resolve(undefined)
    await asked
    await removing
  })

  it('is a leftover as far as it was not deleted when the store stopped', async () => {
    const stopping = store.stop()
    bytes.letOn.resolve(undefined)
    await Promise.all([removing, stopping])
    assert.equal(await filesThere(), FILES - LINKS_AT_ONCE)
    await make()
    bytes.letOn.resolve(undefined)
    assert.deepEqual(store.models(), [])
    assert.ok((await store.gc()).leftoverBytes >= (FILES - LINKS_AT_ONCE) * FILE_BYTES)
    assert.equal(await filesThere(), 0)
  })
})
