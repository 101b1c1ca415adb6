import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '../../../src/base/index.ts'
import { createHfServer } from '../../../src/hf/index.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import { Cluster } from '../../support/cluster.ts'
import { temporaryDirectory, writeTree } from '../../support/files.ts'
import { until } from '../../support/until.ts'

describe('hf: room on the disk', function () {
  this.timeout(60_000)

  it('is made for the range that is asked for, and for a file of which half or more is', async () => {
    await using directory = await temporaryDirectory('hf-room')
    await using cluster = new Cluster({ transport: 'tcp', settings: { replication: { min: 0, target: 0, max: 0 } } })
    const [holder, node] = await cluster.spawn(2, at => at === 0 ? {} : { settings: { storage: { quota: 13 * MiB } } }) as [ShoalNode, ShoalNode]
    await cluster.connect()
    const cids: string[] = []
    for (const [name, size] of [['cached', 4 * MiB], ['wanted', 12 * MiB], ['large', 24 * MiB]] as const) {
      await writeTree(join(directory.path, name), { 'w.bin': size }, size)
      cids.push((await holder.add(join(directory.path, name), { inPlace: true })).cid)
    }
    const [cached, wanted, large] = cids as [string, string, string]
    await node.load(cached)
    const server = createHfServer({ node, host: '127.0.0.1', port: 0 })
    await server.start()
    try {
      const get = async (cid: string, range: string): Promise<{ status: number, body: Buffer }> => {
        const answer = await fetch(`${server.url}/cid/${cid}/resolve/main/w.bin`, { headers: { range } })
        const body = Buffer.from(await answer.arrayBuffer())
        await until('nobody loads', () => node.transfers().length === 0)
        return { status: answer.status, body }
      }
      const held = (): Record<string, number> => Object.fromEntries(node.models().map(({ cid, presentBytes }) => [cid, presentBytes]))
      const bytes = await readFile(join(directory.path, 'wanted', 'w.bin'))
      const header = await get(wanted, 'bytes=0-99')
      assert.ok(header.status === 206 && header.body.equals(bytes.subarray(0, 100)))
      assert.deepEqual(held(), { [cached]: 4 * MiB, [wanted]: 4 * MiB })
      // All of it has no room here whatever is evicted.
      assert.equal((await get(large, 'bytes=0-')).status, 507)
      assert.equal((await get(large, 'bytes=-100')).status, 206)
      const half = await get(wanted, `bytes=0-${6 * MiB}`)
      assert.ok(half.status === 206 && half.body.equals(bytes.subarray(0, 6 * MiB + 1)))
      assert.equal(held()[cached], undefined)
    } finally {
      await server.stop()
    }
  })
})
