import type { ErrorJson, ErrorKind } from '../base/index.ts'

/** Others script against these: they never change. */
export const EXIT = { done: 0, failed: 1, usage: 2, notFound: 3, verification: 4, noDaemon: 5, interrupted: 130 } as const

const BY_KIND: Record<ErrorKind, number> = {
  usage: EXIT.usage,
  'not-found': EXIT.notFound,
  verification: EXIT.verification,
  'no-daemon': EXIT.noDaemon,
  aborted: EXIT.interrupted,
  failed: EXIT.failed
}

export function exitCodeOf (error: Pick<ErrorJson, 'kind'>): number {
  return BY_KIND[error.kind]
}
