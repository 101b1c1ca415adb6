/**
 * The kinds of values a configuration key can have. Each takes what JSON gives and the text that flags and environment
 * give, so that a key means the same wherever it is set.
 */
import { multiaddr } from '@multiformats/multiaddr'
import { z } from 'zod'
import type { RateWindow } from '../node/index.ts'
import type { Bounds } from '../node/setting-bounds.ts'
import { upstreamUrl } from '../origin/upstream-url.ts'
import { LOG_LEVELS_WRONG, parseLogLevels, type LogLevels } from './log-levels.ts'
import { parseDuration, parseSize, showDuration, showSize } from './units.ts'

const scalar = z.union([z.number(), z.string()])

/** Bytes: a whole number, or text such as 500GiB, 1.5TiB, 80MB. */
function size (min: number, max = Number.MAX_SAFE_INTEGER): z.ZodType<number> {
  const bounds = max === Number.MAX_SAFE_INTEGER ? `${showSize(min)} or more` : `${showSize(min)} to ${showSize(max)}`
  return measured(parseSize, min, max, `must be a size such as 500GiB, ${bounds}`)
}

/** Milliseconds: a whole number, or text such as 250ms, 2s, 10m, 22h. */
function duration (minMs: number, maxMs: number): z.ZodType<number> {
  return measured(parseDuration, minMs, maxMs, `must be a duration such as 250ms, 2s or 10m, ${showDuration(minMs)} to ${showDuration(maxMs)}`)
}

export function whole (min: number, max: number): z.ZodType<number> {
  return measured(text => /^\d{1,15}$/.test(text) ? Number(text) : NaN, min, max, `must be a whole number, ${min} to ${max}`)
}

/** A setting of the node, in whichever way people write its kind. */
export function bounded ({ kind, min, max }: Bounds): z.ZodType<number> {
  return { bytes: size, milliseconds: duration, count: whole, share }[kind](min, max)
}

/** A part of the whole: 0.25, or text such as 25%. */
function share (min: number, max: number): z.ZodType<number> {
  return z.unknown().transform((given, context) => {
    const value = typeof given === 'number' ? given : typeof given === 'string' ? parseShare(given) : NaN
    if (value >= min && value <= max) return value
    context.addIssue({ code: 'custom', message: `must be a share such as 0.25 or 25%, ${min} to ${max}` })
    return z.NEVER
  })
}

function parseShare (text: string): number {
  const [, digits, percent] = /^\s*(\d{1,3}(?:\.\d{1,6})?)\s*(%?)\s*$/.exec(text) ?? []
  return digits === undefined ? NaN : percent === '%' ? Number(digits) / 100 : Number(digits)
}

function measured (parse: (text: string) => number, min: number, max: number, message: string): z.ZodType<number> {
  return z.unknown().transform((given, context) => {
    const value = scalar.safeParse(given)
    const number = value.success ? numberOf(value.data, parse) : NaN
    if (Number.isInteger(number) && number >= min && number <= max) return number
    context.addIssue({ code: 'custom', message })
    return z.NEVER
  })
}

function numberOf (value: number | string, parse: (text: string) => number): number {
  if (typeof value === 'number') return value
  try {
    return parse(value)
  } catch {
    return NaN // told with the bounds, by the caller
  }
}

const FLAGS: Record<string, boolean> = { true: true, yes: true, on: true, 1: true, false: false, no: false, off: false, 0: false }

export const flag: z.ZodType<boolean> = z.preprocess(given => FLAGS[String(given).toLowerCase()], z.boolean('must be true or false'))

export const text: z.ZodType<string> = z.string('must be text').min(1, 'must not be empty').max(4_096, 'must have 4,096 characters at most')

export interface HostPort { host: string, port: number }

/** Where to listen: `127.0.0.1:8765`, `[::1]:8765`; port 0 is any free one. */
export const hostPort: z.ZodType<HostPort> = z.unknown().transform((given, context) => {
  const [, bracketed, plain, digits = ''] = /^(?:\[([0-9a-f:.]{2,45})\]|([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)):(\d{1,5})$/i.exec(typeof given === 'string' ? given : '') ?? []
  const host = bracketed ?? plain
  if (host !== undefined && Number(digits) <= 65_535) return { host, port: Number(digits) }
  context.addIssue({ code: 'custom', message: 'must be a host and port such as 127.0.0.1:8765' })
  return z.NEVER
})

/** Where a Hub is: `https://huggingface.co`. Nothing that belongs to a user stands in it. */
export const upstream: z.ZodType<string> = z.unknown().transform((given, context) => {
  try {
    return upstreamUrl(String(given))
  } catch {
    // told with the others, below
  }
  context.addIssue({ code: 'custom', message: 'must be an address such as https://huggingface.co, without user or query' })
  return z.NEVER
})

/** `info`, or with levels of parts: `info,transfer=debug`. */
export const logLevels: z.ZodType<LogLevels> = z.unknown().transform((given, context) => {
  const levels = typeof given === 'string' ? parseLogLevels(given) : undefined
  if (levels !== undefined) return levels
  context.addIssue({ code: 'custom', message: LOG_LEVELS_WRONG })
  return z.NEVER
})

/** `null`, or the text "none", where a key may be unset. */
export function optional<T> (kind: z.ZodType<T>): z.ZodType<T | undefined> {
  return z.unknown().transform((given, context) => {
    if (given === null || given === 'none' || given === '') return undefined
    const checked = kind.safeParse(given)
    if (checked.success) return checked.data
    context.addIssue({ code: 'custom', message: `${checked.error.issues[0]?.message ?? 'is wrong'}, or none` })
    return z.NEVER
  })
}

/** A JSON array, or text with commas between. */
export function list (item: z.ZodType<string>, max: number): z.ZodType<string[]> {
  return z.preprocess(splitText, z.array(item, 'must be a list').max(max, `must have ${max} entries at most`))
}

/** Text such as 08:00-20:00=16MiB, several with commas between: bytes a second between two times of the day. */
export function rateWindows (min: number, max: number): z.ZodType<RateWindow[]> {
  const rate = size(min)
  const window = z.unknown().transform((given, context): RateWindow => {
    const [, fromHour, fromMinute, toHour, toMinute, bytes] = /^(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})=(.{1,32})$/.exec(String(given)) ?? []
    const from = minutes(fromHour, fromMinute)
    const to = minutes(toHour, toMinute)
    const bytesPerSecond = rate.safeParse(bytes)
    if (from <= 1440 && to <= 1440 && from !== to && bytesPerSecond.success) return { from, to, bytesPerSecond: bytesPerSecond.data }
    context.addIssue({ code: 'custom', message: `must be times and a rate such as 08:00-20:00=16MiB, ${showSize(min)} or more` })
    return z.NEVER
  })
  return z.preprocess(given => given === null || given === 'none' ? [] : splitText(given), z.array(window, 'must be a list').max(max, `must have ${max} entries at most`))
}

function minutes (hour: string | undefined, minute: string | undefined): number {
  return Number(minute) < 60 ? Number(hour) * 60 + Number(minute) : NaN
}

const ADDRESS = 'must be a multiaddr such as /ip4/0.0.0.0/tcp/4108'

export const address: z.ZodType<string> = z.string(ADDRESS).refine(isMultiaddr, ADDRESS)

function splitText (value: unknown): unknown {
  if (typeof value !== 'string') return value
  return value.split(/[,\s]+/).filter(part => part !== '')
}

export function isMultiaddr (text: string): boolean {
  try {
    return multiaddr(text).getComponents().length > 0
  } catch {
    return false
  }
}
