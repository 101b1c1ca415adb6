/** What is shown with real processes: briefly in test/e2e, at full size in test/long. */
import assert from 'node:assert/strict'
import { open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { GiB, MiB, randomInt, shuffle, type Random } from '../../src/base/index.ts'
import type { PartialSettings } from '../../src/node/init.ts'
import { writeSyntheticModel } from '../../scripts/lib/synthetic-model.ts'
import { Swarm } from './swarm.ts'
import { until } from './until.ts'

export interface Size {
  nodes: number
  modelBytes: number
  rounds: number
  /** How long a repair may take. */
  patienceMs: number
  replication: NonNullable<PartialSettings['replication']>
  /** Default 1. What is waited for by constants passes faster. */
  clockTimes?: number
}

/** Waits that take minutes for good reasons in a data centre take seconds here; what decides is the same. */
export const QUICK: Size['replication'] = {
  suspectMs: 3_000,
  downMs: 4_000,
  graceLastCopyMs: 0,
  graceTwoCopiesMs: 1_000,
  graceDefaultMs: 5_000,
  settleMs: 2_000,
  rankDelayMs: 3_000,
  brakeWindowMs: 5_000,
  brakeMaxMs: 5_000
}

export const TARGET = 3
export const MAX = 5

export interface Placed { swarm: Swarm, cid: string }

/** A model at its target on `size.nodes` nodes. */
export async function placed (root: string, size: Size, swarm = new Swarm(root, settingsOf(size), { clockTimes: size.clockTimes ?? 1 })): Promise<Placed> {
  const source = join(root, 'source')
  await writeSyntheticModel(source, { bytes: size.modelBytes, seed: 5 })
  await swarm.startAll(size.nodes)
  const { cid } = await swarm.at(0).add(source, false, TARGET)
  await swarm.at(0).replicated(cid)
  return { swarm, cid }
}

export function settingsOf (size: Size): PartialSettings {
  return { storage: { donate: 4 * GiB }, replication: size.replication }
}

/** Two holders at once, then two more after repair, again and again; then everything verifies. */
export async function killRounds ({ swarm, cid }: Placed, size: Size, random: Random, log: (line: string) => void): Promise<void> {
  for (let round = 0; round < size.rounds; round++) {
    const killed: number[] = []
    for (const part of ['first', 'second']) {
      const victims = shuffle(random, await swarm.holders(cid, randomInt(random, (await swarm.replicas(cid)).length))).slice(0, 2)
      assert.equal(victims.length, 2)
      const dead = victims.map(number => swarm.at(number).peerId)
      await Promise.all(victims.map(async number => { await swarm.kill(number) }))
      killed.push(...victims)
      const start = performance.now()
      await swarm.untilMissed(cid, dead, size.patienceMs)
      await swarm.untilReplicated(cid, TARGET, size.patienceMs)
      log(`round ${round + 1}, ${part} two (${victims.join(', ')}): ${((performance.now() - start) / 1000).toFixed(1)} s to be back at target`)
    }
    for (const number of killed) await swarm.start(number)
    await swarm.untilReplicated(cid, TARGET, size.patienceMs)
  }
  assert.deepEqual(await swarm.verify(), [])
}

/** A node that stands still for a while is waited for; one that stands still for long is replaced, and welcome when it is back. */
export async function pauses ({ swarm, cid }: Placed, size: Size, briefMs: number): Promise<void> {
  const { clockTimes = 1 } = size
  const [holder] = (await swarm.holders(cid, 0)).filter(number => number !== 0)
  assert(holder !== undefined)
  const before = await swarm.repairBytes()
  swarm.at(holder).child.kill('SIGSTOP')
  await wait(briefMs)
  swarm.at(holder).child.kill('SIGCONT')
  await wait(3_000 / clockTimes)
  assert.equal(await swarm.repairBytes(), before, 'a short pause moved something')
  const paused = swarm.at(holder)
  paused.child.kill('SIGSTOP')
  swarm.nodes[holder] = undefined
  try {
    await swarm.untilMissed(cid, [paused.peerId], size.patienceMs)
    await swarm.untilReplicated(cid, TARGET, size.patienceMs)
  } finally {
    paused.child.kill('SIGCONT')
    swarm.nodes[holder] = paused
  }
  await wait(5_000 / clockTimes)
  const copies = await swarm.copies(cid)
  assert(copies.every(count => count >= TARGET && count <= MAX), `copies after its return: ${copies.join(' ')}`)
}

/** How long a node's process takes to start on this machine, with what else runs. */
export async function secondsToStart (root: string, size: Size): Promise<number> {
  await using swarm = new Swarm(root, settingsOf(size))
  const start = performance.now()
  await swarm.startAll(1)
  return (performance.now() - start) / 1_000
}

/** Each node is stopped in order and started again while others load: nothing is moved, no load fails. */
export async function rollingRestart ({ swarm, cid }: Placed, size: Size): Promise<void> {
  const loader = await swarm.start(size.nodes)
  let loads = 0
  let rolling = true
  const loading = (async () => {
    while (rolling) {
      await loader.load(cid)
      loads++
      await loader.remove(cid)
    }
  })()
  loading.catch(() => undefined) // awaited below
  let moved = 0
  for (let number = 0; number < size.nodes; number++) {
    moved += (await swarm.at(number).status()).replication.counters.repairBytes
    await swarm.stop(number)
    await swarm.start(number)
  }
  rolling = false
  await loading
  await swarm.untilReplicated(cid, TARGET, size.patienceMs)
  assert(loads > 0)
  return await assertNothingMoved(swarm, moved)
}

/** The counters start anew with each process: what the former ones moved before their stop was for the first placement. */
async function assertNothingMoved (swarm: Swarm, placedBytes: number): Promise<void> {
  assert(placedBytes > 0)
  assert.equal(await swarm.repairBytes(), 0, 'a rolling restart moved something')
}

/** Where the nodes of `joins` are: the publisher and two more in one zone, who go first because they share a rack; and the one that comes in another. */
export const JOIN_LABELS = [['a', 'a1', 'a1'], ['a', 'a2', 'a2'], ['a', 'a2', 'a3'], ['b', 'b1', 'b1']].map(([zone = '', rack = '', host = '']) => ({ zone, rack, host }))

/** A node joins in a zone that no holder is in: each shard gets a copy there, and only then one of the others goes. */
export async function joins ({ swarm, cid }: Placed, size: Size): Promise<void> {
  const before = await swarm.copies(cid)
  assert(before.length > 1 && before.every(count => count === TARGET), `copies before: ${before.join(' ')}`)
  const movedBefore = await swarm.repairBytes()
  const fewest: number[] = [...before]
  const most: number[] = [...before]
  const newcomer = await swarm.start(3)
  let now: number[] = []
  await until('each shard has moved one copy to the new zone', async () => {
    // The newcomer is asked last: who lets go does so after it has taken, so this never counts too few.
    now = await swarm.copies(cid)
    for (const [shard, count] of now.entries()) {
      fewest[shard] = Math.min(fewest[shard] ?? count, count)
      most[shard] = Math.max(most[shard] ?? count, count)
    }
    const there = (await newcomer.shards(cid).catch(() => [])).filter(({ holders }) => holders.some(({ peerId, state }) => peerId === newcomer.peerId && state === 'proven'))
    return there.length === before.length && now.every(count => count === TARGET)
  }, { withinMs: size.patienceMs, everyMs: 200, detail: () => `; copies ${now.join(' ')}` })
  assert(fewest.every(count => count >= TARGET), `fewest copies of each shard meanwhile: ${fewest.join(' ')}`)
  assert(most.some(count => count > TARGET), 'copies were made before others went')
  await swarm.untilReplicated(cid, TARGET, size.patienceMs)
  const moved = await swarm.repairBytes() - movedBefore
  assert(moved > 0.9 * size.modelBytes && moved <= size.modelBytes, `${moved} bytes were moved, for one copy of ${size.modelBytes}`)
  assert.deepEqual(await swarm.verify(), [])
}

/** The ledger of a holder is gone when it starts again: what it holds is promised anew, and nothing is moved. */
export async function losesLedger ({ swarm, cid }: Placed, size: Size, root: string, holder: number): Promise<void> {
  const before = await swarm.copies(cid)
  const moved = await swarm.repairBytes() - (await swarm.at(holder).status()).replication.counters.repairBytes
  await swarm.stop(holder)
  for (const suffix of ['', '-wal', '-shm']) await rm(join(root, `node-${holder}`, `replication.sqlite${suffix}`), { force: true })
  await swarm.start(holder)
  let now: number[] = []
  await until('all is promised again', async () => {
    now = await swarm.copies(cid)
    return now.join() === before.join()
  }, { withinMs: size.patienceMs, everyMs: 200, detail: () => `; copies ${now.join(' ')}` })
  await swarm.untilReplicated(cid, TARGET, size.patienceMs)
  assert.equal(await swarm.repairBytes(), moved, 'a lost ledger moved something')
}

/** Bytes flipped, zeroed, cut off or deleted in held files while loads run: all found by one scrub, all healed, none served. */
export async function rot ({ swarm, cid }: Placed, size: Size, root: string, random: Random, places: number): Promise<void> {
  const victims = (await swarm.holders(cid, 0)).filter(number => number !== 0)
  const [victim] = victims
  assert(victim !== undefined)
  const directory = join(root, `node-${victim}`, 'files')
  const loader = await swarm.start(size.nodes + 1)
  let loading = true
  const loads = (async () => {
    while (loading) {
      await loader.load(cid)
      assert.deepEqual((await loader.verify()).bad, [], 'rot was served')
      await loader.remove(cid)
    }
  })()
  loads.catch(() => undefined) // awaited below
  const names = await readdir(directory)
  for (let place = 0; place < places; place++) {
    await using file = await open(join(directory, names[randomInt(random, names.length)] ?? ''), 'r+')
    const { size: bytes } = await file.stat()
    const at = Math.floor(random.next() * bytes)
    const kind = randomInt(random, 10)
    if (kind === 0) await file.truncate(at)
    else if (kind === 1) await file.write(Buffer.alloc(Math.min(4096, bytes - at)), 0, undefined, at)
    else await file.write(Buffer.from(random.bytes(1)), 0, 1, at)
  }
  await until('all rot is found and healed', async () => {
    const status = await swarm.at(victim).status()
    return status.blocksLost > 0 && status.replication.pulling === 0 && (await swarm.at(victim).verify()).bad.length === 0
  }, { withinMs: size.patienceMs, everyMs: 200 })
  loading = false
  await loads
  await swarm.untilReplicated(cid, TARGET, size.patienceMs)
  assert.deepEqual(await swarm.verify(), [])
}

export { MiB }
