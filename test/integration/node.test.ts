import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { chmod, mkdir, readFile, rm, symlink, writeFile, appendFile } from 'node:fs/promises'
import { join } from 'node:path'
import { mock } from 'node:test'
import { CID } from 'multiformats/cid'
import { identity } from 'multiformats/hashes/identity'
import { DiskError, MiB, NodeStoppedError, randomInt, seededRandom, silentLogger, type Logger } from '../../src/base/index.ts'
import { BlockStore } from '../../src/storage/block-store.ts'
import { Cluster } from '../support/cluster.ts'
import { until } from '../support/until.ts'
import { hashTree, temporaryDirectory, writeTree } from '../support/files.ts'

const named = (name: string) => (error: unknown): boolean => {
  assert.equal((error as Error).name, name, String((error as Error).stack))
  return true
}

describe('node', function () {
  this.timeout(60_000)

  for (const transport of ['memory', 'tcp'] as const) {
    describe(`over ${transport}`, () => {
      it('loads what another has added, byte for byte', async () => {
        await using cluster = new Cluster({ transport })
        await using source = await temporaryDirectory('source')
        await writeTree(source.path, { 'config.json': 700, 'weights/a.bin': 9 * MiB + 13, 'weights/b.bin': 4 * MiB, 'empty.txt': 0 })
        const [a, b] = await cluster.spawn(2)
        assert.ok(a !== undefined && b !== undefined)
        await cluster.connect()
        const added = await a.add(source.path)
        assert.equal(added.files, 4)
        const seen: number[] = []
        const result = await b.load(added.cid, { onProgress: progress => { seen.push(progress.bytesDone) } })
        assert.equal(result.bytes, added.bytes)
        assert.equal(result.fetchedBytes, added.bytes)
        assert.deepEqual(result.peers, { [a.peerId]: added.bytes })
        assert.equal(seen.at(-1), added.bytes)
        if (transport === 'tcp') assert.deepEqual(await hashTree(result.path ?? ''), await hashTree(source.path))
        const open = await b.open(added.cid)
        const bytes = await open.read('weights/a.bin', 4 * MiB - 5, 10)
        assert.deepEqual(Buffer.from(bytes), (await readFile(join(source.path, 'weights/a.bin'))).subarray(4 * MiB - 5, 4 * MiB + 5))
        open.close()
        const again = await b.load(added.cid)
        assert.equal(again.fetchedBytes, 0)
        assert.equal(again.reusedBytes, added.bytes)
      })
    })
  }

  it('ends a start that looks through all that is held when it is told to, and the next start goes on', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'a.bin': 9 * MiB, 'b.bin': 5 * MiB })
    const dataDirectory = join(source.path, 'data')
    const [first] = await cluster.spawn(1, () => ({ dataDirectory }))
    assert.ok(first !== undefined)
    const { cid, bytes } = await first.add(join(source.path, 'a.bin'))
    await cluster.kill(first)
    await rm(join(dataDirectory, 'catalog.sqlite'))
    const [stop, reason] = [new AbortController(), new NodeStoppedError('enough')]
    const logger: Logger = { ...silentLogger, child: () => logger, warn: (_details, message) => { if (message.includes('is rebuilt')) stop.abort(reason) } }
    await assert.rejects(cluster.spawn(1, () => ({ dataDirectory, logger, signal: stop.signal })), error => error === reason)
    await assert.rejects(cluster.spawn(1, () => ({ dataDirectory, signal: AbortSignal.abort(reason) })), error => error === reason)
    const [again] = await cluster.spawn(1, () => ({ dataDirectory }))
    assert.equal((await again?.show(cid))?.presentBytes, bytes)
  })

  it('says that it is draining, and warns who adds to it', async () => {
    await using cluster = new Cluster()
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'a.bin': 3 })
    const [a] = await cluster.spawn(1)
    assert.ok(a !== undefined)
    assert.deepEqual((await a.add(source.path)).warnings, [])
    await a.drain({ deadlineMs: 1 })
    assert.equal((await a.status()).problems.filter(problem => problem.startsWith('this node is draining: ')).length, 1)
    assert.match((await a.add(source.path)).warnings.join(), /^this node is draining: /)
  })

  it('gives the same model the same CID on every machine', async () => {
    await using cluster = new Cluster()
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'b.bin': 5 * MiB, 'a.bin': 3 })
    const [a, b] = await cluster.spawn(2)
    const first = await a?.add(source.path)
    const second = await b?.add(source.path)
    assert.equal(first?.cid, second?.cid)
    assert.equal((await a?.add(source.path))?.newBytes, 0)
  })

  it('loads from all of its neighbours from the start', async () => {
    await using cluster = new Cluster({ transport: 'tcp', settings: { transfer: { peerBytesPerSecond: 24 * MiB } } })
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`${i}.bin`, MiB])))
    const [a, b, c] = await cluster.spawn(3)
    assert.ok(a !== undefined && b !== undefined && c !== undefined)
    await cluster.connect()
    const { cid } = await a.add(source.path)
    await c.add(source.path)
    // A third of a second from one of them: no search for more has begun by then.
    const { peers } = await b.load(cid)
    assert.deepEqual(Object.keys(peers).sort(), [a.peerId, c.peerId].sort())
  })

  it('loads only what is included, and the rest later', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'x/a.bin': 5 * MiB, 'b.bin': 6 * MiB, 'c.json': 10 })
    const [a, b] = await cluster.spawn(2)
    assert.ok(a !== undefined && b !== undefined)
    await cluster.connect()
    const { cid } = await a.add(source.path)
    const part = await b.load(cid, { include: ['**/*.json', 'x/**'] })
    assert.equal(part.fetchedBytes, 5 * MiB + 10)
    assert.equal(b.models()[0]?.complete, false)
    await assert.rejects(b.load(cid, { include: ['nothing*'] }), named('UsageError'))
    const rest = await b.load(cid)
    assert.equal(rest.fetchedBytes, 6 * MiB)
    assert.equal(rest.reusedBytes, 5 * MiB + 10)
    assert.deepEqual(await hashTree(rest.path ?? ''), await hashTree(source.path))
  })

  it('shares one fetch between callers, each with its own signal', async () => {
    await using cluster = new Cluster()
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'a.bin': 24 * MiB })
    const [a, b] = await cluster.spawn(2)
    assert.ok(a !== undefined && b !== undefined)
    await cluster.connect()
    const { cid, bytes } = await a.add(source.path)
    const leaver = new AbortController()
    const left = b.load(cid, { signal: leaver.signal, onProgress: ({ bytesDone }) => { if (bytesDone > 0) leaver.abort() } })
    const stayed = b.load(cid)
    await assert.rejects(left, named('AbortError'))
    assert.equal((await stayed).fetchedBytes, bytes)
    assert.equal(b.transfers().length, 0)
  })

  it('resumes from what is on disk after a stop in the middle', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'a.bin': 48 * MiB })
    const [a, b] = await cluster.spawn(2)
    assert.ok(a !== undefined && b !== undefined)
    await cluster.connect()
    const { cid, bytes } = await a.add(source.path)
    const dataDirectory = cluster.directory(b)
    const stopper = new AbortController()
    await assert.rejects(b.load(cid, { signal: stopper.signal, onProgress: ({ bytesDone }) => { if (bytesDone > 8 * MiB) stopper.abort() } }), named('AbortError'))
    await cluster.kill(b)
    const [c] = await cluster.spawn(1, () => ({ dataDirectory }))
    assert.ok(c !== undefined)
    const held = c.models()[0]?.presentBytes ?? 0
    assert.ok(held > 8 * MiB && held <= bytes, `${held} bytes held`)
    await c.connect(a.multiaddrs()[0] ?? '')
    const result = await c.load(cid)
    assert.equal(result.reusedBytes, held)
    assert.equal(result.fetchedBytes, bytes - held)
    assert.deepEqual(await hashTree(result.path ?? ''), await hashTree(source.path))
  })

  it('lets eight nodes that load at the same time feed one another', async () => {
    await using cluster = new Cluster()
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'a.bin': 64 * MiB })
    const nodes = await cluster.spawn(9)
    await cluster.connect()
    const [seeder, ...loaders] = nodes
    assert.ok(seeder !== undefined)
    const { cid, bytes } = await seeder.add(source.path)
    const results = await Promise.all(loaders.map(async node => await node.load(cid)))
    const fromSeeder = results.reduce((sum, result) => sum + (result.peers[seeder.peerId] ?? 0), 0)
    for (const result of results) assert.equal(result.fetchedBytes, bytes)
    assert.ok(fromSeeder < 8 * bytes * 0.9, `the seeder sent ${(fromSeeder / bytes).toFixed(2)} copies`)
  })

  it('on demand gives any ranges, in any order, as soon as they are verified, and fetches nothing else', async () => {
    await using cluster = new Cluster()
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'weights.bin': 24 * MiB + 5, 'other.bin': 13 })
    const bytes = await readFile(join(source.path, 'weights.bin'))
    const [a, b] = await cluster.spawn(2)
    assert.ok(a !== undefined && b !== undefined)
    await cluster.connect()
    const { cid } = await a.add(source.path)
    const random = seededRandom(12)
    const open = await b.open(cid, { include: ['weights.bin'], onDemand: true })
    for (let round = 0; round < 8; round++) {
      await Promise.all(Array.from({ length: 5 }, async () => {
        const offset = 8 * MiB + randomInt(random, 6 * MiB)
        const length = 1 + randomInt(random, 2 * MiB)
        assert.ok(bytes.subarray(offset, offset + length).equals(await open.read('weights.bin', offset, length)))
      }))
    }
    await open.waitFor('weights.bin', 8 * MiB, 8 * MiB)
    const missing = (await b.show(cid)).fileList.map(({ path, blocks, presentBlocks }) => [path, blocks - presentBlocks])
    assert.deepEqual(missing, [['other.bin', 1], ['weights.bin', 5]])
    assert.equal(b.transfers().length, 1, 'it goes on until its caller has left')
    open.close()
    await open.done.catch(() => undefined)
    assert.equal(b.transfers().length, 0)
  })

  it('on demand fetches again what was lost of a file that was whole, and tells of a disk that fails', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'w.bin': 12 * MiB })
    const bytes = await readFile(join(source.path, 'w.bin'))
    const [a, b] = await cluster.spawn(2)
    assert.ok(a !== undefined && b !== undefined)
    await cluster.connect()
    const { cid } = await a.add(source.path)
    await b.load(cid)
    const open = await b.open(cid, { onDemand: true })
    const path = open.files[0]?.localPath ?? ''
    await chmod(path, 0o644)
    await writeFile(path, Buffer.alloc(12 * MiB))
    assert.equal((await b.verify(cid)).bad.length, 3)
    assert.ok(bytes.subarray(5 * MiB, 6 * MiB).equals(await open.read('w.bin', 5 * MiB, MiB, { signal: AbortSignal.timeout(10_000) })))
    open.close()
    await b.remove(cid)
    const again = await b.open(cid, { onDemand: true })
    await again.waitFor('w.bin', 0, 4 * MiB)
    const planted = mock.method(BlockStore.prototype, 'readRange', async () => await Promise.reject(new DiskError('EIO')))
    try {
      // Its first half is here, and its second comes.
      await assert.rejects(again.read('w.bin', 3 * MiB, 2 * MiB, { signal: AbortSignal.timeout(10_000) }), named('DiskError'))
    } finally {
      planted.mock.restore()
      again.close()
    }
  })

  it('serves a range that a reader waits for before the rest', async () => {
    await using cluster = new Cluster()
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'a.bin': 64 * MiB })
    const [a, b] = await cluster.spawn(2)
    assert.ok(a !== undefined && b !== undefined)
    await cluster.connect()
    const { cid } = await a.add(source.path)
    const open = await b.open(cid)
    const at = 63 * MiB
    const bytes = await open.read('a.bin', at, 100)
    const done = open.progress().bytesDone
    assert.deepEqual(Buffer.from(bytes), (await readFile(join(source.path, 'a.bin'))).subarray(at, at + 100))
    assert.ok(done < 64 * MiB, 'the range came only when all was there')
    await open.done
    open.close()
  })

  describe('bad input', () => {
    it('refuses CIDs that name no model', async () => {
      await using cluster = new Cluster()
      const [node] = await cluster.spawn(1)
      assert.ok(node !== undefined)
      const digest = createHash('sha256').update('x').digest()
      const raw = CID.createV1(0x55, { code: 0x12, digest, size: 32, bytes: Uint8Array.from([0x12, 0x20, ...digest]) })
      const id = CID.createV1(0x71, identity.digest(new Uint8Array([1, 2, 3])))
      for (const bad of ['', 'nonsense', 'bafy', raw.toString(), id.toString(), 'Qm' + 'x'.repeat(44), '../../etc/passwd']) {
        await assert.rejects(node.load(bad), named('InvalidCidError'), bad)
      }
    })

    it('says how many peers were asked for what nobody has', async () => {
      await using cluster = new Cluster()
      const nodes = await cluster.spawn(4)
      await cluster.connect()
      const unknown = 'bafyr4idqlwoa4bqzmcajfvs7jxj36mdhhg7zxzfao2bs52bxovntohsfe4'
      await assert.rejects(nodes[1]?.load(unknown, { providerTimeoutMs: 1_500 }) ?? Promise.resolve(), error => {
        named('NoProviderError')(error)
        assert.match((error as Error).message, /[1-9] peers? (was|were) asked/)
        return true
      })
      await using alone = new Cluster()
      const [single] = await alone.spawn(1)
      await assert.rejects(single?.load(unknown, { providerTimeoutMs: 300 }) ?? Promise.resolve(), named('NoProviderError'))
    })

    it('refuses what no model can hold, before reading a byte', async () => {
      await using cluster = new Cluster({ transport: 'tcp' })
      const [node] = await cluster.spawn(1)
      assert.ok(node !== undefined)
      await using source = await temporaryDirectory('bad')
      const directory = async (name: string): Promise<string> => {
        const path = join(source.path, name)
        await mkdir(path)
        await writeFile(join(path, 'ok.bin'), 'ok')
        return path
      }
      const link = await directory('link')
      await symlink('/etc/hostname', join(link, 'hosts'))
      await assert.rejects(node.add(link), named('SymbolicLinkError'))
      assert.equal((await node.add(link, { follow: true })).files, 2)

      const unicode = await directory('unicode')
      await writeFile(join(unicode, 'größe.bin'), 'x')
      await assert.rejects(node.add(unicode), named('InvalidPathError'))

      const folded = await directory('folded')
      await writeFile(join(folded, 'OK.bin'), 'x')
      await assert.rejects(node.add(folded), named('InvalidPathError'))

      const empty = join(source.path, 'empty')
      await mkdir(empty)
      await assert.rejects(node.add(empty), named('EmptyModelError'))
      await assert.rejects(node.add(join(source.path, 'missing')), named('UnreadableSourceError'))

      const part = await directory('part')
      await mkdir(join(part, 'nothing'))
      const { warnings, files } = await node.add(part)
      assert.equal(files, 1)
      assert.match(warnings.join(), /nothing/)
      assert.equal(node.models().length, 2)
    })

    it('refuses what it may not read', async function () {
      if (process.getuid?.() === 0) {
        if (this.test !== undefined) this.test.title += ' (skipped: root may read everything)'
        this.skip()
      }
      await using cluster = new Cluster({ transport: 'tcp' })
      const [node] = await cluster.spawn(1)
      assert.ok(node !== undefined)
      await using source = await temporaryDirectory('secret')
      const path = join(source.path, 'secret.bin')
      await writeFile(path, 'secret')
      await chmod(path, 0)
      for (const inPlace of [false, true]) await assert.rejects(node.add(source.path, { inPlace }), named('UnreadableSourceError'))
    })

    it('notices a file that changes while it is added', async () => {
      await using cluster = new Cluster({ transport: 'tcp' })
      const [node] = await cluster.spawn(1)
      assert.ok(node !== undefined)
      await using source = await temporaryDirectory('changing')
      const path = join(source.path, 'a.bin')
      await writeFile(path, randomBytes(32 * MiB))
      let changing: Promise<void> | undefined
      await assert.rejects(node.add(source.path, { inPlace: true, onProgress: () => { changing ??= appendFile(path, 'more') } }), named('SourceChangedError'))
      await changing
      assert.equal(node.models().length, 0)
    })
  })

  it('goes on telling of what models share when one of them is removed', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    await using first = await temporaryDirectory('shares')
    await using second = await temporaryDirectory('shares')
    const one = first.path
    const two = second.path
    const shared = Buffer.alloc(9 * MiB, randomBytes(MiB))
    await writeFile(join(one, 'same.bin'), shared)
    await writeFile(join(two, 'same.bin'), shared)
    // Another file, of which the first blocks are the same.
    await writeFile(join(two, 'longer.bin'), Buffer.concat([shared.subarray(0, 8 * MiB), randomBytes(5 * MiB)]))
    const untilKeys = async (expected: number): Promise<void> => {
      await until(`${expected} keys`, async () => (await node.status()).announce.keys === expected)
    }
    const { cid } = await node.add(one)
    // The model, its one shard, and two blocks: two of three are the same.
    await untilKeys(4)
    const { cid: both } = await node.add(two)
    // Besides: that model, its other shard, and two blocks of its own.
    await untilKeys(8)
    await node.remove(both)
    await untilKeys(4)
    await node.remove(cid)
    await untilKeys(0)
  })

  it('collects garbage while something is added, and leaves that alone', async () => {
    await using cluster = new Cluster()
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'a.bin': 2 * MiB, 'b.txt': 100 })
    const [a] = await cluster.spawn(1)
    assert.ok(a !== undefined)
    // All files are in the store then.
    const planted = mock.method(BlockStore.prototype, 'putModel', async function (this: BlockStore, ...args: Parameters<BlockStore['putModel']>) {
      assert.equal((await a.gc()).leftoverBytes, 0)
      planted.mock.restore()
      return await this.putModel(...args)
    })
    try {
      const { cid } = await a.add(source.path)
      assert.equal(planted.mock.callCount(), 1)
      assert.deepEqual((await a.verify(cid)).bad, [])
    } finally {
      planted.mock.restore()
    }
  })

  it('leaves nothing of an add that failed', async () => {
    await using cluster = new Cluster()
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'a.bin': 2 * MiB, 'b.txt': 100 })
    const [a] = await cluster.spawn(1)
    assert.ok(a !== undefined)
    const full = new DiskError('planted')
    const planted = mock.method(BlockStore.prototype, 'putModel', async () => { throw full })
    try {
      await assert.rejects(a.add(source.path), full)
    } finally {
      planted.mock.restore()
    }
    const { leftoverBytes } = await a.gc()
    assert.equal(leftoverBytes, 2 * MiB + 100)
    assert.equal((await a.status()).storage.heldBytes, 0)
  })

  it('stops cleanly and refuses work afterwards', async () => {
    await using cluster = new Cluster()
    const [a] = await cluster.spawn(1)
    assert.ok(a !== undefined)
    await cluster.kill(a)
    await a.stop()
    await assert.rejects(a.load('x'), named('NodeStoppedError'))
  })
})
