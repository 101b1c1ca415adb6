import assert from 'node:assert/strict'
import { mkdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { mock } from 'node:test'
import { seededRandom } from '../../../src/base/index.ts'
import { Registry } from '../../../src/storage/records.ts'
import { contentOf, importAll, load, sampleOf, smallModel, type Sample } from '../../compliance/store-fixtures.ts'
import { onDisk } from './on-disk.ts'

const FILES = 300

describe('files: a block that many files share', () => {
  const disk = onDisk()
  /** Called for each place that is looked at. */
  let watched: { mock: { callCount: () => number, resetCalls: () => void, restore: () => void } }
  let sample: Sample
  const looks = (): number => watched.mock.callCount()

  before(() => {
    // As the adapters of one base have it: the header of their safetensors.
    const random = seededRandom(17)
    const header = contentOf(random, 200)
    sample = sampleOf(Array.from({ length: FILES }, (_, i) => ({ path: `${i}.bin`, content: Buffer.concat([header, contentOf(random, 100)]), sizes: [200, 100] })))
  })
  beforeEach(() => { watched = mock.method(Registry.prototype, 'fileById') })
  afterEach(() => { watched.mock.restore() })

  it('is looked for once when a model of them comes, and is not here', async () => {
    await load(disk.store, smallModel(18))
    watched.mock.resetCalls()
    await disk.store.putModel(sample.model)
    assert.ok(looks() <= 4 * FILES, `${looks()} looks for ${FILES} files`)
  })

  it('is found where it is in place before all of them were looked at, and sooner in a copy', async () => {
    await mkdir(disk.at('users'))
    for (const { path: name, content, index } of sample.files) {
      const path = join(disk.at('users'), name)
      await writeFile(path, content)
      const { size, mtimeMs, ino } = await stat(path)
      await disk.store.referenceFile(index, { path, size, mtimeMs, ino })
    }
    assert.ok(looks() <= 100 * FILES, `${looks()} looks for ${FILES} files`)
    const [first, last] = [sample.files[0], sample.files.at(-1)]
    const header = first?.index.value.blocks.at(0)
    assert.ok(first !== undefined && last !== undefined && header !== undefined)
    watched.mock.resetCalls()
    assert.equal(disk.store.findBlock(header)?.file.inPlace, true)
    assert.ok(looks() <= 100, `${looks()} looks`)
    await importAll(disk.store, first)
    watched.mock.resetCalls()
    assert.equal(disk.store.findBlock(header)?.file.inPlace, false)
    assert.ok(looks() <= 100, `${looks()} looks`)
  })
})
