import { styleText } from 'node:util'
import { pino, type DestinationStream, type Logger as PinoLogger } from 'pino'
import type { Logger } from '../base/index.ts'
import type { DaemonSettings } from './config.ts'
import { printable } from './format.ts'
import type { LogLevels } from './log-levels.ts'

type Style = Parameters<typeof styleText>[0]

const LEVELS: Record<number, { name: string, style: Style }> = {
  20: { name: 'debug', style: 'gray' },
  30: { name: 'info', style: 'green' },
  40: { name: 'warn', style: 'yellow' },
  50: { name: 'error', style: 'red' }
}

/**
 * The daemon's log on stderr: a line a person can read on a terminal, JSON for machines otherwise. Written synchronously, so
 * that the last line before a crash is there; a log that nobody reads any more (EPIPE) stops no daemon.
 */
export function createLogger (settings: DaemonSettings['log'], options: { json: boolean }): Logger {
  const pretty = !options.json && (settings.format === 'pretty' || (settings.format === 'auto' && process.stderr.isTTY === true))
  const stream: DestinationStream = { write: line => { process.stderr.write(pretty ? prettyLine(line) : line) } }
  const { level: levels } = settings
  const root = pino({ level: levels.level, base: undefined, timestamp: pretty ? pino.stdTimeFunctions.epochTime : pino.stdTimeFunctions.isoTime }, stream)
  return withLevels(root, levels)
}

/** A part of the program logs from its own level on; what has none of its own, from the common one. */
function withLevels (logger: PinoLogger, levels: LogLevels): Logger {
  const tell = (level: 'debug' | 'info' | 'warn' | 'error') => (details: object, message: string): void => { logger[level](details, message) }
  return {
    debug: tell('debug'),
    info: tell('info'),
    warn: tell('warn'),
    error: tell('error'),
    child: bindings => withLevels(logger.child(bindings, { level: levels.components.get(bindings.component) ?? levels.level }), levels)
  }
}

function prettyLine (line: string): string {
  const { level, time, msg, component, ...details } = JSON.parse(line) as { level: number, time: number, msg?: string, component?: string } & Record<string, unknown>
  const { name, style } = LEVELS[level] ?? { name: String(level), style: 'red' as const }
  const at = new Date(time).toTimeString().slice(0, 8)
  const rest = Object.entries(details).map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`).join(' ')
  const paint = (text: string, with_: Style): string => styleText(with_, text, { stream: process.stderr })
  return `${paint(at, 'gray')} ${paint(name.padEnd(5), style)} ${component === undefined ? '' : `${component}: `}${printable(msg ?? '')}${rest === '' ? '' : ` ${paint(printable(rest), 'gray')}`}\n`
}
