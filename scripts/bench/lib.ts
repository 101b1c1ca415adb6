import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import Table from 'cli-table3'

/** What every bench returns: one row of the table. */
export interface Row {
  what: string
  /** The figure, with its unit. */
  figure: string
  beside: string
  ratio: string
  mustReach: string
  /** Undefined where nothing is promised. */
  reached: boolean | undefined
}

export function median (values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const high = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? high : (high + (sorted[middle - 1] ?? Number.NaN)) / 2
}

export function quantile (values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN
}

/** `1.23 [1.10 .. 1.40]`: the median, and how far the runs were apart. */
export function spread (values: readonly number[], digits = 2): string {
  return `${median(values).toFixed(digits)} [${Math.min(...values).toFixed(digits)} .. ${Math.max(...values).toFixed(digits)}]`
}

export function machine (): string {
  const model = cpus()[0]?.model ?? 'unknown processor'
  const commit = quiet(() => execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim())
  const kernel = quiet(() => readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim())
  return `${cpus().length} x ${model}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${kernel}, Node ${process.version}, commit ${commit}`
}

export function print (rows: readonly Row[]): void {
  const table = new Table({ head: ['what', 'figure', 'beside (same run)', 'ratio', 'must reach', ''], style: { head: [], border: [] } })
  for (const row of rows) table.push([row.what, row.figure, row.beside, row.ratio, row.mustReach, row.reached === undefined ? '' : row.reached ? 'yes' : 'NO'])
  console.log(table.toString())
}

/** Resident bytes of a process, from /proc. */
export function residentBytes (pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? Number.NaN) * 1024
}

function quiet (read: () => string): string {
  try { return read() } catch { return 'unknown' }
}
