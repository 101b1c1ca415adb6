/** What is logged: a level for all, and one of its own for parts of the program. */
export interface LogLevels {
  level: LogLevel
  components: ReadonlyMap<string, LogLevel>
}

export type LogLevel = typeof LEVELS[number]

const LEVELS = ['debug', 'info', 'warn', 'error'] as const

/** The parts that log under a name of their own; a test holds them equal to those of the program. */
export const LOG_COMPONENTS = ['api', 'exchange', 'hf', 'loads', 'network', 'node', 'origin', 'peers', 'replication', 'router', 'storage', 'systemd'] as const

/** What operators call a part, where its name in the log is another. */
export const LOG_NAMES: Readonly<Record<string, typeof LOG_COMPONENTS[number]>> = { transfer: 'exchange', discovery: 'router', announce: 'router', scrub: 'replication', load: 'loads' }

/** `info`, or `info,transfer=debug,network=error`: undefined when it is neither. */
export function parseLogLevels (text: string): LogLevels | undefined {
  const components = new Map<string, LogLevel>()
  let level: LogLevel | undefined
  for (const part of text.split(',').map(part => part.trim())) {
    const at = part.indexOf('=')
    const given = part.slice(at + 1).trim()
    if (!isLevel(given)) return undefined
    if (at < 0) {
      if (level !== undefined) return undefined
      level = given
      continue
    }
    const name = part.slice(0, at).trim()
    const component = Object.hasOwn(LOG_NAMES, name) ? LOG_NAMES[name] : name
    if (component === undefined || !LOG_COMPONENTS.some(known => known === component)) return undefined
    components.set(component, given)
  }
  return { level: level ?? 'info', components }
}

export const LOG_LEVELS_WRONG = `must be debug, info, warn or error, and may have levels for parts after it, such as info,transfer=debug; the parts are ${[...LOG_COMPONENTS, ...Object.keys(LOG_NAMES)].sort().join(', ')}`

function isLevel (text: string): text is LogLevel {
  return LEVELS.some(level => level === text)
}
