/**
 * Repair between real processes: how soon it starts, how fast it is beside a load of the same model in the same run, and
 * what a load feels of it.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { GiB, MiB } from '../../src/base/index.ts'
import { NodeProcess } from '../lib/spawn-node.ts'
import { writeSyntheticModel } from '../lib/synthetic-model.ts'
import { median, spread, type Row } from './lib.ts'

export interface ReplicationBench { directory: string, bytes: number, rounds: number, log: (line: string) => void }

export async function benchReplication ({ directory, bytes, rounds, log }: ReplicationBench): Promise<Row[]> {
  const source = join(directory, 'model')
  const small = join(directory, 'small')
  await writeSyntheticModel(source, { bytes, seed: 7 })
  await writeSyntheticModel(small, { bytes: 64 * MiB, seed: 8 })
  const starts: number[] = []; const repairs: number[] = []; const loads: number[] = []; const disturbed: number[] = []
  for (let round = 0; round < rounds; round++) {
    const where = join(directory, `round-${round}`)
    await mkdir(where)
    starts.push(await secondsToStart(where, small))
    const { load, repair, both } = await besideLoads(where, source)
    loads.push(load)
    repairs.push(repair)
    disturbed.push(both)
    await rm(where, { recursive: true })
    log(`replication round ${round + 1}: repair starts ${starts.at(-1)?.toFixed(1)} s after the death; load ${load.toFixed(2)} s, repair ${repair.toFixed(2)} s, load beside repair ${both.toFixed(2)} s`)
  }
  const start = median(starts)
  const throughput = median(loads.map((load, i) => load / (repairs[i] ?? NaN)))
  const felt = median(disturbed.map((both, i) => both / (loads[i] ?? NaN)))
  const rate = (seconds: number[]): string => `${spread(seconds.map(one => bytes / GiB / one))} GiB/s`
  return [
    { what: 'death of one of two holders to start of repair', figure: `${spread(starts, 1)} s`, beside: '', ratio: '', mustReach: '<= 30 s', reached: start <= 30 },
    { what: `repair of ${(bytes / GiB).toFixed(1)} GiB, nothing else running`, figure: rate(repairs), beside: `load ${rate(loads)}`, ratio: throughput.toFixed(2), mustReach: '0.8', reached: throughput >= 0.8 },
    { what: 'a load while a repair runs', figure: `${spread(disturbed, 1)} s`, beside: `alone ${spread(loads, 1)} s`, ratio: felt.toFixed(2), mustReach: '<= 1.2', reached: felt <= 1.2 }
  ]
}

/** With default settings: 20 s until a silent peer is down, and no grace for a last copy. */
async function secondsToStart (directory: string, source: string): Promise<number> {
  const swarmKeyHex = randomBytes(32).toString('hex')
  const start = async (name: string): Promise<NodeProcess> => await NodeProcess.start({
    dataDirectory: join(directory, name), swarmKeyHex, settings: { listen: ['/ip4/127.0.0.1/tcp/0'], storage: { donate: 4 * GiB } }
  })
  const [publisher, holder] = [await start('publisher'), await start('holder')]
  const spare = await start('spare')
  try {
    await holder.connect(publisher.multiaddrs[0] ?? '')
    const { cid } = await publisher.add(source, false, 2)
    await publisher.replicated(cid)
    await spare.connect(publisher.multiaddrs[0] ?? '')
    const before = (await spare.status()).replication.committedBytes
    await holder.kill()
    const at = performance.now()
    for (;;) {
      const { pulling, committedBytes } = (await spare.status()).replication
      if (pulling > 0 || committedBytes > before) return (performance.now() - at) / 1000
      await wait(50)
    }
  } finally {
    await publisher.stop()
    await spare.stop()
  }
}

/** A load by one node, a repair to another, and both at once, each from the same publisher. */
async function besideLoads (directory: string, source: string): Promise<{ load: number, repair: number, both: number }> {
  const swarmKeyHex = randomBytes(32).toString('hex')
  const settings = { listen: ['/ip4/127.0.0.1/tcp/0'] }
  const publisher = await NodeProcess.start({ dataDirectory: join(directory, 'source'), swarmKeyHex, settings })
  const loader = await NodeProcess.start({ dataDirectory: join(directory, 'loader'), swarmKeyHex, settings })
  const donor = await NodeProcess.start({ dataDirectory: join(directory, 'donor'), swarmKeyHex, settings: { ...settings, storage: { donate: 8 * GiB } } })
  try {
    await loader.connect(publisher.multiaddrs[0] ?? '')
    await donor.connect(publisher.multiaddrs[0] ?? '')
    const { cid } = await publisher.add(source, false, 0)
    const load = async (): Promise<number> => {
      const { seconds } = await loader.load(cid)
      await loader.remove(cid)
      return seconds
    }
    const forget = async (): Promise<void> => {
      await publisher.unpin(cid)
      await until(async () => (await donor.status()).replication.committedBytes === 0)
      await donor.remove(cid)
    }
    // What is compared must not be the first of its process, which compiles while it runs: a third slower, load or repair.
    await load()
    await repaired(publisher, donor, cid)
    await forget()
    const repair = await repaired(publisher, donor, cid)
    await forget()
    const alone = await load()
    await publisher.pin(cid, 2)
    await until(async () => (await donor.status()).replication.pulling > 0)
    const both = await load()
    return { load: alone, repair, both }
  } finally {
    for (const node of [loader, donor, publisher]) await node.kill()
  }
}

/** From the first shard on its way to the last one promised. */
async function repaired (publisher: NodeProcess, donor: NodeProcess, cid: string): Promise<number> {
  await publisher.pin(cid, 2)
  await until(async () => (await donor.status()).replication.pulling > 0)
  const at = performance.now()
  const total = (await publisher.status()).models.bytes
  await until(async () => (await donor.status()).replication.committedBytes >= total)
  return (performance.now() - at) / 1000
}

async function until (is: () => Promise<boolean>): Promise<void> {
  while (!await is()) await wait(20)
}
