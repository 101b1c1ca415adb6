import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { MiB } from '../../src/base/index.ts'
import type { ShoalNode } from '../../src/node/types.ts'
import { Cluster } from './cluster.ts'
import { Hub } from './hub.ts'
import { until } from './until.ts'

export interface AskAtOnce {
  nodes: number
  transport: 'memory' | 'tcp'
  /** full: each is connected to each; one: all know the first alone, and whom they found in the DHT by then. */
  mesh: 'full' | 'one'
  timeoutMs: number
}

/** What left the Hub when so many nodes, at one moment, wanted a model that nobody had: all of it, metadata too, in copies of the model. */
export async function askAtOnce ({ nodes, transport, mesh, timeoutMs }: AskAtOnce): Promise<number> {
  await using hub = await Hub.start()
  const files = { 'config.json': Buffer.from('{}'), 'a.safetensors': randomBytes(2 * MiB), 'b.safetensors': randomBytes(MiB + 5) }
  const total = Object.values(files).reduce((sum, { length }) => sum + length, 0)
  const commit = hub.push('acme/tiny', files)
  await using cluster = new Cluster({ transport, settings: { origin: { upstream: hub.url }, replication: { min: 0, target: 0, max: 0 }, lane: { enabled: false } } })
  await cluster.spawn(nodes)
  for (let from = 0; from < (mesh === 'full' ? nodes - 1 : 1); from++) {
    // So many nodes meet in one process that a dial may run out of its ten seconds.
    await until(`all know node ${from}`, async () => await cluster.connect(cluster.nodes.slice(from)).then(() => true, () => false), { withinMs: 120_000 })
  }
  const signal = AbortSignal.timeout(timeoutMs)
  const load = async (node: ShoalNode): Promise<string> => {
    const model = await node.origin?.resolve('acme/tiny', 'main', { token: undefined })
    assert.ok(model !== undefined)
    const cid = await model.find(signal)
    await Promise.all(Object.keys(files).map(async path => { await model.verify(path, signal) }))
    return cid
  }
  const cids = new Set(await Promise.all(cluster.nodes.map(load)))
  assert.equal(cids.size, 1)
  for (const node of cluster.nodes) {
    assert.ok(node.models()[0]?.complete)
    assert.deepEqual(node.links('acme/tiny').map(({ revision }) => revision).sort(), [commit, 'main'].sort())
  }
  const fetched = await Promise.all(cluster.nodes.map(async node => (await node.status()).origin?.counters.fetched ?? 0))
  assert.equal(fetched.reduce((sum, each) => sum + each, 0), 1)
  return hub.bytes / total
}
