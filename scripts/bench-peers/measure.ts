import { execFileSync } from 'node:child_process'
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { GiB, asError } from '../../src/base/index.ts'
import { writeSyntheticModel } from '../lib/synthetic-model.ts'
import { Meter, type Usage } from './processes.ts'
import type { Contender, Loaded, Source, Swarm } from './contenders/types.ts'

export interface Run {
  contender: string
  /** What was asked for; `bytes` is what was moved. */
  size: number
  bytes: number
  seeders: number
  round: number
  /** From "go" to the last byte verified and synced. */
  seconds: number
  /** How many of them went into the sync that the bench added. */
  syncSeconds: number
  usage: Usage
  note: string
}

export interface Failure { contender: string, size: number, seeders: number, round: number, error: string }

/** The weights of a synthetic model: one file of about `bytes`, which stays the same for all. */
export async function makeSource (directory: string, bytes: number): Promise<Source> {
  await mkdir(directory, { recursive: true })
  const model = join(directory, 'model')
  await writeSyntheticModel(model, { bytes, seed: 1, shards: 1 })
  const path = join(directory, 'model.safetensors')
  await rename(join(model, 'model.safetensors'), path)
  await rm(model, { recursive: true })
  return { path, bytes: (await stat(path)).size, sha256: await sha256(path) }
}

/** What a program that is compiled as it runs may move before: a daemon has, long ago. After 256 MiB a third of it is still not compiled. */
export const WARM_UP_BYTES = 2 * GiB

/** One load, alone: sources warm, programs warm, everything older on disk, result checked outside the measured time. */
export async function measure ({ contender, swarm, source, directory, seeders }: { contender: Contender, swarm: Swarm, source: Source, directory: string, seeders: number }): Promise<Omit<Run, 'size' | 'round'>> {
  for (const path of swarm.sources) execFileSync('find', [path, '-type', 'f', '-exec', 'cat', '{}', '+'], { stdio: 'ignore' })
  await mkdir(directory)
  try {
    await using loader = await swarm.loader(directory, seeders)
    const meter = new Meter({ seeder: swarm.pids, loader: loader.pids })
    await loader.warmUp?.(WARM_UP_BYTES)
    execFileSync('sync', ['-f', directory])
    meter.start()
    const started = performance.now()
    const loaded = await loader.run()
    const done = performance.now()
    if (!contender.syncs) execFileSync('sync', [(await stat(loaded.path)).isDirectory() ? '-f' : '-d', loaded.path])
    const synced = performance.now()
    const usage = meter.stop()
    await (swarm.check ?? (async each => { await checkFile(each, source) }))(loaded)
    const syncSeconds = contender.syncs ? 0 : (synced - done) / 1000
    return {
      contender: contender.name,
      bytes: source.bytes,
      seeders,
      seconds: (loaded.seconds ?? (done - started) / 1000) + syncSeconds,
      syncSeconds,
      usage,
      note: loaded.note ?? ''
    }
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

async function checkFile ({ path }: Loaded, source: Source): Promise<void> {
  let file = path
  if ((await stat(path)).isDirectory()) {
    const names = await readdir(path)
    if (names.length !== 1) throw new Error(`${path} holds ${names.join(', ')}`)
    file = join(path, names[0] ?? '')
  }
  const digest = await sha256(file)
  if (digest !== source.sha256) throw new Error(`what was loaded is wrong: sha-256 ${digest}`)
}

async function sha256 (path: string): Promise<string> {
  return execFileSync('sha256sum', ['-b', path], { encoding: 'utf8' }).split(' ')[0] ?? ''
}

export function rate (run: Run): number { return run.bytes / GiB / run.seconds }
export function cpuPerGib (run: Run): number { return run.usage.cpuSeconds / (run.bytes / GiB) }

/** All contenders in turn, `rounds` times, at one size and number of seeders. */
export async function compare ({ chosen, sources, size, seeders, rounds, directory, log, runs, failures }: {
  chosen: readonly Contender[]
  /** By bytes. */
  sources: (bytes: number) => Promise<Source>
  size: number
  seeders: number
  rounds: number
  directory: string
  log: (line: string) => void
  /** Filled as it goes. */
  runs: Run[]
  failures: Failure[]
}): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const ready: Array<{ contender: Contender, swarm: Swarm, source: Source, place: string }> = []
  const fail = (contender: string, round: number, error: unknown): void => {
    failures.push({ contender, size, seeders, round, error: asError(error).message })
    log(`${contender}: FAILED, ${asError(error).message}`)
  }
  for (const contender of chosen) {
    if (seeders > contender.seedersMax) continue
    try {
      const source = await sources(Math.min(size, contender.bytesMax))
      const place = join(directory, contender.name.replaceAll(/[^A-Za-z0-9.]+/g, '-'))
      await mkdir(place)
      ready.push({ contender, source, place, swarm: stack.use(await contender.start(source, place, seeders)) })
    } catch (error) { fail(contender.name, 0, error) }
  }
  for (let round = 1; round <= rounds; round++) {
    for (const { contender, swarm, source, place } of ready) {
      try {
        const run: Run = { ...await measure({ contender, swarm, source, directory: join(place, 'load'), seeders }), size, round }
        runs.push(run)
        log(`round ${round}, ${contender.name}: ${rate(run).toFixed(3)} GiB/s (${run.seconds.toFixed(2)} s, sync ${run.syncSeconds.toFixed(2)} s), CPU ${cpuPerGib(run).toFixed(2)} s/GiB${run.note === '' ? '' : `, ${run.note}`}`)
      } catch (error) { fail(contender.name, round, error) }
    }
  }
}
