import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { get as httpGet } from 'node:http'
import { join } from 'node:path'
import { MiB, systemClock, type Clock } from '../../../src/base/index.ts'
import { createHfServer, type HfServer } from '../../../src/hf/index.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import { Cluster } from '../../support/cluster.ts'
import { temporaryDirectory, writeTree } from '../../support/files.ts'
import { Hub } from '../../support/hub.ts'
import { until } from '../../support/until.ts'
import { hubCluster } from '../origin/hub-cluster.ts'

/** An hour of it lasts so many times less, for the nodes, the endpoint and the client: all settings are the default ones. */
const HURRY = 5
const hurried: Clock = {
  ...systemClock,
  monotonic: () => systemClock.monotonic() * HURRY,
  setTimeout: (work, delayMs) => systemClock.setTimeout(work, delayMs / HURRY)
}
/** After so many silent seconds Hugging Face clients give up, also before the head. */
const SILENT_MS = 10_000
const REPLICATION = { min: 0, target: 0, max: 0 }

interface Heard { status: number | undefined, body: Buffer, headMs: number }

/** As a Hugging Face client asks. Rejects after ten silent seconds of that clock, and when the answer breaks. */
async function ask (url: string, clock: Clock = hurried): Promise<Heard> {
  return await new Promise((resolve, reject) => {
    const startedAt = clock.monotonic()
    const giveUp = (): void => { request.destroy(new Error(`silent for ${SILENT_MS} ms, ${Math.round(clock.monotonic() - startedAt)} ms after it was asked`)) }
    let cancel = clock.setTimeout(giveUp, SILENT_MS)
    const heard = (): void => {
      cancel()
      cancel = clock.setTimeout(giveUp, SILENT_MS)
    }
    const request = httpGet(url, { agent: false }, answer => {
      const headMs = clock.monotonic() - startedAt
      const chunks: Buffer[] = []
      heard()
      answer.on('data', (chunk: Buffer) => { chunks.push(chunk); heard() })
      answer.on('end', () => { cancel(); resolve({ status: answer.statusCode, body: Buffer.concat(chunks), headMs }) })
      answer.on('error', error => { cancel(); reject(error) })
    })
    request.on('error', error => { cancel(); reject(error) })
  })
}

async function serve (node: ShoalNode, clock: Clock = hurried): Promise<HfServer & AsyncDisposable> {
  const server = createHfServer({ node, host: '127.0.0.1', port: 0, clock })
  await server.start()
  return Object.assign(server, { [Symbol.asyncDispose]: async () => { await server.stop() } })
}

describe('hf: clients that give up after ten silent seconds', function () {
  this.timeout(60_000)

  describe('with an upstream', () => {
    const FILES = { 'config.json': Buffer.from('{"model_type":"llama"}'), 'model.safetensors': randomBytes(2 * MiB + 3) }
    let hub: Hub
    let cluster: Cluster
    beforeEach(async () => {
      hub = await Hub.start()
      cluster = hubCluster(hub, { clock: hurried })
      hub.push('a/b', FILES)
    })
    afterEach(async () => {
      await cluster.teardown()
      await hub.stop()
    })

    it('get a model anew that was removed here, and that nobody has', async () => {
      const [node] = await cluster.spawn(1) as [ShoalNode]
      await using server = await serve(node)
      for (let copies = 1; copies <= 2; copies++) {
        for (const [path, content] of Object.entries(FILES)) {
          const { status, body } = await ask(`${server.url}/a/b/resolve/main/${path}`)
          assert.ok(status === 200 && body.equals(content), path)
        }
        assert.equal(hub.fileBytes, copies * Object.values(FILES).reduce((sum, { length }) => sum + length, 0))
        await until('it is published', () => node.origin?.status().fetches.length === 0)
        for (const { cid } of node.models()) await node.remove(cid)
      }
    })

    it('get one of which a peer has but another file', async () => {
      const [node, peer] = await cluster.spawn(2) as [ShoalNode, ShoalNode]
      await cluster.connect()
      await using server = await serve(node)
      const url = `${server.url}/a/b/resolve/main/model.safetensors`
      await ask(url)
      await until('it is published', () => node.origin?.status().fetches.length === 0)
      const [model] = node.models()
      await peer.load(model?.cid ?? '', { include: ['config.json'] })
      await node.remove(model?.cid ?? '')
      const { status, body } = await ask(url)
      assert.ok(status === 200 && body.equals(FILES['model.safetensors']))
    })

    it('get a head in time, however often what they wait for changes', async () => {
      const [node] = await cluster.spawn(1) as [ShoalNode]
      await using server = await serve(node)
      const url = `${server.url}/a/b/resolve/main/model.safetensors`
      await ask(url)
      await until('it is published', () => node.origin?.status().fetches.length === 0)
      for (const { cid } of node.models()) await node.remove(cid)
      hub.faults.late = { ms: 8_000 / HURRY } // after the five seconds in which a peer could be found
      const { status, body, headMs } = await ask(url)
      assert.ok(status === 200 && body.equals(FILES['model.safetensors']))
      assert.ok(headMs < SILENT_MS, `${headMs} ms`)
    })
  })

  it('are told that nobody has a model any more whose description is known', async () => {
    await using directory = await temporaryDirectory('hf-patience')
    await writeTree(join(directory.path, 'model'), { 'w.bin': MiB })
    await using cluster = new Cluster({ transport: 'tcp', clock: hurried, settings: { replication: REPLICATION } })
    const [holder, node] = await cluster.spawn(2) as [ShoalNode, ShoalNode]
    await cluster.connect()
    const { cid } = await holder.add(join(directory.path, 'model'))
    await node.describe(cid)
    await cluster.kill(holder)
    await using server = await serve(node)
    const { status, headMs } = await ask(`${server.url}/cid/${cid}/resolve/main/w.bin`)
    assert.equal(status, 504)
    assert.ok(headMs < SILENT_MS, `${headMs} ms`)
  })
  it('get five files, four at a time, of a swarm that gives 2 MiB a second', async () => {
    await using directory = await temporaryDirectory('hf-patience')
    const names = Array.from({ length: 5 }, (_, i) => `${i}.bin`)
    await writeTree(join(directory.path, 'model'), Object.fromEntries(names.map(name => [name, 16 * MiB])))
    await using cluster = new Cluster({ transport: 'tcp', clock: hurried, settings: { replication: REPLICATION } })
    const [holder, node] = await cluster.spawn(2, at => at === 0 ? { settings: { transfer: { uploadBytesPerSecond: 2 * MiB } } } : {}) as [ShoalNode, ShoalNode]
    await cluster.connect()
    const { cid } = await holder.add(join(directory.path, 'model'), { inPlace: true })
    await using server = await serve(node)
    const queue = names.values()
    await Promise.all(Array.from({ length: 4 }, async () => {
      for (const name of queue) {
        const { body } = await ask(`${server.url}/cid/${cid}/resolve/main/${name}`)
        assert.ok(body.equals(await readFile(join(directory.path, 'model', name))), name)
      }
    }))
  })
})
