import { performance } from 'node:perf_hooks'
import { plants } from './planted.ts'
import { clock } from './trace.ts'
import { EXCUSES, type SimOptions, type SimResult } from './types.ts'
import { runSeed } from './world.ts'

/** Runs `seeds` seeds from the given one on, until one fails. The exit code. */
export function runMany (options: SimOptions, seeds: number, trace: boolean): number {
  const startedAt = performance.now()
  const results: SimResult[] = []
  for (let i = 0; i < seeds; i++) {
    const each = { ...options, seed: options.seed + i }
    const result = runSeed(each, trace)
    if (trace) console.log(result.trace.join('\n'))
    if (result.violation !== undefined) {
      progress('')
      explain(each, result)
      return 1
    }
    results.push({ ...result, trace: [] })
    if (i % 10 === 9) progress(`${i + 1} of ${seeds} seeds`)
  }
  progress('')
  summarize(results, (performance.now() - startedAt) / 1_000)
  return 0
}

function explain (options: SimOptions, result: SimResult): void {
  const { violation, seed } = result
  if (violation === undefined) return
  // The same again, this time with words: a seed replays to the byte.
  const again = runSeed(options, true)
  const same = again.hash === result.hash ? '' : '  (and it did not replay: its second run differs)'
  console.log(again.trace.join('\n'))
  console.log(`\nseed ${seed} fails after ${clock(violation.at)}: ${violation.invariant}${same}\n  ${violation.text}\n  faults: ${result.faults.join(', ')}`)
  const faults = options.faults === undefined ? '' : ` --faults ${options.faults.length === 0 ? 'none' : options.faults.join(',')}`
  console.log(`\nagain: npm run sim -- --seed ${seed} --nodes ${options.nodes} --hours ${options.hours}${faults}${options.plant === undefined ? '' : ` --plant ${options.plant}`}`)
}

function summarize (results: SimResult[], seconds: number): void {
  const sum = (of: (result: SimResult) => number): number => results.reduce((total, result) => total + of(result), 0)
  const hours = sum(result => result.stats.nodeHours)
  const GB = 1e9
  const needed = sum(result => result.stats.bytesNeeded)
  const wasted = sum(result => result.stats.bytesWasted)
  const surplus = sum(result => result.stats.surplus)
  const replicas = sum(result => result.stats.replicas)
  const rows: Array<[string, string]> = [
    ['seeds', String(results.length)],
    ['node-hours', hours.toFixed(0)],
    ['replicas made', String(sum(result => result.stats.repairs))],
    ['bytes needed', `${(needed / GB).toFixed(1)} GB`],
    ['moved for nothing', `${(wasted / GB).toFixed(1)} GB: ${(1 + wasted / Math.max(1, needed)).toFixed(3)} of the least possible`],
    // Where a node could not know better, see bytes.ts.
    ...EXCUSES.map((cause): [string, string] => [`excused: ${cause}`, `${(sum(result => result.stats.bytesExcused[cause]) / GB).toFixed(1)} GB`]),
    ['moved for spread', `${(sum(result => result.stats.bytesSpread) / GB).toFixed(1)} GB`],
    ['mended for its user', `${(sum(result => result.stats.bytesOwn) / GB).toFixed(1)} GB`],
    ['surplus at the end', `${surplus} of ${replicas} replicas, ${(100 * surplus / Math.max(1, replicas)).toFixed(2)} %`],
    ['messages', `${(sum(result => result.stats.messages) / hours).toFixed(0)} per node-hour`],
    ['times at rest', String(sum(result => result.stats.rests))],
    ['faults spared', String(sum(result => result.stats.spared))],
    ['seconds', seconds.toFixed(1)],
    ['node-hours a second', (hours / seconds).toFixed(0)]
  ]
  if (results.length === 1) rows.unshift(['seed', String(results[0]?.seed)], ['faults', results[0]?.faults.join(', ') ?? ''], ['hash', results[0]?.hash ?? ''])
  for (const [name, value] of rows) console.log(`${name.padEnd(20)} ${value}`)
}

/** Every planted bug, until a seed shows it. */
export function hunt (options: SimOptions, seeds: number): number {
  let missed = 0
  console.log(`${'planted bug'.padEnd(28)} ${'seed'.padStart(5)} ${'after'.padStart(6)}  invariant`)
  for (const plant of plants) {
    const caught = firstCatch({ ...options, plant: plant.name, faults: plant.faults, hours: plant.hours ?? options.hours }, seeds)
    progress('')
    if (caught === undefined) missed++
    console.log(`${plant.name.padEnd(28)} ${String(caught?.result.seed ?? '-').padStart(5)} ${String(caught?.tries ?? seeds).padStart(6)}  ${caught?.result.violation?.invariant ?? 'NOT SEEN'}`)
  }
  console.log(`\n${plants.length - missed} of ${plants.length} planted bugs are seen within ${seeds} seeds`)
  return missed === 0 ? 0 : 1
}

export function firstCatch (options: SimOptions, seeds: number): { result: SimResult, tries: number } | undefined {
  const shows = plants.find(plant => plant.name === options.plant)?.shows
  for (let i = 0; i < seeds; i++) {
    const result = runSeed({ ...options, seed: options.seed + i })
    const seen = result.violation !== undefined && (shows ?? result.violation.invariant) === result.violation.invariant
    // What fails without the bug too says nothing about it.
    if (seen && runSeed({ ...options, seed: options.seed + i, plant: undefined }).violation === undefined) return { result, tries: i + 1 }
    if (i % 10 === 9) progress(`${options.plant}: ${i + 1} seeds`)
  }
  return undefined
}

function progress (text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`)
}
