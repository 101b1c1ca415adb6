import { setTimeout } from 'node:timers/promises'
import { DiskError, OutOfSpaceError, systemCode } from '../base/index.ts'
import { report } from './errors.ts'
import { EXIT } from './exit-codes.ts'
import { createProgram } from './program.ts'

const STDERR_PATIENCE_MS = 1_000

/** Runs the command line and ends the process with its exit code. */
export async function main (argv: string[]): Promise<void> {
  watchOutput(argv)
  try {
    const program = createProgram()
    await program.parseAsync(argv, { from: 'user' })
  } catch (error) {
    process.exitCode = report(error, { json: asksForJson(argv) })
  }
  // What is left open now (an answer nobody reads on) is no reason to stay; what was said must get out, though: a pipe
  // takes 64 KiB at a time.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(EXIT.interrupted))
  // Nobody has to read what is beside the answer.
  await Promise.all([flushed(process.stdout), Promise.race([flushed(process.stderr), setTimeout(STDERR_PATIENCE_MS)])])
  process.exit()
}

async function flushed (stream: NodeJS.WriteStream): Promise<void> {
  await new Promise<void>(resolve => { stream.write('', () => { resolve() }) })
}

/**
 * `shoal ls | head -1`: whoever reads has seen enough. An answer that a full disk did not take is lost, and no success.
 * Where only progress is cut off the work goes on.
 */
function watchOutput (argv: string[]): void {
  process.stdout.on('error', error => {
    const code = systemCode(error)
    if (code === 'EPIPE') process.exit(process.exitCode ?? EXIT.done)
    const lost = code === 'ENOSPC' || code === 'EDQUOT'
      ? new OutOfSpaceError('no space is left for the answer on stdout; free some, and run it again', { cause: error })
      : new DiskError(`cannot write the answer to stdout: ${error.message}`, { cause: error })
    process.exit(report(lost, { json: asksForJson(argv) }))
  })
  process.stderr.on('error', () => undefined)
}

/** Also when the arguments are too wrong to be parsed. */
function asksForJson (argv: string[]): boolean {
  const end = argv.indexOf('--')
  return (end < 0 ? argv : argv.slice(0, end)).includes('--json')
}
