import { report } from './errors.ts'
import { EXIT } from './exit-codes.ts'
import { createProgram } from './program.ts'

/** Runs the command line and ends the process with its exit code. */
export async function main (argv: string[]): Promise<void> {
  surviveClosedPipes()
  try {
    const program = createProgram()
    await program.parseAsync(argv, { from: 'user' })
  } catch (error) {
    process.exitCode = report(error, { json: asksForJson(argv) })
  }
  // What is left open now (an answer nobody reads on) is no reason to stay; what was said must get out, though: a pipe
  // takes 64 KiB at a time.
  await Promise.all([process.stdout, process.stderr].map(flushed))
  process.exit()
}

async function flushed (stream: NodeJS.WriteStream): Promise<void> {
  await new Promise<void>(resolve => { stream.write('', () => { resolve() }) })
}

/** `shoal ls | head -1`: whoever reads has seen enough. Where only progress is cut off the work goes on. */
function surviveClosedPipes (): void {
  process.stdout.on('error', error => {
    if ('code' in error && error.code === 'EPIPE') process.exit(process.exitCode ?? EXIT.done)
    throw error
  })
  process.stderr.on('error', () => undefined)
}

/** Also when the arguments are too wrong to be parsed. */
function asksForJson (argv: string[]): boolean {
  const end = argv.indexOf('--')
  return (end < 0 ? argv : argv.slice(0, end)).includes('--json')
}
