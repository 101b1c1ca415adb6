import assert from 'node:assert/strict'
import { MiB, seededRandom } from '../../../src/base/index.ts'
import { contentOf, readBlock, sampleOf, seedOf, fileOf } from '../../compliance/store-fixtures.ts'
import { Peers, connectAll, holdAll, startFetch } from './peers.ts'

const seed = seedOf()

describe(`loading from peers (seed ${seed})`, () => {
  it('loads a model from one peer, byte for byte', async () => {
    await using peers = new Peers()
    const [a, b] = await peers.addMany(2)
    assert(a !== undefined && b !== undefined)
    await connectAll(peers.all)
    const sample = sampleOf([
      { path: 'a.bin', content: contentOf(seededRandom(seed), 20 * MiB + 77) },
      { path: 'b/c.bin', content: contentOf(seededRandom(seed + 1), 3 * MiB) },
      { path: 'empty', content: Buffer.alloc(0) }
    ], seededRandom(seed))
    await holdAll(a.store, sample)
    const fetch = await startFetch(b, sample, [a])
    await fetch.done
    const stats = fetch.stats()
    assert.equal(stats.bytesDone, sample.bytes)
    assert.equal(stats.fetchedBytes, sample.bytes)
    assert.equal(stats.duplicateBytes, 0)
    assert.deepEqual(stats.peers, { [a.id]: sample.bytes })
    for (const [position, { content }] of sample.files.entries()) {
      const file = fileOf(b.store, sample, position)
      for (const [block, offset] of file.offsets.entries()) {
        assert.deepEqual(await readBlock(b.store, file, block), content.subarray(offset, offset + (file.index.sizes[block] ?? 0)))
      }
    }
  })
})
