import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { MiB } from '../../../src/base/index.ts'
import { NodeProcess } from '../../../scripts/lib/spawn-node.ts'
import { seedOf } from '../../compliance/store-fixtures.ts'
import { Cluster } from '../../support/cluster.ts'
import { hashTree, temporaryDirectory, writeTree } from '../../support/files.ts'
import { until } from '../../support/until.ts'

const seed = seedOf()

describe(`lanes between nodes (seed ${seed})`, function () {
  this.timeout(60_000)

  it('off on either side: streams serve, and status says so truly', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'a.bin': 3 * MiB })
    const off = { settings: { lane: { enabled: false } } }
    const [a, b, c] = await cluster.spawn(3, position => position === 2 ? off : {})
    assert(a !== undefined && b !== undefined && c !== undefined)
    await cluster.connect()
    const { cid } = await a.add(source.path)
    const kind = (of: typeof a, to: typeof a): string | undefined => of.peers().find(({ peerId }) => peerId === to.peerId)?.transport
    await b.load(cid)
    assert.deepEqual([kind(b, a), kind(a, b)], ['lane', 'lane'])
    await c.load(cid)
    assert.equal(kind(c, a) ?? 'stream', 'stream')
    assert.equal(kind(a, c) ?? 'stream', 'stream')
    await writeTree(source.path, { 'b.bin': 3 * MiB }, 2)
    await c.remove(cid)
    const own = await c.add(source.path)
    assert.deepEqual(await hashTree((await b.load(own.cid)).path ?? ''), await hashTree(source.path))
    assert.equal(kind(b, c), 'stream')
    assert.equal(kind(b, a), 'lane')
  })

  it('a holder that is found before there is a connection to it gives its bytes over a lane, too', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'a.bin': 8 * MiB })
    const [holder, between, loader] = await cluster.spawn(3)
    assert(holder !== undefined && between !== undefined && loader !== undefined)
    await between.connect(holder.multiaddrs()[0] ?? '')
    const { cid } = await holder.add(source.path)
    await until('it is announced', async () => (await holder.status()).announce.announced > 0)
    await loader.connect(between.multiaddrs()[0] ?? '')
    await loader.load(cid)
    assert.equal(loader.peers().find(({ peerId }) => peerId === holder.peerId)?.transport, 'lane')
  })

  it('with hash threads the seeder is killed, then the loader: another seeder gives the rest, and the next run goes on', async () => {
    await using root = await temporaryDirectory('lanes')
    const source = join(root.path, 'source')
    // What is left when they are killed takes seconds more: on a busy host the word that it is time comes late.
    await writeTree(source, { 'a.bin': 64 * MiB, 'b.bin': 100 })
    const swarmKeyHex = randomBytes(32).toString('hex')
    const start = async (name: string, uploadBytesPerSecond?: number): Promise<NodeProcess> => await NodeProcess.start({
      dataDirectory: join(root.path, name),
      swarmKeyHex,
      settings: { listen: ['/ip4/127.0.0.1/tcp/0'], network: { inboundPerSecond: 1_000 }, transfer: { hashThreads: 2, ...(uploadBytesPerSecond === undefined ? {} : { uploadBytesPerSecond }) } }
    })
    const [doomed, other, loader] = await Promise.all([start('doomed', 24 * MiB), start('other', 16 * MiB), start('loader')])
    const running = [doomed, other, loader]
    try {
      const { cid } = await doomed.add(source)
      await other.add(source)
      for (const seeder of [doomed, other]) await loader.connect(seeder.multiaddrs[0] ?? '')
      const early = new Promise<void>(resolve => { loader.onProgress = bytesDone => { if (bytesDone > 2 * MiB) resolve() } })
      const later = new Promise<void>(resolve => { early.then(() => { loader.onProgress = bytesDone => { if (bytesDone > 10 * MiB) resolve() } }, resolve) })
      const cut = loader.load(cid).then(() => 'done', () => 'killed')
      await early
      assert((await loader.peers()).some(({ peerId, transport }) => peerId === doomed.peerId && transport === 'lane'))
      await doomed.kill()
      await later
      await loader.kill()
      assert.equal(await cut, 'killed')
      const again = await start('loader')
      running.push(again)
      await again.connect(other.multiaddrs[0] ?? '')
      const result = await again.load(cid)
      // At once: a lane that nobody needs is closed after a while, and to hash all may take that long.
      assert.equal((await again.peers()).find(({ peerId }) => peerId === other.peerId)?.transport, 'lane')
      assert.deepEqual(await hashTree(result.path ?? ''), await hashTree(source))
      assert(result.fetchedBytes < 64 * MiB, 'what was recorded before it was killed is not fetched again')
      assert.deepEqual((await again.verify()).bad, [])
    } finally {
      await Promise.all(running.map(async node => { await node.kill() }))
    }
  })
})
