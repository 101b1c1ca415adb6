import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { MiB } from '../../../src/base/index.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import { Cluster } from '../../support/cluster.ts'
import { Hub } from '../../support/hub.ts'

/** Each is a whole node: Kademlia alone asks twenty others, so more of them in one process measure only that. */
const NODES = 20

describe('origin: a swarm', function () {
  this.timeout(180_000)

  it(`costs the Hub one copy when ${NODES} nodes ask at once`, async () => {
    await using hub = await Hub.start()
    const files = { 'config.json': Buffer.from('{}'), 'a.safetensors': randomBytes(2 * MiB), 'b.safetensors': randomBytes(MiB + 5) }
    const total = Object.values(files).reduce((sum, { length }) => sum + length, 0)
    const commit = hub.push('acme/tiny', files)
    await using cluster = new Cluster({ settings: { origin: { upstream: hub.url }, replication: { min: 0, target: 0, max: 0 }, lane: { enabled: false } } })
    await cluster.spawn(NODES)
    for (let from = 0; from < NODES - 1; from++) await cluster.connect(cluster.nodes.slice(from))
    const signal = AbortSignal.timeout(170_000)
    const load = async (node: ShoalNode): Promise<string> => {
      const model = await node.origin?.resolve('acme/tiny', 'main', { token: undefined })
      assert.ok(model !== undefined)
      const cid = await model.find(signal)
      await Promise.all(Object.keys(files).map(async path => { await model.verify(path, signal) }))
      return cid
    }
    const cids = new Set(await Promise.all(cluster.nodes.map(load)))
    assert.equal(cids.size, 1)
    // Metadata and all.
    assert.ok(hub.bytes <= 1.05 * total, `${hub.bytes} bytes of ${total}`)
    for (const node of cluster.nodes) {
      assert.ok(node.models()[0]?.complete)
      assert.deepEqual(node.links('acme/tiny').map(({ revision }) => revision).sort(), [commit, 'main'].sort())
    }
    const fetched = await Promise.all(cluster.nodes.map(async node => (await node.status()).origin?.counters.fetched ?? 0))
    assert.equal(fetched.reduce((sum, each) => sum + each, 0), 1)
  })
})
