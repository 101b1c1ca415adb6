import { CommanderError } from 'commander'
import { ConfigError, ShoalError, asError, systemCode, type ErrorJson } from '../base/index.ts'
import { EXIT, exitCodeOf } from './exit-codes.ts'
import { printable } from './format.ts'

/** Tells an error on stderr, in words or as JSON, and says with which code to exit. */
export function report (error: unknown, options: { json: boolean }): number {
  // Help and version come as errors, told already.
  if (error instanceof CommanderError && error.exitCode === 0) return EXIT.done
  const told = errorJson(error)
  if (options.json) {
    process.stderr.write(`${JSON.stringify({ error: told })}\n`)
  } else {
    process.stderr.write(`shoal: ${printable(told.message)}\n`)
    if (!(error instanceof ShoalError) && !(error instanceof CommanderError)) process.stderr.write(`${asError(error).stack ?? ''}\n`)
  }
  return mayPass(error) ? EXIT.failed : exitCodeOf(told)
}

/** An address that is taken, or not there yet as at boot. */
const ADDRESS_CODES = /\b(?:EADDRINUSE|EADDRNOTAVAIL|EAI_AGAIN)\b/

/** Wrong configuration only until somebody else lets go of the address: a service manager is to try again. libp2p has the code in its message alone. */
function mayPass (error: unknown): boolean {
  const cause = error instanceof ConfigError ? error.cause : undefined
  return cause instanceof Error && ADDRESS_CODES.test(systemCode(cause) ?? (cause.name === 'UnsupportedListenAddressesError' ? cause.message : ''))
}

function errorJson (error: unknown): ErrorJson {
  if (error instanceof ShoalError) return error.toJSON()
  if (error instanceof CommanderError) {
    const message = error.code === 'commander.help' ? 'a command is needed; see: shoal --help' : error.message.replace(/^error: /, '')
    return { name: 'UsageError', message, kind: 'usage', retryable: false, fault: 'caller' }
  }
  return { name: 'InternalError', message: `this should not have happened: ${asError(error).message}`, kind: 'failed', retryable: false, fault: 'node' }
}
