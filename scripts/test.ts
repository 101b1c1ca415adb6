/**
 * `npm test`: the checks side by side, then all tests. Two test files at a time are in front, because many of them wait
 * for timers and sockets, and three of those at a time would disturb each other's times. Two that do nothing but compute
 * or may take as long as they like run behind them at a lower priority, on what the ones in front leave of the cores.
 *
 * `npm test -- ARGUMENTS` gives mocha the arguments instead, after the checks.
 */
import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

interface Outcome { name: string, failed: boolean, output: string }

const root = fileURLToPath(new URL('..', import.meta.url))
const MOCHA = [process.execPath, 'node_modules/mocha/bin/mocha.js']
const ALONE = ['--no-config', '--exit', '--require', 'test/support/bulk.ts', '--extension', 'ts', '--timeout', '30000', ...(process.stdout.isTTY ? ['--color'] : [])]
/** Behind the others: test files, and nice values. The simulator's clock is its own; a kill may come when it likes. */
const BEHIND = [
  { path: 'test/e2e/kill.test.ts', nice: 10 },
  { path: 'test/sim/sim.test.ts', nice: 15 }
]

/** Runs to the end; what it says is kept unless it is `live`. */
async function run (name: string, [command = '', ...args]: readonly string[], live = false): Promise<Outcome> {
  const child = spawn(command, args, { cwd: root, stdio: ['ignore', live ? 'inherit' : 'pipe', live ? 'inherit' : 'pipe'] })
  process.once('exit', () => { child.kill() })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', (text: string) => { output += text })
  return await new Promise(resolve => {
    child.once('error', error => { resolve({ name, failed: true, output: `${output}${error.message}\n` }) })
    child.once('close', code => { resolve({ name, failed: code !== 0, output }) })
  })
}

async function check (): Promise<boolean> {
  const { scripts } = JSON.parse(await readFile(new URL('../package.json', import.meta.url), 'utf8')) as { scripts: Record<string, string> }
  const outcomes = await Promise.all(['check:types', 'check:lint', 'check:imports', 'prepare'].map(async name => await run(name, ['sh', '-c', scripts[name] ?? 'false'])))
  for (const { name, failed, output } of outcomes) if (failed) console.error(`${output}\n${name} failed\n`)
  return outcomes.every(({ failed }) => !failed)
}

async function test (): Promise<boolean> {
  const behind = BEHIND.map(async ({ path, nice }) => {
    const outcome = await run(path, ['nice', '-n', String(nice), ...MOCHA, ...ALONE, path])
    console.log(outcome.output)
    return outcome
  })
  const inFront = run('the others', [...MOCHA, ...BEHIND.flatMap(({ path }) => ['--ignore', path])], true)
  const failed = (await Promise.all([inFront, ...behind])).filter(outcome => outcome.failed).map(({ name }) => name)
  console.log(failed.length === 0 ? 'all tests passed' : `tests failed: ${failed.join(', ')}`)
  return failed.length === 0
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => { process.exit(130) })
const args = process.argv.slice(2)
const startedAt = performance.now()
let passed = await check()
if (passed) {
  console.log(`types, lint, import directions and build: ${((performance.now() - startedAt) / 1000).toFixed(1)} s`)
  passed = args.length > 0 ? !(await run('mocha', [...MOCHA, ...args], true)).failed : await test()
}
process.exitCode = passed ? 0 : 1
