/**
 * `npm run bench`: every figure that is promised, measured now, beside what it is compared with in the same run.
 * `npm run bench -- add load` runs only those; `--quick` uses smaller sizes and fewer rounds (figures are then only a hint).
 */
import { execFileSync, spawn } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { GiB, MiB } from '../../src/base/index.ts'
import { writeSyntheticModel } from '../lib/synthetic-model.ts'
import { benchAdd } from './add.ts'
import { benchAnnounce } from './announce.ts'
import { benchControlTraffic } from './control-traffic.ts'
import { benchFanOut } from './fan-out.ts'
import { benchHf } from './hf.ts'
import { machine, median, print, quantile, type Row } from './lib.ts'
import { benchLoad, benchMemory } from './load.ts'
import { benchOrigin } from './origin.ts'
import { benchReplication } from './replication.ts'
import { benchSnapshot } from './snapshot.ts'

const { values, positionals } = parseArgs({ allowPositionals: true, options: { quick: { type: 'boolean', default: false }, rounds: { type: 'string' } } })
const quick = values.quick
const rounds = Number(values.rounds ?? (quick ? 1 : 5))
const root = await mkdtemp(join(tmpdir(), 'shoal-bench-'))
const log = (line: string): void => { console.error(`  ${line}`) }
const script = (name: string): string => new URL(name, import.meta.url).pathname

const benches: Record<string, (directory: string) => Promise<Row[]>> = {
  add: async directory => await benchAdd({ directory, bytes: quick ? GiB / 2 : 2 * GiB, rounds, log }),
  load: async directory => await benchLoad({ directory, bytes: quick ? GiB / 2 : 2 * GiB, heliaBytes: quick ? 64 * MiB : 256 * MiB, rounds, log }),
  memory: async directory => await benchMemory({ directory, sizes: quick ? [GiB / 2, GiB] : [2 * GiB, 8 * GiB], rounds, log }),
  announce: async () => {
    const runs = []
    for (let i = 0; i < rounds; i++) {
      runs.push(await benchAnnounce({ nodes: 20, blocks: quick ? 2_000 : 20_000, sample: quick ? 40 : 100 }))
      log(`announce round ${i + 1}: sweep ${runs.at(-1)?.sweepKeysPerSecond.toFixed(0)}, provide() ${runs.at(-1)?.provideKeysPerSecond.toFixed(1)} keys/s`)
    }
    const ratio = median(runs.map(run => run.ratio))
    return [{
      what: 'announcing 20,000 blocks, 20 nodes',
      figure: `${median(runs.map(run => run.sweepKeysPerSecond)).toFixed(0)} keys/s`,
      beside: `dht.provide() ${median(runs.map(run => run.provideKeysPerSecond)).toFixed(1)} keys/s`,
      ratio: ratio.toFixed(0),
      mustReach: '30',
      reached: ratio >= 30
    }]
  },
  open: async directory => {
    const source = join(directory, 'model')
    await writeSyntheticModel(source, { bytes: quick ? 64 * MiB : GiB, seed: 5 })
    const data = join(directory, 'node')
    const cli = (...args: string[]): string => execFileSync(process.execPath, [script('../../src/cli/bin.js'), '--data', data, '--json', ...args], { encoding: 'utf8' })
    const daemon = spawn(process.execPath, [script('../../src/cli/bin.js'), '--data', data, '--json', 'daemon', '--listen', '/ip4/127.0.0.1/tcp/0'], { stdio: ['ignore', 'pipe', 'ignore'] })
    try {
      await new Promise(resolve => daemon.stdout.once('data', resolve))
      const { cid } = JSON.parse(cli('add', source, '--quiet')) as { cid: string }
      const times = JSON.parse(execFileSync(process.execPath, [script('./loader-open.ts'), cid, join(data, 'api.sock'), '1000'], { encoding: 'utf8' })) as number[]
      const p99 = quantile(times, 0.99)
      return [{ what: 'opening a complete local model, p99 of 1,000', figure: `${p99.toFixed(1)} ms`, beside: `median ${median(times).toFixed(1)} ms`, ratio: '', mustReach: '<= 20 ms', reached: p99 <= 20 }]
    } finally {
      daemon.kill()
      await new Promise(resolve => daemon.once('exit', resolve))
    }
  },
  hf: async directory => await benchHf({ directory, bytes: quick ? GiB / 2 : 2 * GiB, rounds, log }),
  snapshot: async directory => await benchSnapshot({ directory, bytes: quick ? GiB / 4 : GiB, rounds, log }),
  origin: async directory => await benchOrigin({ directory, bytes: quick ? 128 * MiB : 256 * MiB, files: 16, hosts: 4, fileBytesPerSecond: 3 * MiB, rounds, log }),
  replication: async directory => await benchReplication({ directory, bytes: quick ? GiB / 2 : 2 * GiB, rounds, log }),
  control: async () => benchControlTraffic([20, 60, 150], log),
  fanout: async directory => await benchFanOut({ directory, bytes: quick ? 64 * MiB : 512 * MiB, linkBytesPerSecond: 16 * MiB, loaders: 8, rounds, log }),
  many: async directory => {
    const runs: Array<{ connectedSeconds: number, found: number, findSeconds: number, rssGiB: number }> = []
    for (let i = 0; i < Math.min(rounds, 5); i++) {
      runs.push(JSON.parse(execFileSync(process.execPath, [script('./many-nodes.ts'), directory, '100'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })) as typeof runs[0])
      log(`many round ${i + 1}: ${JSON.stringify(runs.at(-1))}`)
    }
    const seconds = median(runs.map(run => run.connectedSeconds))
    const found = Math.min(...runs.map(run => run.found))
    const rss = median(runs.map(run => run.rssGiB))
    return [
      { what: '100 nodes in one process: connected', figure: `${seconds.toFixed(1)} s`, beside: '', ratio: '', mustReach: '<= 60 s', reached: seconds <= 60 },
      { what: 'one add found by the other 99', figure: `${found}`, beside: '', ratio: '', mustReach: '99', reached: found === 99 },
      { what: 'resident memory', figure: `${rss.toFixed(2)} GiB`, beside: '', ratio: '', mustReach: '< 1.5 GB', reached: rss * GiB < 1.5e9 }
    ]
  }
}

const chosen = positionals.length === 0 ? Object.keys(benches) : positionals
console.error(machine())
const rows: Row[] = []
try {
  for (const name of chosen) {
    const bench = benches[name]
    if (bench === undefined) throw new Error(`no bench is called ${name}; there are: ${Object.keys(benches).join(', ')}`)
    console.error(`${name} (${rounds} rounds)`)
    const directory = join(root, name)
    await mkdir(directory)
    rows.push(...await bench(directory))
    await rm(directory, { recursive: true })
  }
} finally {
  for (const name of await readdir(root)) await rm(join(root, name), { recursive: true, force: true })
  await rm(root, { recursive: true, force: true })
}
console.log(`${machine()}; medians of ${rounds}, [least .. most]`)
print(rows)
if (rows.some(row => row.reached === false)) process.exitCode = 1
