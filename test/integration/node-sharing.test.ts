import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '../../src/base/index.ts'
import type { ShoalNode } from '../../src/node/types.ts'
import { Cluster } from '../support/cluster.ts'
import { temporaryDirectory, writeTree } from '../support/files.ts'

/** Slow enough that others join while it runs. */
const SLOW = { transfer: { uploadBytesPerSecond: 8 * MiB } }
const NOWHERE = 'bafyr4idqlwoa4bqzmcajfvs7jxj36mdhhg7zxzfao2bs52bxovntohsfe4'

/** A model of 9 MiB on one node, and a second node with room for a small part of it. */
async function withLittleRoom (cluster: Cluster): Promise<{ b: ShoalNode, cid: string }> {
  await using source = await temporaryDirectory('source')
  await writeTree(source.path, { 'config.json': 700, 'model.bin': 9 * MiB })
  const [a, b] = await cluster.spawn(2, position => ({ settings: { storage: { quota: position === 1 ? MiB : undefined } } }))
  assert.ok(a !== undefined && b !== undefined)
  await cluster.connect()
  return { b, cid: (await a.add(source.path)).cid }
}

describe('a load that is shared', function () {
  this.timeout(60_000)

  describe('once its first fetch has ended', () => {
    it('fetches what an open model reads outside of its own files', async () => {
      await using cluster = new Cluster({ transport: 'tcp' })
      await using source = await temporaryDirectory('source')
      await writeTree(source.path, { 'config.json': 700, 'model.bin': 9 * MiB })
      const [a, b] = await cluster.spawn(2)
      assert.ok(a !== undefined && b !== undefined)
      await cluster.connect()
      const { cid } = await a.add(source.path)
      const open = await b.open(cid, { include: ['config.json'] })
      await open.done
      const bytes = await open.read('model.bin', 5 * MiB, 100)
      assert.deepEqual(Buffer.from(bytes), (await readFile(join(source.path, 'model.bin'))).subarray(5 * MiB, 5 * MiB + 100))
      open.close()
    })

    it('fetches again what was withdrawn while it was open', async () => {
      await using cluster = new Cluster({ transport: 'tcp' })
      await using source = await temporaryDirectory('source')
      await writeTree(source.path, { 'model.bin': 9 * MiB })
      const [a, b] = await cluster.spawn(2)
      assert.ok(a !== undefined && b !== undefined)
      await cluster.connect()
      const { cid } = await a.add(source.path)
      const open = await b.open(cid)
      await open.done
      await writeFile(open.files[0]?.localPath ?? '', Buffer.alloc(9 * MiB))
      assert.ok((await b.verify(cid)).bad.length > 0)
      const bytes = await open.read('model.bin', 5 * MiB, 100)
      assert.deepEqual(Buffer.from(bytes), (await readFile(join(source.path, 'model.bin'))).subarray(5 * MiB, 5 * MiB + 100))
      open.close()
    })
  })

  it('tells each caller what is wrong with its own files only', async () => {
    await using cluster = new Cluster()
    const { b, cid } = await withLittleRoom(cluster)
    const none = b.load(cid, { include: ['nothing*'] })
    const all = b.load(cid)
    const part = b.load(cid, { include: ['config.json'] })
    await Promise.all([
      assert.rejects(none, { name: 'UsageError' }),
      assert.rejects(all, { name: 'QuotaExceededError' }),
      part
    ])
    assert.equal((await part).fetchedBytes, 700)
  })

  it('may fail after a caller has left who came too late', async () => {
    await using cluster = new Cluster()
    const { b, cid } = await withLittleRoom(cluster)
    const open = await b.open(cid, { include: ['config.json'] })
    await open.done
    // An unhandled rejection would fail the run.
    await assert.rejects(open.read('model.bin', 0, 1, { signal: AbortSignal.abort() }), { name: 'AbortError' })
    await assert.rejects(open.read('model.bin', 0, 1), { name: 'QuotaExceededError' })
    open.close()
  })

  it('leaves nothing behind when no caller had room', async () => {
    await using cluster = new Cluster()
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'model.bin': 9 * MiB })
    const [a, b] = await cluster.spawn(2, position => ({ settings: { storage: { quota: position === 1 ? MiB : undefined } } }))
    assert.ok(a !== undefined && b !== undefined)
    await cluster.connect()
    const { cid } = await a.add(source.path)
    await assert.rejects(b.load(cid), { name: 'QuotaExceededError' })
    assert.deepEqual(b.models(), [])
  })

  it('is searched for as long as its most patient caller waits', async () => {
    await using cluster = new Cluster()
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'model.bin': MiB })
    const [a, b, c] = await cluster.spawn(3)
    assert.ok(a !== undefined && b !== undefined && c !== undefined)
    await cluster.connect([a, b])
    const { cid } = await c.add(source.path)
    const hasty = b.load(cid, { providerTimeoutMs: 300 })
    const patient = b.load(cid, { providerTimeoutMs: 30_000 })
    await assert.rejects(hasty, { name: 'NoProviderError', message: /^no peer has .* [1-9]\d* peers? (was|were) asked/ })
    await c.connect(a.multiaddrs()[0] ?? '')
    assert.equal((await patient).fetchedBytes, MiB)
    await assert.rejects(b.load(NOWHERE, { providerTimeoutMs: 300 }), { name: 'NoProviderError' })
    assert.deepEqual(b.transfers(), [])
  })

  it('tells each caller what it fetched, not what others did', async () => {
    await using cluster = new Cluster()
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'config.json': 700, 'model.bin': 24 * MiB })
    const [a, b] = await cluster.spawn(2, () => ({ settings: SLOW }))
    assert.ok(a !== undefined && b !== undefined)
    await cluster.connect()
    const { cid, bytes } = await a.add(source.path)
    const begun = Promise.withResolvers<void>()
    const all = b.load(cid, { include: ['model.bin'], onProgress: ({ bytesDone }) => { if (bytesDone > 4 * MiB) begun.resolve() } })
    await begun.promise
    const part = await b.load(cid, { include: ['config.json'] })
    assert.deepEqual([part.bytes, part.fetchedBytes, part.reusedBytes], [700, 700, 0])
    const late = await b.load(cid)
    const first = await all
    assert.deepEqual([first.bytes, first.fetchedBytes, first.reusedBytes], [24 * MiB, 24 * MiB, 0])
    assert.ok(late.fetchedBytes < 20 * MiB, `${late.fetchedBytes} bytes fetched`)
    assert.equal(late.fetchedBytes + late.reusedBytes, bytes)
    assert.ok((late.peers[a.peerId] ?? 0) < 20 * MiB)
  })
})

describe('a node that cannot listen', function () {
  this.timeout(60_000)

  it('says on which address and why', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    const [a] = await cluster.spawn(1)
    const address = a?.multiaddrs()[0]?.replace(/\/p2p\/.*$/, '') ?? ''
    const settings = { listen: ['/ip4/127.0.0.1/tcp/0', address] }
    await assert.rejects(cluster.spawn(1, () => ({ settings })), error => {
      assert.ok(error instanceof Error)
      assert.equal(error.name, 'ConfigError')
      assert.match(error.message, new RegExp(`^cannot listen on ${address}: EADDRINUSE.*address already in use`))
      assert.doesNotMatch(error.message, / at |\n/)
      return true
    })
  })
})
