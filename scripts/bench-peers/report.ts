import Table from 'cli-table3'
import { GiB, MiB } from '../../src/base/index.ts'
import { machine, median, print, spread, type Row } from '../bench/lib.ts'
import { cpuPerGib, rate, type Failure, type Run } from './measure.ts'
import type { Contender } from './contenders/types.ts'
import type { StartTimes } from './model-start.ts'

export interface Results {
  contenders: readonly Contender[]
  rounds: number
  runs: readonly Run[]
  failures: readonly Failure[]
  absent: ReadonlyArray<{ name: string, reason: string }>
  skipped: readonly string[]
  start: StartTimes | undefined
  fanOut: readonly Row[]
}

/** What is promised is promised for this size. */
const PROMISED_BYTES = 2 * GiB
const RSS_MAX_MIB = 100
/** Growth from one size to the next below this is the noise of a heap. */
const FLAT_MIB = 20
const LANE = 'Shoal (lane)'
const STREAM = 'Shoal (stream)'

export function printAll (results: Results): void {
  const { rounds, failures, absent, skipped, start, fanOut } = results
  console.log(`${machine()}; medians of ${rounds}, [least .. most]`)
  if (results.runs.length > 0) {
    printRuns(results)
    const rows = promises(results)
    if (rows.length > 0) print(rows)
  }
  const rows = [...(start === undefined ? [] : startRows(start)), ...fanOut]
  if (rows.length > 0) print(rows)
  for (const { name, reason } of absent) console.log(`absent: ${name}: ${reason}`)
  for (const reason of skipped) console.log(`left out: ${reason}`)
  for (const { contender, seeders, round, error } of failures) console.log(`FAILED: ${contender}, ${seeders} seeders, round ${round}: ${error}`)
}

function size (bytes: number): string {
  return bytes >= GiB ? `${+(bytes / GiB).toFixed(2)} GiB` : `${+(bytes / MiB).toFixed(1)} MiB`
}

function printRuns ({ contenders, runs }: Results): void {
  const table = new Table({ head: ['size', 'seeders', 'contender', 'GiB/s', 'of floor', 'TLS or like', 'synced by', 'CPU s/GiB', 'MiB above idle: seeders', 'loader'], style: { head: [], border: [] } })
  for (const [asked, seeders] of groupsOf(runs)) {
    const floor = select(runs, { contender: 'floor', size: asked, seeders: 1 })
    for (const { name, encrypted, syncs } of contenders) {
      const own = select(runs, { contender: name, size: asked, seeders })
      if (own.length === 0) continue
      const [first] = own
      const notes = [...new Set(own.map(run => run.note).filter(note => note !== ''))]
      table.push([
        size(first?.bytes ?? asked), String(seeders), notes.length === 0 ? name : `${name}: ${notes.join('; ')}`, spread(own.map(rate), 3),
        floor.length === 0 ? '' : (median(own.map(rate)) / median(floor.map(rate))).toFixed(2),
        encrypted ? 'yes' : 'no', syncs ? 'itself' : `bench, ${median(own.map(run => run.syncSeconds)).toFixed(2)} s`, median(own.map(cpuPerGib)).toFixed(2), memory(own, 'seeder'), memory(own, 'loader')
      ])
    }
  }
  console.log(table.toString())
}

/** Where mapped files make up much of it, what is left without them stands in brackets. */
function memory (runs: readonly Run[], side: 'seeder' | 'loader'): string {
  const rss = median(runs.map(run => run.usage[side].rssMiB))
  const anonymous = median(runs.map(run => run.usage[side].anonymousMiB))
  return rss - anonymous > 32 ? `${rss.toFixed(0)} (${anonymous.toFixed(0)})` : rss.toFixed(0)
}

function groupsOf (runs: readonly Run[]): Array<[number, number]> {
  return [...new Map(runs.map(run => [`${run.size} ${run.seeders}`, [run.size, run.seeders] as [number, number]])).values()]
}

function select (runs: readonly Run[], wanted: { contender: string, size: number, seeders: number }): Run[] {
  return runs.filter(run => run.contender === wanted.contender && run.size === wanted.size && run.seeders === wanted.seeders)
}

/** The list of what must be reached, as far as its parts were run. */
function promises ({ contenders, runs }: Results): Row[] {
  const at = (contender: string, seeders = 1): Run[] => select(runs, { contender, size: PROMISED_BYTES, seeders })
  const own = at(LANE)
  if (own.length === 0) return []
  const figure = (some: readonly Run[]): string => `${spread(some.map(rate), 3)} GiB/s`
  const against = (name: string, beside: readonly Run[], least: number): Row[] => {
    if (beside.length === 0) return []
    const ratio = median(own.map(rate)) / median(beside.map(rate))
    return [{ what: `${LANE}, ${size(PROMISED_BYTES)}`, figure: figure(own), beside: `${name} ${figure(beside)}`, ratio: ratio.toFixed(2), mustReach: String(least), reached: ratio >= least }]
  }
  const rivals = contenders.filter(({ name, rival }) => rival && at(name).length > 0).map(({ name }) => name)
  const best = rivals.toSorted((a, b) => median(at(b).map(rate)) - median(at(a).map(rate)))[0]
  const rows = [
    ...against('floor', at('floor'), 0.85),
    ...(best === undefined ? [] : against(`best of others: ${best}`, at(best), 2)),
    ...against('Helia', at('Helia'), 25),
    ...against(STREAM, at(STREAM), 2.5)
  ]
  const three = at(LANE, 3)
  if (three.length > 0) {
    const ratio = median(three.map(rate)) / median(own.map(rate))
    rows.push({ what: '3 seeders', figure: figure(three), beside: `1 seeder ${figure(own)}`, ratio: ratio.toFixed(2), mustReach: '0.8', reached: ratio >= 0.8 })
  }
  if (at('floor').length > 0) {
    const ratio = median(own.map(cpuPerGib)) / median(at('floor').map(cpuPerGib))
    rows.push({ what: 'CPU seconds a GiB, both sides', figure: spread(own.map(cpuPerGib)), beside: `floor ${spread(at('floor').map(cpuPerGib))}`, ratio: ratio.toFixed(2), mustReach: '<= 1.2', reached: ratio <= 1.2 })
  }
  rows.push(...memoryRows(runs))
  return rows
}

function memoryRows (runs: readonly Run[]): Row[] {
  const large = groupsOf(runs).filter(([bytes, seeders]) => bytes >= PROMISED_BYTES && seeders === 1).map(([bytes]) => bytes)
  return (['seeder', 'loader'] as const).map(side => {
    const peaks = large.map(bytes => median(select(runs, { contender: LANE, size: bytes, seeders: 1 }).map(run => run.usage[side].rssMiB)))
    const growth = (peaks.at(-1) ?? Number.NaN) - (peaks[0] ?? Number.NaN)
    return {
      what: `RSS above idle, ${side}, ${large.map(size).join(' and ')}`,
      figure: `${peaks.map(peak => peak.toFixed(0)).join(' and ')} MiB`,
      beside: '',
      ratio: '',
      mustReach: large.length > 1 ? `<= ${RSS_MAX_MIB} MiB, flat` : `<= ${RSS_MAX_MIB} MiB`,
      reached: peaks.every(peak => peak <= RSS_MAX_MIB) && growth <= FLAT_MIB
    }
  })
}

function startRows ({ bytes, get, loader }: StartTimes): Row[] {
  const row = (what: string, seconds: number[], most: number): Row => ({ what: `${size(bytes)} model, ${what}, warm swarm, ${seconds.length} runs`, figure: `${spread(seconds, 3)} s`, beside: '', ratio: '', mustReach: `<= ${most} s`, reached: median(seconds) <= most })
  return [row('`shoal get` started to files in place', get, 0.6), row('through the loader', loader, 0.2)]
}
