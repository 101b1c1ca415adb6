import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { MiB } from '../../../src/base/index.ts'
import type { OriginModel, ShoalNode } from '../../../src/node/types.ts'
import type { Cluster } from '../../support/cluster.ts'
import type { Hub } from '../../support/hub.ts'
import { eachWithHub } from './hub-cluster.ts'

const FILES = { 'config.json': Buffer.from('{}'), 'model.safetensors': randomBytes(2 * MiB) }
const TOTAL = Object.values(FILES).reduce((sum, { length }) => sum + length, 0)

describe('origin: a repository of two names', function () {
  this.timeout(30_000)
  let hub: Hub
  let cluster: Cluster
  let signal: AbortSignal

  eachWithHub(20_000, made => { ({ hub, cluster, signal } = made) })
  beforeEach(() => { hub.alias('old/Name', 'new/name') })

  const resolve = async (node: ShoalNode, name: string, token?: string): Promise<OriginModel> => {
    const model = await node.origin?.resolve(name, 'main', { token })
    assert.ok(model !== undefined)
    return model
  }
  const linked = (node: ShoalNode): string[] => [...new Set(node.links().map(({ repo }) => repo))]

  it('comes once to nodes that are asked for different ones, after a restart too', async () => {
    hub.push('new/name', FILES)
    const [before, second] = await cluster.spawn(2) as [ShoalNode, ShoalNode]
    await cluster.connect()
    const cid = await (await resolve(before, 'old/Name')).find(signal)
    const dataDirectory = cluster.directory(before)
    await cluster.kill(before)
    const [first] = await cluster.spawn(1, () => ({ dataDirectory })) as [ShoalNode]
    await cluster.connect()
    const model = await resolve(second, 'new/name')
    assert.equal(await model.find(signal), cid)
    for (const path of Object.keys(FILES)) await model.verify(path, signal)
    assert.equal(hub.fileBytes, TOTAL)
    assert.deepEqual([linked(first), linked(second)], [['old/Name'], ['new/name']])
  })

  it('comes once to a node that is asked for both at a time, and each is open to whom the Hub lets in to that', async () => {
    hub.push('new/name', FILES, { gated: true, tokens: ['good'] })
    hub.faults.bytesPerSecond = 4 * MiB
    const [node] = await cluster.spawn(1) as [ShoalNode]
    const models = await Promise.all(['old/Name', 'new/name'].map(async name => await resolve(node, name, 'good')))
    const [one, other] = await Promise.all(models.map(async model => await model.find(signal)))
    assert.equal(one, other)
    assert.equal(hub.fileBytes, TOTAL)
    assert.deepEqual(linked(node), ['new/name', 'old/Name'])
    await assert.rejects(resolve(node, 'old/Name', 'bad'), { name: 'UpstreamRefusedError' })
  })
})
