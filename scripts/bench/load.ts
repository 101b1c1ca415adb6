/**
 * Loads of one model by a process from 1 and from 3 other processes, beside one raw libp2p stream over the same stack
 * and beside Helia; rounds alternate, so that all see the same machine. Every load is verified (that is what a load is)
 * and synced.
 */
import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { GiB, MiB } from '../../src/base/index.ts'
import { NodeProcess } from '../lib/spawn-node.ts'
import { writeSyntheticModel } from '../lib/synthetic-model.ts'
import { median, residentBytes, spread, type Row } from './lib.ts'
import { rawStreamSeconds } from './raw-stream.ts'

const HELIA = new URL('./helia/', import.meta.url).pathname

export interface LoadBench { directory: string, bytes: number, heliaBytes: number, rounds: number, log: (line: string) => void }

export async function benchLoad ({ directory, bytes, heliaBytes, rounds, log }: LoadBench): Promise<Row[]> {
  const source = join(directory, 'model')
  await writeSyntheticModel(source, { bytes, seed: 1 })
  const swarmKeyHex = randomBytes(32).toString('hex')
  const settings = { listen: ['/ip4/127.0.0.1/tcp/0'] }
  const seeders: NodeProcess[] = []
  const one: number[] = []; const three: number[] = []; const plain: number[] = []; const tuned: number[] = []; const helia: number[] = []
  try {
    let cid = ''
    for (let i = 0; i < 3; i++) {
      const seeder = await NodeProcess.start({ dataDirectory: join(directory, `seeder-${i}`), swarmKeyHex, settings })
      seeders.push(seeder)
      // A copy, as by default; a file in place is also guarded and hashed at each read.
      cid = (await seeder.add(source)).cid
    }
    const gibPerSecond = async (count: number): Promise<number> => {
      const dataDirectory = join(directory, 'loader')
      const loader = await NodeProcess.start({ dataDirectory, swarmKeyHex, settings })
      for (const seeder of seeders.slice(0, count)) await loader.connect(seeder.multiaddrs[0] ?? '')
      const result = await loader.load(cid)
      await loader.stop()
      await rm(dataDirectory, { recursive: true })
      if (result.fetchedBytes !== result.bytes) throw new Error(`fetched ${result.fetchedBytes} of ${result.bytes} bytes`)
      return result.bytes / GiB / result.seconds
    }
    for (let round = 0; round < rounds; round++) {
      plain.push(bytes / GiB / await rawStreamSeconds(bytes, 'plain'))
      tuned.push(bytes / GiB / await rawStreamSeconds(bytes, 'tuned'))
      one.push(await gibPerSecond(1))
      three.push(await gibPerSecond(3))
      log(`load round ${round + 1}: raw ${plain.at(-1)?.toFixed(3)}, tuned ${tuned.at(-1)?.toFixed(3)}, 1 peer ${one.at(-1)?.toFixed(3)}, 3 peers ${three.at(-1)?.toFixed(3)} GiB/s`)
    }
  } finally {
    for (const seeder of seeders) await seeder.stop()
  }
  for (let round = 0; round < rounds; round++) {
    helia.push(heliaBytes / GiB / await heliaSeconds(directory, heliaBytes))
    log(`helia round ${round + 1}: ${helia.at(-1)?.toFixed(3)} GiB/s`)
  }
  const size = `${(bytes / GiB).toFixed(2)} GiB`
  const row = (what: string, figures: number[], beside: number[], besideName: string, floor: number): Row => {
    const ratio = median(figures) / median(beside)
    return { what, figure: `${spread(figures)} GiB/s`, beside: `${besideName} ${spread(beside, 3)} GiB/s`, ratio: ratio.toFixed(2), mustReach: String(floor), reached: ratio >= floor }
  }
  return [
    row(`load of ${size}, 1 peer`, one, plain, 'raw stream', 0.9),
    row(`load of ${size}, 3 peers`, three, plain, 'raw stream', 0.9),
    row(`load of ${size}, 1 peer`, one, tuned, 'raw stream, tuned', 0.9),
    row(`load of ${size}, 3 peers`, three, tuned, 'raw stream, tuned', 0.9),
    row(`load of ${size}, 1 peer`, one, helia, `Helia, ${heliaBytes / MiB} MiB`, 6)
  ]
}

async function heliaSeconds (directory: string, bytes: number): Promise<number> {
  if (!existsSync(join(HELIA, 'node_modules'))) execFileSync('npm', ['ci', '--prefix', HELIA], { stdio: 'ignore' })
  const file = join(directory, 'helia-source')
  await writeFile(file, randomBytes(bytes))
  const seed = spawn(process.execPath, [join(HELIA, 'peer.js'), 'seed', join(directory, 'helia-seed'), file], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    const { cid, multiaddr } = JSON.parse(await new Promise<string>((resolve, reject) => {
      seed.stdout.once('data', data => { resolve(String(data)) })
      seed.once('exit', () => { reject(new Error('the Helia seeder ended')) })
    })) as { cid: string, multiaddr: string }
    const printed = execFileSync(process.execPath, [join(HELIA, 'peer.js'), 'load', join(directory, 'helia-load'), cid, multiaddr], { encoding: 'utf8' })
    return (JSON.parse(printed) as { seconds: number }).seconds
  } finally {
    seed.kill()
    for (const name of ['helia-seed', 'helia-load', 'helia-source']) await rm(join(directory, name), { recursive: true, force: true })
  }
}

/** What a daemon settles to after its start, before it is called idle. */
const IDLE_AFTER_MS = 1_000

/** A model that a process loads before it is measured, and shares nothing with the others. */
const WARM_UP_BYTES = 1 * GiB

/**
 * Resident memory above idle while a model loads, by size: must be at most 200 MiB and must not grow with the size. A process just
 * started goes on compiling and filling its heap for the first seconds, in which a small model is done and a large one is not; so
 * growth is also measured of processes that have loaded another model before.
 */
export async function benchMemory (init: { directory: string, sizes: number[], rounds: number, log: (line: string) => void }): Promise<Row[]> {
  const fresh = init.sizes.map(() => ({ loader: [] as number[], seeder: [] as number[] }))
  const warm = init.sizes.map(() => [] as number[])
  for (const [at, bytes] of init.sizes.entries()) {
    const directory = join(init.directory, `memory-${bytes}`)
    await mkdir(directory, { recursive: true })
    await writeSyntheticModel(join(directory, 'model'), { bytes, seed: 2 })
    await writeSyntheticModel(join(directory, 'other'), { bytes: WARM_UP_BYTES, seed: 3 })
    for (let round = 0; round < init.rounds; round++) {
      const above = await memoryAboveIdle(directory, ['model'])
      const later = await memoryAboveIdle(directory, ['other', 'model'])
      fresh[at]?.loader.push(above.loader)
      fresh[at]?.seeder.push(above.seeder)
      warm[at]?.push(later.loader)
      init.log(`memory, ${bytes / GiB} GiB, round ${round + 1}: loader ${above.loader.toFixed(1)} MiB, seeder ${above.seeder.toFixed(1)} MiB above idle; loader that has loaded before ${later.loader.toFixed(1)} MiB`)
    }
    await rm(directory, { recursive: true })
  }
  const growth = (of: number[][]): number => median(of.at(-1) ?? []) - median(of[0] ?? [])
  const loaders = fresh.map(({ loader }) => loader)
  const sizes = init.sizes.map(bytes => `${bytes / GiB}`).join(' / ')
  const each = (figures: number[][]): string => figures.map(of => spread(of, 1)).join(' / ')
  return [
    { what: `memory above idle, loading ${sizes} GiB`, figure: `${each(loaders)} MiB`, beside: `seeder ${each(fresh.map(({ seeder }) => seeder))} MiB`, ratio: '', mustReach: '<= 200 MiB', reached: Math.max(...loaders.flat()) <= 200 },
    { what: 'its growth from the first size to the last', figure: `${growth(loaders).toFixed(1)} MiB`, beside: '', ratio: '', mustReach: 'none (<= 20 MiB of noise)', reached: growth(loaders) <= 20 },
    { what: `the same by processes that have loaded ${WARM_UP_BYTES / GiB} GiB before`, figure: `${each(warm)} MiB`, beside: '', ratio: '', mustReach: '<= 200 MiB', reached: Math.max(...warm.flat()) <= 200 },
    { what: 'its growth from the first size to the last', figure: `${growth(warm).toFixed(1)} MiB`, beside: '', ratio: '', mustReach: 'none (<= 5 MiB of noise)', reached: growth(warm) <= 5 }
  ]
}

/** MiB that a fresh seeder and a fresh loader of the last of these models hold at most while it loads, above what they held before they did anything. */
async function memoryAboveIdle (directory: string, models: string[]): Promise<{ loader: number, seeder: number }> {
  const swarmKeyHex = randomBytes(32).toString('hex')
  const settings = { listen: ['/ip4/127.0.0.1/tcp/0'] }
  const start = async (name: string): Promise<NodeProcess> => await NodeProcess.start({ dataDirectory: join(directory, name), swarmKeyHex, settings })
  const seeder = await start('seeder')
  const cids: string[] = []
  for (const model of models) cids.push((await seeder.add(join(directory, model), true)).cid)
  const loader = await start('loader')
  await loader.connect(seeder.multiaddrs[0] ?? '')
  await sleep(IDLE_AFTER_MS)
  const now = (): { loader: number, seeder: number } => ({ loader: residentBytes(loader.child.pid ?? 0), seeder: residentBytes(seeder.child.pid ?? 0) })
  const idle = now()
  for (const cid of cids.slice(0, -1)) await loader.load(cid)
  const peak = now()
  const sampler = setInterval(() => {
    const { loader, seeder } = now()
    peak.loader = Math.max(peak.loader, loader)
    peak.seeder = Math.max(peak.seeder, seeder)
  }, 50)
  await loader.load(cids.at(-1) ?? '')
  clearInterval(sampler)
  await loader.stop()
  await seeder.stop()
  for (const name of ['loader', 'seeder']) await rm(join(directory, name), { recursive: true })
  return { loader: (peak.loader - idle.loader) / MiB, seeder: (peak.seeder - idle.seeder) / MiB }
}
