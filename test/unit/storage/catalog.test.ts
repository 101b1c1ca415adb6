import assert from 'node:assert/strict'
import { join } from 'node:path'
import type { CID } from 'multiformats/cid'
import { Bitfield, seededRandom, silentLogger } from '../../../src/base/index.ts'
import { blockCid, encodeFileIndex, encodeManifest, type FileIndex } from '../../../src/model/index.ts'
import type { AddedFile } from '../../../src/storage/block-rows.ts'
import { Catalog } from '../../../src/storage/catalog.ts'
import type { Core } from '../../../src/storage/core.ts'
import { loadRegistry } from '../../../src/storage/load-registry.ts'
import { DetailsCache, Registry, offsetsOf } from '../../../src/storage/records.ts'
import { loadDetails } from '../../../src/storage/recover.ts'
import { temporaryDirectory } from '../../compliance/store-fixtures.ts'
import { countTurns } from '../../support/turns.ts'

/** Some parts of what is written in one go, and a piece. */
const LARGE = 2_100

const random = seededRandom(1)
const blocksOf = (count: number): CID[] => Array.from({ length: count }, () => blockCid(random.bytes(32)))

function fileOf (blocks: CID[]): AddedFile {
  const index = encodeFileIndex({ version: 1, size: blocks.length, sha256: random.bytes(32), chunker: 'fixed', blocks, sizes: blocks.map(() => 1) })
  return { file: { index, present: Bitfield.full(blocks.length).bytes, presentBytes: blocks.length, rescan: undefined, guard: undefined }, offsets: offsetsOf(index.value.sizes) }
}

/** The files in which the catalog has rows of these blocks, and how many. */
function rowsOf (catalog: Catalog, blocks: Iterable<CID>): Map<number, number> {
  const found = new Map<number, number>()
  for (const { multihash } of blocks) {
    catalog.locate(multihash.bytes, ({ file }) => {
      found.set(file, (found.get(file) ?? 0) + 1)
      return 'more'
    })
  }
  return found
}

function removed (id: number, { file: { index } }: AddedFile): { id: number, key: string, index: FileIndex } {
  return { id, key: index.cid.toString(), index: index.value }
}

describe('storage: rows of blocks in the catalog', () => {
  let directory: AsyncDisposable & { path: string }
  let catalog: Catalog
  const open = (): Catalog => new Catalog(join(directory.path, 'catalog.sqlite'))

  /** What a crash would leave: some of the rows, and not the file. */
  const addHalf = async (file: AddedFile): Promise<void> => {
    const adding = catalog.addFiles([file])
    for (let turn = 0; turn < 3; turn++) await new Promise(resolve => { setImmediate(resolve) })
    catalog[Symbol.dispose]()
    await assert.rejects(adding)
    catalog = open()
  }

  beforeEach(async () => {
    directory = await temporaryDirectory()
    catalog = open()
  })
  afterEach(async () => {
    catalog[Symbol.dispose]()
    await directory[Symbol.asyncDispose]()
  })

  it('come in turns, and the file last', async () => {
    const blocks = blocksOf(LARGE)
    const file = fileOf([...blocks, ...blocks.slice(0, 10)])
    let early = 0
    const adding = countTurns(async () => await catalog.addFiles([file]))
    for (let turn = 0; turn < 3; turn++) {
      await new Promise(resolve => { setImmediate(resolve) })
      early += [...catalog.files()].length
    }
    const { turns, result } = await adding
    assert.equal(early, 0)
    assert.ok(turns > LARGE / 500, `${turns} turns`)
    assert.deepEqual([...catalog.files()].map(({ id }) => id), result)
    assert.deepEqual(rowsOf(catalog, blocks), new Map([[result[0], LARGE + 10]]))
    const places: Array<[number, number]> = []
    catalog.locate(blocks[7]?.multihash.bytes ?? new Uint8Array(), ({ block, offset }) => { places.push([block, offset]); return 'more' })
    assert.deepEqual(places, [[7, 7], [LARGE + 7, LARGE + 7]])
  })

  it('that a crash left behind are swept, and their file\'s id is not used again', async () => {
    const other = fileOf(blocksOf(LARGE))
    const [otherId = 0] = await catalog.addFiles([other])
    const file = fileOf([...blocksOf(LARGE - 100), ...[...other.file.index.value.blocks].slice(0, 100)])
    await addHalf(file)
    const left = rowsOf(catalog, file.file.index.value.blocks)
    assert.ok(left.size === 2 && (left.get(otherId + 1) ?? 0) > 0, 'it was cut short in the middle')
    assert.deepEqual([...catalog.files()].map(({ id }) => id), [otherId])
    const { turns } = await countTurns(async () => { await catalog.sweep() })
    assert.ok(turns > 2, `${turns} turns`)
    assert.deepEqual(rowsOf(catalog, file.file.index.value.blocks), new Map([[otherId, 100]]))
    assert.deepEqual(rowsOf(catalog, other.file.index.value.blocks), new Map([[otherId, LARGE]]))
    assert.equal((await countTurns(async () => { await catalog.sweep() })).turns, 1, 'there is nothing to sweep any more')
    const [id = 0] = await catalog.addFiles([file])
    assert.ok(id > otherId + 1)
    assert.deepEqual(rowsOf(catalog, file.file.index.value.blocks), new Map([[id, LARGE], [otherId, 100]]))
  })

  it('that a failure or a crash left behind are swept before more come, and none by a small file', async () => {
    const file = fileOf(blocksOf(LARGE))
    const [id = 0] = await catalog.addFiles([file])
    await assert.rejects(catalog.addFiles([file]), /UNIQUE/)
    assert.equal(rowsOf(catalog, file.file.index.value.blocks).size, 2)
    await catalog.addFiles([fileOf(blocksOf(1))])
    assert.equal(rowsOf(catalog, file.file.index.value.blocks).size, 2)
    await catalog.addFiles([fileOf(blocksOf(LARGE))])
    assert.deepEqual(rowsOf(catalog, file.file.index.value.blocks), new Map([[id, LARGE]]))
  })

  it('of a few blocks go with their file, those of many in turns after it', async () => {
    const shared = blocksOf(5)
    const [small, kept, large] = [fileOf(shared), fileOf([...shared, ...blocksOf(LARGE)]), fileOf([...shared, ...blocksOf(LARGE)])]
    const [smallId = 0, keptId = 0, largeId = 0] = await catalog.addFiles([small, kept, large])
    catalog.remove([], [removed(smallId, small)])
    assert.deepEqual([...rowsOf(catalog, shared).keys()], [keptId, largeId])
    catalog.remove([], [removed(largeId, large)])
    assert.deepEqual([...catalog.files()].map(({ id }) => id), [keptId])
    const { turns } = await countTurns(async () => { await catalog.sweep() })
    assert.ok(turns > 3, `${turns} turns`)
    assert.deepEqual([...rowsOf(catalog, large.file.index.value.blocks)], [[keptId, 5]])
    assert.deepEqual([...rowsOf(catalog, kept.file.index.value.blocks)], [[keptId, LARGE + 5]])
  })

  it('are swept at the start, and what is here is read in turns', async () => {
    const COUNT = 1_500
    const files = Array.from({ length: COUNT }, () => fileOf(blocksOf(1)))
    await catalog.addFiles(files)
    const manifest = encodeManifest({ version: 1, files: files.map(({ file: { index } }, at) => ({ path: `f${10_000 + at}`, size: 1, index: index.cid })) })
    const cid = manifest.cid.toString()
    catalog.addModel(manifest, { cid, pinned: false, published: false, addedAt: 0, usedAt: 0 })
    const half = fileOf(blocksOf(LARGE))
    await addHalf(half)
    const core = coreOf(catalog)
    const { turns } = await countTurns(async () => { await loadRegistry(core) })
    assert.equal(core.registry.files.size, COUNT)
    assert.deepEqual(core.registry.models.get(cid)?.files.map(({ key }) => key), files.map(({ file: { index } }) => index.cid.toString()))
    assert.equal(rowsOf(catalog, half.file.index.value.blocks).size, 0)
    assert.ok(turns > 3 * COUNT / 500, `${turns} turns`)
  })
})

/** As much of a store as is needed to read its catalog. */
function coreOf (catalog: Catalog): Core {
  const bytes = { pathOf: () => undefined, directoryOf: () => undefined }
  return { catalog, registry: new Registry(), details: new DetailsCache(key => loadDetails(catalog, key)), bytes, logger: silentLogger } as unknown as Core
}
