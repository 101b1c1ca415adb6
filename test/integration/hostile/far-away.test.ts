import assert from 'node:assert/strict'
import { seededRandom } from '../../../src/base/index.ts'
import { DAG_CBOR } from '../../../src/model/index.ts'
import { contentOf, sampleOf } from '../../compliance/store-fixtures.ts'
import { Cluster } from '../../support/cluster.ts'
import { HostilePeer, truth, type Asked, type Say } from '../../support/hostile-peer.ts'

const FILES = 160
const AT_ONCE = 32

describe('a peer that is far away', function () {
  this.timeout(30_000)

  it('is asked for many file indexes, and many small blocks, at a time', async () => {
    const random = seededRandom(5)
    const sample = sampleOf(Array.from({ length: FILES }, (_, i) => ({ path: `adapter-${i}.bin`, content: contentOf(random, 300 + i), sizes: [300 + i] })))
    await using cluster = new Cluster()
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    // It answers nothing before so many are asked for, or nothing more can come: whoever asks one after the other waits for ever.
    const waiting = { indexes: [] as Array<[Asked, Say]>, blocks: [] as Array<[Asked, Say]> }
    const left = { indexes: FILES, blocks: FILES }
    await using far = await HostilePeer.start({
      swarmKey: cluster.swarmKey,
      answer: (asked, say) => {
        if (asked.cid.equals(sample.model.manifest.cid)) { truth(asked, say); return }
        const kind = asked.cid.code === DAG_CBOR ? 'indexes' : 'blocks'
        waiting[kind].push([asked, say])
        if (waiting[kind].length < Math.min(AT_ONCE, left[kind])) return
        left[kind] -= waiting[kind].length
        for (const each of waiting[kind].splice(0)) truth(...each)
      }
    })
    far.give(sample)
    await node.connect(far.address)
    const { bytes } = await node.load(sample.cid)
    assert.equal(bytes, sample.bytes)
    assert.deepEqual(left, { indexes: 0, blocks: 0 })
  })
})
