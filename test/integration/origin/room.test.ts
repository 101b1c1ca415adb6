import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { MiB } from '../../../src/base/index.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import type { Cluster } from '../../support/cluster.ts'
import type { Hub } from '../../support/hub.ts'
import { until } from '../../support/until.ts'
import { eachWithHub } from './hub-cluster.ts'

describe('origin: room for several models', function () {
  this.timeout(30_000)
  let hub: Hub
  let cluster: Cluster
  let signal: AbortSignal

  eachWithHub(20_000, made => { ({ hub, cluster, signal } = made) })

  it('one that has no place beside those on their way is refused before it takes theirs', async () => {
    const [node] = await cluster.spawn(1, () => ({ settings: { storage: { quota: 16 * MiB } } })) as [ShoalNode]
    const find = async (name: string): Promise<string> => {
      const model = await node.origin?.resolve(name, 'main', { token: undefined })
      assert.ok(model !== undefined)
      return await model.find(signal)
    }
    for (const name of ['a/one', 'a/two']) hub.push(name, { 'model.safetensors': randomBytes(10 * MiB) })
    hub.faults.bytesPerSecond = 5 * MiB
    const one = find('a/one')
    one.catch(() => undefined)
    await until('it comes', () => hub.fileBytes > 0)
    await assert.rejects(find('a/two'), { name: 'QuotaExceededError', message: /a\/two, and what else is on its way/ })
    const cid = await one
    assert.equal(node.models().find(model => model.cid === cid)?.complete, true)
    assert.equal(hub.fileBytes, 10 * MiB)
  })
})
