import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { MiB } from '../../../src/base/index.ts'
import { createHfServer, type HfServer } from '../../../src/hf/index.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import type { Cluster } from '../../support/cluster.ts'
import { Hub } from '../../support/hub.ts'
import { until } from '../../support/until.ts'
import { hubCluster } from './hub-cluster.ts'

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

  /** Files are given before the model they belong to is published. */
  const published = async (): Promise<void> => {
    await until('nothing is fetched any more', () => node.origin?.status().fetches.length === 0)
  }

  /** The same node once more, which has only its disk. */
  const restart = async (): Promise<void> => {
    await server.stop()
    const dataDirectory = cluster.directory(node)
    await cluster.kill(node)
    ;[node] = await cluster.spawn(1, () => ({ dataDirectory })) as [ShoalNode]
    server = createHfServer({ node, host: '127.0.0.1', port: 0 })
    await server.start()
  }

  beforeEach(async () => {
    hub = await Hub.start()
    cluster = hubCluster(hub)
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
    await published()
    const links = node.links('acme/tiny')
    assert.deepEqual(links.map(({ revision, origin }) => [revision, origin?.commit]), [['main', commit], [commit, commit]])
    assert.equal((await node.status()).origin?.counters.fetched, 1)
    assert.ok(node.models()[0]?.complete)
  })

  it('passes on files whose names no model can hold', async () => {
    const png = randomBytes(200_000)
    const name = '模型/图 "1".png'
    const url = `/acme/tiny/resolve/main/${name.split('/').map(encodeURIComponent).join('/')}`
    const commit = hub.push('acme/tiny', { ...FILES, [name]: png, 'two words.txt': Buffer.from('two\n'), 'nö': Buffer.alloc(0), 'readme.md': Buffer.from('another'), '👩\u200d🔬.png': png })
    const tree = await (await get('/api/models/acme/tiny/tree/main?recursive=true')).json() as Array<{ type: string, path: string }>
    assert.deepEqual(tree.flatMap(({ type, path }) => type === 'file' ? [path] : []).sort(), [...Object.keys(FILES), name, 'two words.txt', 'nö', 'readme.md', '👩\u200d🔬.png'].sort())
    const head = await get(url, { method: 'HEAD' })
    assert.deepEqual([head.status, head.headers.get('content-length'), head.headers.get('x-repo-commit')], [200, String(png.length), commit])
    assert.ok(head.headers.get('content-disposition')?.includes('filename*=UTF-8\'\'%E5%9B%BE%20%221%22.png; filename="_ _1_.png"'), head.headers.get('content-disposition') ?? '')
    assert.ok(Buffer.from(await (await get(url)).arrayBuffer()).equals(png))
    const part = await get(url, { headers: { range: 'bytes=1000-70999' } })
    assert.deepEqual([part.status, Buffer.from(await part.arrayBuffer()).equals(png.subarray(1_000, 71_000))], [206, true])
    hub.faults.noRanges = true
    assert.ok(Buffer.from(await (await get(url, { headers: { range: 'bytes=199999-' } })).arrayBuffer()).equals(png.subarray(199_999)))
    hub.faults.noRanges = false
    assert.deepEqual([await (await get('/acme/tiny/resolve/main/two%20words.txt')).text(), (await get('/acme/tiny/resolve/main/n%C3%B6')).status], ['two\n', 200])
    assert.equal(await (await get('/acme/tiny/resolve/main/readme.md')).text(), 'another')
    assert.equal((await (await get(`/acme/tiny/resolve/main/${encodeURIComponent('👩\u200d🔬.png')}`)).arrayBuffer()).byteLength, png.length)
    hub.faults.wrong = name
    await assert.rejects((await get(url)).arrayBuffer(), { name: 'TypeError', message: 'terminated' }, 'the last piece of a file that is another one goes out to nobody')
    delete hub.faults.wrong
    assert.equal(hub.fileBytes < 1_500_000, true)
    // The rest is a model like any.
    assert.equal(await (await get('/acme/tiny/resolve/main/README.md')).text(), '# tiny\n')
    assert.equal((await get('/acme/tiny/resolve/main/config.json')).status, 200)
    await published()
    assert.deepEqual((await node.show(node.models()[0]?.cid ?? '')).fileList.map(({ path }) => path), Object.keys(FILES).sort())
    // With the upstream away nobody has them, and nobody remembers that they are not there.
    hub.faults.down = { status: 503 }
    assert.ok((await get(url)).status >= 500)
    await restart()
    assert.deepEqual([(await get(url)).status, (await get('/acme/tiny/resolve/main/no.such')).status], [504, 404])
    assert.equal((await get('/acme/tiny/resolve/main/config.json')).status, 200)
  })

  it('gives a file as soon as it is whole, while the rest is on its way', async () => {
    hub.push('acme/tiny', FILES)
    hub.faults.bytesPerSecond = 2 * MiB
    const last = get('/acme/tiny/resolve/main/weights.bin')
    for (const [path, range] of [['model.safetensors', undefined], ['README.md', undefined], ['model.safetensors', [100, 200_000]]] as const) {
      const answer = await get(`/acme/tiny/resolve/main/${path}`, range === undefined ? {} : { headers: { range: `bytes=${range[0]}-${range[1] - 1}` } })
      assert.equal(answer.status, range === undefined ? 200 : 206)
      assert.ok(Buffer.from(await answer.arrayBuffer()).equals(FILES[path].subarray(...range ?? [])), path)
    }
    // One that leaves in between takes nothing with it.
    const left = new AbortController()
    const leaving = assert.rejects(get('/acme/tiny/resolve/main/weights.bin', { signal: left.signal }), { name: 'AbortError' })
    left.abort()
    await leaving
    assert.deepEqual([node.models(), node.origin?.status().fetches.map(({ phase }) => phase)], [[], ['fetching']])
    assert.ok(hub.fileBytes < total)
    assert.ok(Buffer.from(await (await last).arrayBuffer()).equals(FILES['weights.bin']))
    assert.equal(hub.fileBytes, total)
    await published()
    assert.ok(node.models()[0]?.complete)
  })
})
