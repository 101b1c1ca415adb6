/** What rooms log through; pino's child loggers fit, and tests pass a collecting one. Message last, as pino has it. */
export interface Logger {
  debug: (details: object, message: string) => void
  info: (details: object, message: string) => void
  warn: (details: object, message: string) => void
  error: (details: object, message: string) => void
  child: (bindings: { component: string }) => Logger
}

export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLogger
}
