import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { MiB } from '../../../src/base/index.ts'
import { createHfServer, type HfServer } from '../../../src/hf/index.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import { Cluster } from '../../support/cluster.ts'
import { Hub } from '../../support/hub.ts'

const FILES = {
  'config.json': Buffer.from('{"model_type":"llama"}'),
  'README.md': Buffer.from('# tiny\n'),
  'tokenizer/vocab.txt': randomBytes(40_000),
  'model.safetensors': randomBytes(300_000),
  'weights.bin': randomBytes(5 * MiB + 17)
}
const total = Object.values(FILES).reduce((sum, { length }) => sum + length, 0)

describe('origin: one node and a Hub', function () {
  this.timeout(30_000)
  let hub: Hub
  let cluster: Cluster
  let node: ShoalNode
  let server: HfServer

  const get = async (path: string, init: RequestInit = {}): Promise<Response> => await fetch(`${server.url}${path}`, init)

  beforeEach(async () => {
    hub = await Hub.start()
    cluster = new Cluster({ transport: 'tcp', settings: { origin: { upstream: hub.url }, replication: { min: 0, target: 0, max: 0 } } })
    ;[node] = await cluster.spawn(1) as [ShoalNode]
    server = createHfServer({ node, host: '127.0.0.1', port: 0 })
    await server.start()
  })
  afterEach(async () => {
    await server.stop()
    await cluster.teardown()
    await hub.stop()
  })

  it('answers heads and listings from what the Hub says, and fetches when a file is asked for', async () => {
    const commit = hub.push('acme/tiny', FILES)
    const info = await (await get('/api/models/acme/tiny')).json() as { sha: string, siblings: unknown[] }
    assert.deepEqual([info.sha, info.siblings.length], [commit, 5])
    const head = await get('/acme/tiny/resolve/main/weights.bin', { method: 'HEAD' })
    assert.deepEqual([head.status, head.headers.get('x-repo-commit'), head.headers.get('content-length')], [200, commit, String(5 * MiB + 17)])
    assert.equal(hub.fileBytes, 0)
    for (const [path, content] of Object.entries(FILES)) {
      const answer = await get(`/acme/tiny/resolve/main/${path}`)
      assert.deepEqual([answer.status, Buffer.from(await answer.arrayBuffer()).equals(content)], [200, true], path)
    }
    assert.equal(hub.fileBytes, total)
    const links = node.links('acme/tiny')
    assert.deepEqual(links.map(({ revision, origin }) => [revision, origin?.commit]), [['main', commit], [commit, commit]])
    assert.equal((await node.status()).origin?.counters.fetched, 1)
    assert.ok(node.models()[0]?.complete)
  })
})
