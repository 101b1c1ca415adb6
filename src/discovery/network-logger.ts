import type { ComponentLogger, Logger as Libp2pLogger } from '@libp2p/interface'
import type { Logger } from '../base/index.ts'

const nothing = (): void => undefined

/**
 * What libp2p calls errors (a peer that went away, a dial that failed) is daily life in a swarm: it goes to our debug
 * level. Its other lines, several for each frame, go nowhere; with a logger that makes them they cost more than the frame.
 */
export function componentLogger (logger: Logger): ComponentLogger {
  return { forComponent: name => scoped(logger, name) }
}

function scoped (logger: Logger, name: string): Libp2pLogger {
  const log: Libp2pLogger = Object.assign(nothing.bind(undefined), {
    enabled: false,
    trace: nothing,
    error: (format: unknown, ...details: unknown[]): void => {
      logger.debug({ component: name, details: details.map(String) }, String(format))
    },
    // libp2p asks for a scope for each stream and connection; nobody would see its name.
    newScope: () => log
  })
  return log
}
