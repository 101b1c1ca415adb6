import assert from 'node:assert/strict'
import { open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '../../../src/base/index.ts'
import type { PartialSettings } from '../../../src/node/init.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import { fastClock } from '../../../scripts/lib/fast-clock.ts'
import { Cluster } from '../../support/cluster.ts'
import { hashTree, temporaryDirectory, writeTree } from '../../support/files.ts'
import { until } from '../../support/until.ts'

/** Three times as fast, so that ticks and retries are. */
const clock = fastClock(3)

/** Everything that takes minutes takes a second or two; on that clock, three or six. */
const QUICK: PartialSettings = {
  storage: { donate: 64 * MiB },
  replication: {
    graceLastCopyMs: 0,
    graceTwoCopiesMs: 1_500,
    graceDefaultMs: 3_000,
    settleMs: 1_000,
    proofTtlMs: 30_000,
    suspectMs: 4_500,
    downMs: 7_500,
    rankDelayMs: 1_500,
    brakeShare: 1,
    trimEveryMs: 1_000,
    trimProofMs: 15_000
  }
}

const WAIT = { withinMs: 45_000, everyMs: 100 }

function fewest (node: ShoalNode, cid: string): number {
  return Math.min(...node.shards(cid).map(({ replicas }) => replicas))
}

/** `donates`: whether the publisher gives space as well. */
async function started (cluster: Cluster, nodes: number, replicas: number, { donates = true } = {}): Promise<{ all: ShoalNode[], publisher: ShoalNode, cid: string }> {
  await using source = await temporaryDirectory('source')
  await writeTree(source.path, { 'config.json': 700, 'a.bin': 5 * MiB, 'b.bin': 9 * MiB })
  const all = await cluster.spawn(nodes, position => donates || position > 0 ? {} : { settings: { storage: { donate: 0 } } })
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
    await using cluster = new Cluster({ transport: 'tcp', clock, settings: QUICK })
    const { publisher, all, cid } = await started(cluster, 4, 3)
    assert.equal(fewest(publisher, cid), 3)
    const { replication } = await publisher.status()
    assert.equal(replication.models[0]?.replicasMin, 3)
    assert.equal(replication.models[0]?.target, 3)
    const shown = (await publisher.show(cid)).holders.map(({ peerId }) => peerId)
    for (const peerId of holders(publisher, cid)) assert.equal(shown.includes(peerId), peerId !== publisher.peerId, 'show names who holds it, though the publisher loaded nothing')
    const victim = all.slice(1).find(node => holders(publisher, cid).has(node.peerId))
    assert.ok(victim !== undefined)
    await cluster.kill(victim)
    await until('the loss is seen', () => fewest(publisher, cid) < 3, WAIT)
    await until('three replicas again', () => fewest(publisher, cid) >= 3, WAIT)
    assert.ok(!holders(publisher, cid).has(victim.peerId))
  })

  it('keeps commitments over a restart', async () => {
    await using cluster = new Cluster({ transport: 'tcp', clock, settings: QUICK })
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
    await until('three replicas again', () => fewest(publisher, cid) >= 3, WAIT)
    assert.equal((await again.status()).replication.counters.repairBytes, 0)
  })

  it('ends with unpin, everywhere', async () => {
    await using cluster = new Cluster({ transport: 'tcp', clock, settings: QUICK })
    const { publisher, all, cid } = await started(cluster, 3, 2)
    await publisher.unpin(cid)
    await until('nobody is committed any more', async () => {
      const committed = await Promise.all(all.slice(1).map(async node => (await node.status()).replication.committedBytes))
      return committed.every(bytes => bytes === 0)
    }, WAIT)
  })

  for (const [when, isHere] of [['was removed there', false], ['was removed there and loaded again', true]] as const) {
    it(`ends with unpin by who added it, also when the model ${when}`, async () => {
      await using cluster = new Cluster({ transport: 'tcp', clock, settings: QUICK })
      const { publisher, all, cid } = await started(cluster, 3, 2, { donates: false })
      assert.equal((await publisher.remove(cid)).replicas, 2)
      const others = all.slice(1)
      const committed = async (): Promise<number[]> => await Promise.all(others.map(async node => (await node.status()).replication.committedBytes))
      await until('the others keep it', async () => (await committed()).every(bytes => bytes > 14 * MiB))
      if (isHere) await publisher.load(cid)
      await publisher.unpin(cid)
      await until('nobody is committed any more', async () => (await committed()).every(bytes => bytes === 0))
      if (isHere) assert.equal((await publisher.remove(cid)).replicas, undefined)
      await assert.rejects(publisher.unpin(cid), { name: 'ModelNotFoundError' })
    })
  }

  it('hands everything over when it drains', async () => {
    await using cluster = new Cluster({ transport: 'tcp', clock, settings: QUICK })
    const { publisher, all, cid } = await started(cluster, 4, 2)
    const holder = all.slice(1).find(node => holders(publisher, cid).has(node.peerId))
    assert.ok(holder !== undefined)
    const result = await holder.drain({ signal: AbortSignal.timeout(45_000) })
    assert.equal(result.complete, true)
    const others = all.filter(node => node !== holder)
    await cluster.kill(holder)
    await until('the target is met without it', () => fewest(publisher, cid) >= 2, WAIT)
    assert.ok(others.some(node => node !== publisher && holders(publisher, cid).has(node.peerId)))
  })

  it('finds rot by the scrub, serves none of it, and heals it', async () => {
    await using cluster = new Cluster({ transport: 'tcp', clock, settings: { ...QUICK, replication: { ...QUICK.replication, scrubPeriodMs: 3_000 } } })
    const { publisher, all, cid } = await started(cluster, 3, 3)
    const holder = all[1]
    assert.ok(holder !== undefined)
    const directory = join(cluster.directory(holder), 'files')
    const [name = ''] = await readdir(directory)
    const file = await open(join(directory, name), 'r+')
    await file.write(Buffer.from([1, 2, 3, 4]), 0, 4, 100)
    await file.close()
    await until('the scrub found it', async () => (await holder.status()).replication.scrub.bad === 1, WAIT)
    await until('it is healed', async () => (await holder.show(cid)).complete, WAIT)
    assert.equal((await holder.verify()).bad.length, 0)
    await until('three replicas again', () => fewest(publisher, cid) >= 3, WAIT)
    assert.equal((await holder.status()).blocksLost, 1)
  })

  it('drains itself when its volume goes bad, takes nothing more, and is trusted again after a restart and a clean look', async () => {
    await using cluster = new Cluster({ transport: 'tcp', clock, settings: { ...QUICK, replication: { ...QUICK.replication, scrubPeriodMs: 2_000, scrubSuspectBlocks: 3 } } })
    const { publisher, all: [, holder], cid } = await started(cluster, 2, 2)
    assert.ok(holder !== undefined)
    assert.equal((await holder.status()).replication.scrub.suspectSince, undefined)
    const directory = cluster.directory(holder)
    let places = 0
    for (const name of await readdir(join(directory, 'files'))) {
      const file = await open(join(directory, 'files', name), 'r+')
      const { size } = await file.stat()
      for (let at = 100; at < size; at += 4 * MiB, places++) await file.write(Buffer.from([1, 2, 3, 4]), 0, 4, at)
      await file.close()
    }
    await until('the volume is suspect', async () => (await holder.status()).replication.scrub.suspectSince !== undefined, WAIT)
    await until('it drains', async () => (await holder.status()).replication.draining, WAIT)
    const { problems } = await holder.status()
    assert.match(problems[0] ?? '', /^the data volume is suspect/)
    // Others come when no rot is left that they would ban it for.
    await until('all rot is found', async () => (await holder.status()).blocksLost === places, WAIT)
    await cluster.spawn(2)
    await cluster.connect()
    await until('what it held is elsewhere', async () => (await holder.status()).replication.committedBytes === 0 && fewest(publisher, cid) >= 2, WAIT)
    assert.ok(!holders(publisher, cid).has(holder.peerId))
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'c.bin': 3 * MiB })
    const other = await publisher.add(source.path, { replicas: 3 })
    await publisher.replicated(other.cid, { signal: AbortSignal.timeout(45_000) })
    assert.ok(!holders(publisher, other.cid).has(holder.peerId), 'it took something more')
    await cluster.kill(holder)
    const [again] = await cluster.spawn(1, () => ({ dataDirectory: directory }))
    assert.ok(again !== undefined)
    await again.connect(publisher.multiaddrs()[0] ?? '')
    await until('it is trusted again', async () => {
      const { replication, problems } = await again.status()
      return replication.scrub.suspectSince === undefined && !replication.draining && !problems.some(problem => problem.includes('suspect'))
    }, WAIT)
  })

  it('lets only the publisher say how many, and changes it later', async () => {
    await using cluster = new Cluster({ transport: 'tcp', clock, settings: QUICK })
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
    await using cluster = new Cluster({ transport: 'tcp', clock, settings: { ...QUICK, storage: { donate: 0 } } })
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'a.bin': 5 * MiB, 'b.bin': 9 * MiB })
    const [publisher, giver] = await cluster.spawn(2, at => ({ settings: { storage: { donate: at === 1 ? 6 * MiB : 0 } } }))
    assert.ok(publisher !== undefined && giver !== undefined)
    await cluster.connect()
    const { cid } = await publisher.add(source.path, { replicas: 2 })
    await until('the small file is there', () => publisher.shards(cid)[0]?.replicas === 2, WAIT)
    const { replication, models, problems } = await giver.status()
    assert.equal(replication.committedBytes, 5 * MiB)
    assert.equal(models.bytes, 5 * MiB) // and nothing of the other file
    assert.deepEqual(problems.filter(problem => problem.includes('in part')), [])
    assert.equal(publisher.shards(cid)[1]?.replicas, 1)
  })

  it('says how long a repair takes: not before something came, then less and less, and about right', async () => {
    await using cluster = new Cluster({ transport: 'tcp', settings: { ...QUICK, storage: { donate: 256 * MiB }, transfer: { uploadBytesPerSecond: 8 * MiB } } })
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'a.bin': 16 * MiB, 'b.bin': 16 * MiB, 'c.bin': 16 * MiB })
    const [publisher, giver] = await cluster.spawn(2, at => ({ settings: at === 1 ? { replication: { ...QUICK.replication, pullsMax: 1 } } : {} }))
    assert.ok(publisher !== undefined && giver !== undefined)
    await cluster.connect()
    const { cid } = await publisher.add(source.path, { replicas: 2 })
    const said = { here: [] as Array<{ at: number, secondsLeft: number | undefined }>, elsewhere: [] as Array<{ at: number, secondsLeft: number | undefined }> }
    await until('it is repaired', async () => {
      for (const [node, list] of [[giver, said.here], [publisher, said.elsewhere]] as const) {
        const model = (await node.status()).replication.models.find(one => one.model === cid)
        if (model !== undefined && model.repairing > 0) list.push({ at: performance.now() / 1000, secondsLeft: model.secondsLeft })
      }
      return fewest(publisher, cid) === 2
    }, WAIT)
    const doneAt = performance.now() / 1000
    for (const [who, list] of Object.entries(said)) {
      const known = list.filter((one): one is { at: number, secondsLeft: number } => one.secondsLeft !== undefined)
      const text = `${who}: ${list.map(({ at, secondsLeft }) => `${(doneAt - at).toFixed(1)}=${secondsLeft?.toFixed(1)}`).join(' ')}`
      assert.equal(list[0]?.secondsLeft, undefined, text)
      assert.ok(known.length >= 8, text)
      const half = known.slice(known.length >> 1)
      for (const { at, secondsLeft } of half) assert.ok(Math.abs(secondsLeft - (doneAt - at)) < 1.5 + 0.5 * (doneAt - at), text)
      assert.ok((known.at(-1)?.secondsLeft ?? Infinity) < (known[0]?.secondsLeft ?? 0) / 2, text)
    }
    assert.equal((await publisher.status()).replication.models[0]?.secondsLeft, undefined, 'all is there')
  })

  it('uses no more than it gives for shards it was asked to keep, those let go included', async () => {
    await using cluster = new Cluster({ transport: 'tcp', clock, settings: { ...QUICK, storage: { donate: 0 } } })
    await using sources = await temporaryDirectory('source')
    await writeTree(sources.path, { 'one/a.bin': 5 * MiB, 'one/b.bin': 9 * MiB, 'two/c.bin': 8 * MiB })
    const donate = 16 * MiB
    const [publisher, giver] = await cluster.spawn(2, at => ({ settings: { storage: { donate: at === 1 ? donate : 0 } } }))
    assert.ok(publisher !== undefined && giver !== undefined)
    await cluster.connect()
    const one = await publisher.add(join(sources.path, 'one'), { replicas: 2 })
    await publisher.replicated(one.cid, { signal: AbortSignal.timeout(45_000) })
    await publisher.unpin(one.cid)
    await until('it is let go', async () => (await giver.status()).replication.committedBytes === 0, WAIT)
    assert.equal((await giver.status()).storage.heldBytes, 14 * MiB, 'it stays while there is room')
    let most = 0
    const two = await publisher.add(join(sources.path, 'two'), { replicas: 2 })
    await until('the other model has two replicas', async () => {
      most = Math.max(most, (await giver.status()).storage.heldBytes)
      return fewest(publisher, two.cid) === 2
    }, WAIT)
    assert.ok(most <= donate, `${most} bytes of ${donate}`)
    const { storage, replication } = await giver.status()
    assert.equal(replication.committedBytes, 8 * MiB)
    assert.ok(storage.heldBytes <= donate && storage.heldBytes >= 8 * MiB, `${storage.heldBytes}`)
    assert.deepEqual((await giver.verify()).bad, [])
  })

  it('does not count what a user loaded himself, and does not evict it for the swarm', async () => {
    await using cluster = new Cluster({ transport: 'tcp', clock, settings: { ...QUICK, storage: { donate: 0 } } })
    await using sources = await temporaryDirectory('source')
    await writeTree(sources.path, { 'one/a.bin': 5 * MiB, 'one/b.bin': 9 * MiB, 'two/c.bin': 8 * MiB })
    const [publisher, giver] = await cluster.spawn(2, at => ({ settings: { storage: { donate: at === 1 ? 16 * MiB : 0 } } }))
    assert.ok(publisher !== undefined && giver !== undefined)
    await cluster.connect()
    const one = await publisher.add(join(sources.path, 'one'), { replicas: 2 })
    await publisher.replicated(one.cid, { signal: AbortSignal.timeout(45_000) })
    const { path } = await giver.load(one.cid)
    await publisher.unpin(one.cid)
    await until('it is let go', async () => (await giver.status()).replication.committedBytes === 0, WAIT)
    const two = await publisher.add(join(sources.path, 'two'), { replicas: 2 })
    await publisher.replicated(two.cid, { signal: AbortSignal.timeout(45_000) })
    assert.equal((await giver.status()).storage.heldBytes, 22 * MiB)
    assert.ok(path !== undefined)
    assert.deepEqual(await hashTree(path), await hashTree(join(sources.path, 'one')))
  })

  it('shares what it fetches with a load of the same model', async () => {
    await using cluster = new Cluster({ transport: 'tcp', clock, settings: { ...QUICK, transfer: { uploadBytesPerSecond: 4 * MiB } } })
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
    await until('a pull runs', async () => (await giver.status()).replication.pulling > 0, WAIT)
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
