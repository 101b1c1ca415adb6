import assert from 'node:assert/strict'
import { open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { MiB } from '../../../src/base/index.ts'
import type { PartialSettings } from '../../../src/node/init.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import { Cluster } from '../../support/cluster.ts'
import { hashTree, temporaryDirectory, writeTree } from '../../support/files.ts'

/** Everything that takes minutes takes a second or two. */
const QUICK: PartialSettings = {
  storage: { donate: 64 * MiB },
  replication: {
    graceLastCopyMs: 0,
    graceTwoCopiesMs: 500,
    graceDefaultMs: 1_000,
    settleMs: 1_000,
    proofTtlMs: 10_000,
    suspectMs: 1_500,
    downMs: 2_500,
    rankDelayMs: 500,
    brakeShare: 1,
    trimEveryMs: 1_000,
    trimProofMs: 5_000
  }
}

async function until (what: string, is: () => boolean | Promise<boolean>, timeoutMs = 45_000): Promise<void> {
  const deadline = Date.now() + timeoutMs
  while (!await is()) {
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await wait(100)
  }
}

function fewest (node: ShoalNode, cid: string): number {
  return Math.min(...node.shards(cid).map(({ replicas }) => replicas))
}

async function started (cluster: Cluster, nodes: number, replicas: number): Promise<{ all: ShoalNode[], publisher: ShoalNode, cid: string }> {
  await using source = await temporaryDirectory('source')
  await writeTree(source.path, { 'config.json': 700, 'a.bin': 5 * MiB, 'b.bin': 9 * MiB })
  const all = await cluster.spawn(nodes)
  const [publisher] = all
  assert.ok(publisher !== undefined)
  await cluster.connect()
  const { cid } = await publisher.add(source.path, { replicas })
  await publisher.replicated(cid, { signal: AbortSignal.timeout(45_000) })
  return { all, publisher, cid }
}

function holders (node: ShoalNode, cid: string): Set<string> {
  return new Set(node.shards(cid).flatMap(shard => shard.holders.filter(({ state }) => state === 'proven').map(({ peerId }) => peerId)))
}

describe('replication in a cluster', function () {
  this.timeout(120_000)

  it('brings every shard to its target, and back to it when a holder dies', async () => {
    await using cluster = new Cluster({ transport: 'tcp', settings: QUICK })
    const { publisher, all, cid } = await started(cluster, 4, 3)
    assert.equal(fewest(publisher, cid), 3)
    const { replication } = await publisher.status()
    assert.equal(replication.models[0]?.replicasMin, 3)
    assert.equal(replication.models[0]?.target, 3)
    const victim = all.slice(1).find(node => holders(publisher, cid).has(node.peerId))
    assert.ok(victim !== undefined)
    await cluster.kill(victim)
    await until('the loss is seen', () => fewest(publisher, cid) < 3)
    await until('three replicas again', () => fewest(publisher, cid) >= 3)
    assert.ok(!holders(publisher, cid).has(victim.peerId))
  })

  it('keeps commitments over a restart', async () => {
    await using cluster = new Cluster({ transport: 'tcp', settings: QUICK })
    const { publisher, all, cid } = await started(cluster, 3, 3)
    const holder = all[1]
    assert.ok(holder !== undefined)
    const before = (await holder.status()).replication.committedBytes
    assert.ok(before > 14 * MiB)
    const directory = cluster.directory(holder)
    await cluster.kill(holder)
    const [again] = await cluster.spawn(1, () => ({ dataDirectory: directory }))
    assert.ok(again !== undefined)
    assert.equal((await again.status()).replication.committedBytes, before)
    await again.connect(publisher.multiaddrs()[0] ?? '')
    await until('three replicas again', () => fewest(publisher, cid) >= 3)
    assert.equal((await again.status()).replication.counters.repairBytes, 0)
  })

  it('ends with unpin, everywhere', async () => {
    await using cluster = new Cluster({ transport: 'tcp', settings: QUICK })
    const { publisher, all, cid } = await started(cluster, 3, 2)
    await publisher.unpin(cid)
    await until('nobody is committed any more', async () => {
      const committed = await Promise.all(all.slice(1).map(async node => (await node.status()).replication.committedBytes))
      return committed.every(bytes => bytes === 0)
    })
  })

  it('hands everything over when it drains', async () => {
    await using cluster = new Cluster({ transport: 'tcp', settings: QUICK })
    const { publisher, all, cid } = await started(cluster, 4, 2)
    const holder = all.slice(1).find(node => holders(publisher, cid).has(node.peerId))
    assert.ok(holder !== undefined)
    const result = await holder.drain({ signal: AbortSignal.timeout(45_000) })
    assert.equal(result.complete, true)
    const others = all.filter(node => node !== holder)
    await cluster.kill(holder)
    await until('the target is met without it', () => fewest(publisher, cid) >= 2)
    assert.ok(others.some(node => node !== publisher && holders(publisher, cid).has(node.peerId)))
  })

  it('finds rot by the scrub, serves none of it, and heals it', async () => {
    await using cluster = new Cluster({ transport: 'tcp', settings: { ...QUICK, replication: { ...QUICK.replication, scrubPeriodMs: 3_000 } } })
    const { publisher, all, cid } = await started(cluster, 3, 3)
    const holder = all[1]
    assert.ok(holder !== undefined)
    const directory = join(cluster.directory(holder), 'files')
    const [name = ''] = await readdir(directory)
    const file = await open(join(directory, name), 'r+')
    await file.write(Buffer.from([1, 2, 3, 4]), 0, 4, 100)
    await file.close()
    await until('the scrub found it', async () => (await holder.status()).replication.scrub.bad === 1)
    await until('it is healed', async () => (await holder.show(cid)).complete)
    assert.equal((await holder.verify()).bad.length, 0)
    await until('three replicas again', () => fewest(publisher, cid) >= 3)
    assert.equal((await holder.status()).blocksLost, 1)
  })

  it('lets only the publisher say how many, and changes it later', async () => {
    await using cluster = new Cluster({ transport: 'tcp', settings: QUICK })
    const { publisher, all, cid } = await started(cluster, 3, 2)
    const other = all.find(node => node !== publisher && holders(publisher, cid).has(node.peerId))
    assert.ok(other !== undefined)
    await assert.rejects(other.pin(cid, { replicas: 3 }), { name: 'UsageError' })
    await assert.rejects(publisher.pin(cid, { replicas: 65 }), { name: 'UsageError' })
    await assert.rejects(publisher.replicated('bafyr4idqlwoa4bqzmcajfvs7jxj36mdhhg7zxzfao2bs52bxovntohsfe4'), { name: 'ModelNotFoundError' })
    await publisher.pin(cid, { replicas: 3 })
    await publisher.replicated(cid, { signal: AbortSignal.timeout(45_000) })
    assert.equal((await publisher.status()).replication.models[0]?.target, 3)
  })

  it('takes only what fits, shard by shard, and says why the rest is missing', async () => {
    await using cluster = new Cluster({ transport: 'tcp', settings: { ...QUICK, storage: { donate: 0 } } })
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'a.bin': 5 * MiB, 'b.bin': 9 * MiB })
    const [publisher, giver] = await cluster.spawn(2, at => ({ settings: { storage: { donate: at === 1 ? 6 * MiB : 0 } } }))
    assert.ok(publisher !== undefined && giver !== undefined)
    await cluster.connect()
    const { cid } = await publisher.add(source.path, { replicas: 2 })
    await until('the small file is there', () => publisher.shards(cid)[0]?.replicas === 2)
    const { replication, models, problems } = await giver.status()
    assert.equal(replication.committedBytes, 5 * MiB)
    assert.equal(models.bytes, 5 * MiB) // and nothing of the other file
    assert.deepEqual(problems.filter(problem => problem.includes('in part')), [])
    assert.equal(publisher.shards(cid)[1]?.replicas, 1)
  })

  it('shares what it fetches with a load of the same model', async () => {
    await using cluster = new Cluster({ transport: 'tcp', settings: { ...QUICK, transfer: { uploadBytesPerSecond: 4 * MiB } } })
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'a.bin': 5 * MiB, 'b.bin': 9 * MiB })
    const [publisher, giver] = await cluster.spawn(2)
    assert.ok(publisher !== undefined && giver !== undefined)
    await cluster.connect()
    const events: string[] = []
    giver.events.on('load:started', () => { events.push('started') })
    giver.events.on('model:loaded', () => { events.push('loaded') })
    giver.events.on('load:failed', () => { events.push('failed') })
    const { cid } = await publisher.add(source.path, { replicas: 2 })
    await until('a pull runs', async () => (await giver.status()).replication.pulling > 0)
    assert.deepEqual(giver.transfers(), [])
    assert.deepEqual(events, [])
    const { path } = await giver.load(cid)
    assert.ok(path !== undefined)
    assert.deepEqual(await hashTree(path), await hashTree(source.path))
    assert.deepEqual(events, ['started', 'loaded'])
    await publisher.replicated(cid, { signal: AbortSignal.timeout(45_000) })
    const received = giver.peers().reduce((sum, peer) => sum + peer.receivedBytes, 0)
    assert.ok(received < 14.5 * MiB, `${received} bytes came for 14 MiB`)
  })
})
