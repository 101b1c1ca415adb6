import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { copyFile, mkdir, open, readdir, rm, statfs, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MiB, systemClock, systemRandom, type Clock } from '../../../src/base/index.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import { Cluster } from '../../support/cluster.ts'
import { hashTree, temporaryDirectory, writeTree } from '../../support/files.ts'
import { until } from '../../support/until.ts'

const GiB = 1024 * MiB
const HOUR_MS = 3_600_000

async function pair (cluster: Cluster): Promise<[ShoalNode, ShoalNode]> {
  const [a, b] = await cluster.spawn(2)
  assert.ok(a !== undefined && b !== undefined)
  await cluster.connect()
  return [a, b]
}

describe('bad luck', function () {
  this.timeout(60_000)

  it('a wrong swarm key keeps out, both ways, and says so', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    const [inside, outside] = await cluster.spawn(2, position => position === 1 ? { swarmKey: systemRandom.bytes(32) } : {})
    assert.ok(inside !== undefined && outside !== undefined)
    for (const [from, to] of [[outside, inside], [inside, outside]] as const) {
      await assert.rejects(from.connect(to.multiaddrs()[0] ?? ''), error => {
        assert.ok(error instanceof Error)
        assert.match(error.name, /^(SwarmKeyError|JoinFailedError)$/)
        assert.match(error.message, /swarm key/)
        return true
      })
    }
    assert.deepEqual(inside.peers(), [])
    assert.deepEqual(outside.peers(), [])
  })

  for (const hours of [48, -48]) {
    it(`a clock ${hours} h off: adds, is found, loads`, async () => {
      const off: Clock = { ...systemClock, now: () => systemClock.now() + hours * HOUR_MS }
      await using cluster = new Cluster()
      await using source = await temporaryDirectory('source')
      await writeTree(source.path, { 'a.bin': 5 * MiB })
      const [wrong, between, right] = await cluster.spawn(3, position => position === 0 ? { clock: off } : {})
      assert.ok(wrong !== undefined && between !== undefined && right !== undefined)
      await between.connect(wrong.multiaddrs()[0] ?? '')
      const mine = await wrong.add(source.path)
      await until('it is announced', async () => (await wrong.status()).announce.announced > 0)
      await right.connect(between.multiaddrs()[0] ?? '')
      assert.equal((await right.load(mine.cid)).bytes, mine.bytes)
      await writeTree(source.path, { 'b.bin': 3 * MiB })
      const theirs = await right.add(source.path)
      assert.equal((await wrong.load(theirs.cid)).fetchedBytes, 3 * MiB)
    })
  }

  it('files of 0 bytes, the same file twice, and many equal blocks: each block travels once', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'empty': 0, 'sub/empty.too': 0, 'a.bin': 4 * MiB + 5 })
    await copyFile(join(source.path, 'a.bin'), join(source.path, 'b.bin'))
    await writeFile(join(source.path, 'zeros.bin'), Buffer.alloc(48 * MiB))
    const [a, b] = await pair(cluster)
    const { cid } = await a.add(source.path)
    const result = await b.load(cid)
    assert.equal(result.fetchedBytes, 4 * MiB + 5 + 4 * MiB)
    assert.deepEqual(await hashTree(result.path ?? ''), await hashTree(source.path))
    assert.deepEqual((await b.verify()).bad, [])
  })

  it('a sparse file beyond 5 GiB, in place: a range at its end comes first', async function () {
    await using cluster = new Cluster({ transport: 'tcp' })
    // Holes cost nothing to read where files are memory; elsewhere the kernel fills five GiB of pages with zeros first.
    await using source = await temporaryDirectory('large', existsSync('/dev/shm') ? '/dev/shm' : tmpdir())
    const mark = Buffer.from('here, beyond 5 GiB')
    const at = 5 * GiB + 12_345
    const handle = await open(join(source.path, 'large.bin'), 'w')
    await handle.truncate(5 * GiB + 8 * MiB)
    await handle.write(mark, 0, mark.length, at)
    await handle.close()
    const [a, b] = await pair(cluster)
    const { cid, bytes } = await a.add(source.path, { inPlace: true })
    assert.equal(bytes, 5 * GiB + 8 * MiB)
    const leave = new AbortController()
    const model = await b.open(cid, { order: 'sequential', signal: leave.signal })
    const started = performance.now()
    assert.deepEqual(Buffer.from(await model.read('large.bin', at, mark.length)), mark)
    assert.ok(performance.now() - started < 5_000)
    model.close()
  })

  it('a corrupt catalog between two runs: nothing is fetched again', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'a.bin': 9 * MiB, 'b/c.bin': 100 })
    const [a, b] = await pair(cluster)
    const { cid } = await a.add(source.path)
    await b.load(cid)
    const dataDirectory = cluster.directory(b)
    await cluster.kill(b)
    for (const name of await readdir(dataDirectory)) {
      if (name === 'catalog.sqlite') await writeFile(join(dataDirectory, name), systemRandom.bytes(20_000))
      else if (name.startsWith('catalog.sqlite')) await rm(join(dataDirectory, name))
    }
    const [again] = await cluster.spawn(1, () => ({ dataDirectory }))
    assert.ok(again !== undefined)
    await again.connect(a.multiaddrs()[0] ?? '')
    const result = await again.load(cid)
    assert.equal(result.fetchedBytes, 0)
    assert.deepEqual(await hashTree(result.path ?? ''), await hashTree(source.path))
  })

  it('a quota: the least recently used cached model goes, never a pinned or published one', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    const [a, b] = await cluster.spawn(2, position => position === 1 ? { settings: { storage: { quota: 20 * MiB } } } : {})
    assert.ok(a !== undefined && b !== undefined)
    await cluster.connect()
    const cids: string[] = []
    for (let seed = 1; seed <= 4; seed++) {
      await using source = await temporaryDirectory('source')
      await writeTree(source.path, { 'a.bin': 8 * MiB }, seed)
      cids.push((await a.add(source.path)).cid)
    }
    const [first = '', second = '', third = '', fourth = ''] = cids
    const held = (): string[] => b.models().map(({ cid }) => cid).sort()
    await b.load(first)
    await b.load(second)
    await b.load(first) // used again: the second is now the one to go
    await b.load(third)
    assert.deepEqual(held(), [first, third].sort())
    // Of each of two: the model, its shard and two blocks. What is told anew counts twice until it is in the queue.
    const keys = 2 * 4
    await until('what was evicted is announced no more', async () => (await b.status()).announce.keys === keys, { withinMs: 5_000 })
    await b.pin(first)
    await b.pin(third)
    await assert.rejects(b.load(fourth), { name: 'QuotaExceededError' })
    assert.deepEqual(held(), [first, third].sort())
    await b.unpin(first)
    await b.load(fourth)
    assert.deepEqual(held(), [third, fourth].sort())
  })

  it('a full volume: the load says so, status too, and goes on when there is room', async function () {
    if (process.getuid?.() !== 0) {
      if (this.test !== undefined) this.test.title += ' (skipped: mounting a small tmpfs needs root)'
      this.skip()
    }
    await using cluster = new Cluster({ transport: 'tcp' })
    await using source = await temporaryDirectory('source')
    await using volume = await temporaryDirectory('volume')
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'shoal-test', volume.path])
    try {
      await writeTree(source.path, { 'a.bin': 40 * MiB })
      const dataDirectory = join(volume.path, 'data')
      await mkdir(dataDirectory)
      const [a, b] = await cluster.spawn(2, position => position === 0 ? { settings: { transfer: { uploadBytesPerSecond: 16 * MiB } } } : { dataDirectory })
      assert.ok(a !== undefined && b !== undefined)
      await cluster.connect()
      const { cid } = await a.add(source.path)
      const filler = join(volume.path, 'somebody-else')
      const fill = async (leave: number): Promise<void> => {
        const { bavail, bsize } = await statfs(volume.path)
        await writeFile(filler, Buffer.alloc(Math.max(0, bavail * bsize - leave), 1))
      }
      await fill(20 * MiB)
      await assert.rejects(b.load(cid), { name: 'OutOfSpaceError' })
      await rm(filler)
      // And in the middle of a load, which may be the one that takes the last byte.
      const isFull = (error: NodeJS.ErrnoException): void => { if (error.code !== 'ENOSPC') throw error }
      let filling: Promise<void> | undefined
      await assert.rejects(b.load(cid, { onProgress: ({ bytesDone }) => { if (bytesDone > 4 * MiB) filling ??= fill(2 * MiB).catch(isFull) } }), { name: 'OutOfSpaceError' })
      await filling
      assert.match((await b.status()).problems.join(), /read-only.*full/)
      await rm(filler)
      const kept = b.models()[0]?.presentBytes ?? 0
      assert.ok(kept >= 4 * MiB, `${kept} bytes were kept`)
      await until('it is written to again', async () => (await b.status()).storage.writable, { withinMs: 15_000 })
      const result = await b.load(cid)
      assert.equal(result.fetchedBytes, 40 * MiB - kept)
      assert.deepEqual(await hashTree(result.path ?? ''), await hashTree(source.path))
      await cluster.kill(b)
    } finally {
      await cluster.teardown()
      execFileSync('umount', [volume.path])
    }
  })
})
