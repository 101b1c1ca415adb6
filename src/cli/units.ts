import { GiB, KiB, MiB, REPLICAS_MAX, UsageError } from '../base/index.ts'

const TiB = 1024 * GiB
const SIZE_UNITS: Record<string, number> = {
  '': 1, B: 1, KiB, MiB, GiB, TiB, K: KiB, M: MiB, G: GiB, T: TiB, kB: 1e3, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12
}
const DURATION_UNITS: Record<string, number> = { '': 1, ms: 1, s: 1e3, m: 60e3, min: 60e3, h: 3_600e3, d: 86_400e3 }

/** Bytes of text such as 500GiB, 1.5TiB, 80MB, 4096. Throws UsageError. */
export function parseSize (text: string): number {
  const bytes = measure(text, SIZE_UNITS)
  if (bytes === undefined || !Number.isSafeInteger(Math.round(bytes))) throw new UsageError(`${JSON.stringify(text)} is no size; write it like 500GiB, 80MB or 4096`)
  return Math.round(bytes)
}

/** Milliseconds of text such as 250ms, 2s, 10m, 22h, 7d; without a unit they are milliseconds. Throws UsageError. */
export function parseDuration (text: string): number {
  const ms = measure(text, DURATION_UNITS)
  if (ms === undefined) throw new UsageError(`${JSON.stringify(text)} is no duration; write it like 250ms, 2s, 10m, 22h or 7d`)
  return Math.round(ms)
}

/** What `--replicas` was given, if it was. Throws UsageError. */
export function parseReplicas (text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const replicas = /^\d{1,3}$/.test(text) ? Number(text) : NaN
  if (replicas >= 0 && replicas <= REPLICAS_MAX) return replicas
  throw new UsageError(`--replicas is a whole number, 0 to ${REPLICAS_MAX}, not ${JSON.stringify(text)}`)
}

function measure (text: string, units: Record<string, number>): number | undefined {
  const [, digits, unit] = /^\s*(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)\s*$/.exec(text) ?? []
  if (digits === undefined || unit === undefined || !Object.hasOwn(units, unit)) return undefined
  return Number(digits) * (units[unit] ?? 1)
}

/** A bound as people write it: 4MiB, not 4194304. */
export function showSize (bytes: number): string {
  return show(bytes, [['TiB', TiB], ['GiB', GiB], ['MiB', MiB], ['KiB', KiB]], '')
}

export function showDuration (ms: number): string {
  return show(ms, [['d', 86_400e3], ['h', 3_600e3], ['m', 60e3], ['s', 1e3]], 'ms')
}

function show (value: number, units: Array<[string, number]>, none: string): string {
  const unit = units.find(([, length]) => value >= length && value % length === 0)
  return unit === undefined ? `${value}${none}` : `${value / unit[1]}${unit[0]}`
}
