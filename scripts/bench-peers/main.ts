/**
 * `npm run bench:peers`: the same file from seeders to a loader in processes of their own on this machine, by Shoal, by
 * what others use, and by a floor program, in turn. `--sizes 64MiB,2GiB,8GiB --seeders 1,3 --rounds 5 --only NAME,NAME
 * --parts peers,start,fan-out --json`. docs/benchmarks-peers.md says how each is set up.
 */
import { rmSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { totalmem, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { GiB, MiB, UsageError } from '../../src/base/index.ts'
import { parseSize } from '../../src/cli/units.ts'
import { machine } from '../bench/lib.ts'
import { contenders } from './contenders/index.ts'
import { benchFanOutOf16 } from './fan-out.ts'
import { compare, makeSource, type Failure, type Run } from './measure.ts'
import { benchStart, type StartTimes } from './model-start.ts'
import { printAll } from './report.ts'
import type { Source } from './contenders/types.ts'
import type { Row } from '../bench/lib.ts'

const PARTS = ['peers', 'start', 'fan-out']
const { values } = parseArgs({
  options: {
    sizes: { type: 'string', default: '64MiB,2GiB,8GiB' },
    seeders: { type: 'string', default: '1,3' },
    rounds: { type: 'string', default: '5' },
    only: { type: 'string' },
    parts: { type: 'string', default: PARTS.join(',') },
    directory: { type: 'string', default: tmpdir() },
    json: { type: 'boolean', default: false }
  }
})
const list = (text: string): string[] => text.split(',').map(each => each.trim()).filter(each => each !== '')
const sizes = list(values.sizes).map(parseSize)
const counts = list(values.seeders).map(Number)
const rounds = Number(values.rounds)
const parts = list(values.parts)
const only = values.only === undefined ? undefined : list(values.only).map(name => name.toLowerCase())
if (!Number.isInteger(rounds) || rounds < 1) throw new UsageError(`--rounds is a whole number from 1 on, not ${values.rounds}`)
if (counts.some(count => !Number.isInteger(count) || count < 1)) throw new UsageError(`--seeders are whole numbers from 1 on, not ${values.seeders}`)
const unknownPart = parts.find(part => !PARTS.includes(part))
if (unknownPart !== undefined) throw new UsageError(`no part is called ${unknownPart}; there are: ${PARTS.join(', ')}`)
const known = contenders.map(contender => contender.name)
const unknown = only?.find(name => !known.some(each => each.toLowerCase().includes(name)))
if (unknown !== undefined) throw new UsageError(`no contender is called ${unknown}; there are: ${known.join(', ')}`)

const chosen = contenders.filter(({ name }) => only === undefined || only.some(each => name.toLowerCase().includes(each)))
const absent = chosen.flatMap(({ name, absent: why }) => { const reason = why(); return reason === undefined ? [] : [{ name, reason }] })
const present = chosen.filter(({ name }) => !absent.some(each => each.name === name))
const log = (line: string): void => { console.error(`  ${line}`) }
console.error(machine())
for (const { name, reason } of absent) log(`absent: ${name}: ${reason}`)

const root = await mkdtemp(join(values.directory, 'shoal-bench-peers-'))
const runs: Run[] = []
const failures: Failure[] = []
const skipped: string[] = []
let start: StartTimes | undefined
let fanOut: Row[] = []
let finished = false
const results = (): object => ({ machine: machine(), rounds, finished, runs, failures, absent, skipped, start, fanOut })
process.on('exit', () => {
  // Interrupted: what was measured so far is still worth having.
  if (!finished && values.json) console.log(JSON.stringify(results()))
  rmSync(root, { recursive: true, force: true })
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => { process.exit(signal === 'SIGINT' ? 130 : 143) })
const made = new Map<number, Promise<Source>>()
const sources = async (bytes: number): Promise<Source> => {
  const source = made.get(bytes) ?? makeSource(join(root, `source-${bytes}`), bytes)
  made.set(bytes, source)
  return await source
}
try {
  if (parts.includes('peers')) {
    for (const size of sizes) {
      for (const seeders of counts) {
        const name = `${size >= GiB ? `${size / GiB} GiB` : `${size / MiB} MiB`}, ${seeders} seeder${seeders === 1 ? '' : 's'}`
        if (seeders > 1 && seeders * size > totalmem() / 3) {
          skipped.push(`${name}: so many copies would not stay in the page cache`)
          continue
        }
        console.error(name)
        const directory = join(root, `${size}-${seeders}`)
        await mkdir(directory)
        await compare({ chosen: present, sources, size, seeders, rounds, directory, log, runs, failures })
        await rm(directory, { recursive: true, force: true })
      }
      made.delete(size)
      await rm(join(root, `source-${size}`), { recursive: true, force: true })
    }
  }
  if (parts.includes('start')) start = await benchStart({ directory: join(root, 'start'), bytes: 64 * MiB, runs: 10, log })
  if (parts.includes('fan-out')) fanOut = await benchFanOutOf16({ directory: join(root, 'fan-out'), rounds: Math.min(rounds, 3), log })
} finally {
  await rm(root, { recursive: true, force: true })
}
finished = true
if (values.json) console.log(JSON.stringify(results()))
else printAll({ contenders: chosen, rounds, runs, failures, absent, skipped, start, fanOut })
if (failures.length > 0) process.exitCode = 1
