/**
 * A small model in a warm swarm, as its user waits for it: `shoal get` from the start of the process to files in place,
 * and the loader library from `open()` to the path, in a process that already runs.
 */
import { execFileSync, spawn } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { writeSyntheticModel } from '../lib/synthetic-model.ts'

const SHOAL = new URL('../../src/cli/bin.js', import.meta.url).pathname
const OPEN = new URL('./loader-process.ts', import.meta.url).pathname

/** Seconds of each run. */
export interface StartTimes { bytes: number, get: number[], loader: number[] }

export async function benchStart ({ directory, bytes, runs, log }: { directory: string, bytes: number, runs: number, log: (line: string) => void }): Promise<StartTimes> {
  await mkdir(directory, { recursive: true })
  const source = join(directory, 'model')
  await writeSyntheticModel(source, { bytes, seed: 6 })
  await using stack = new AsyncDisposableStack()
  const shoal = (name: string, ...args: string[]): string => execFileSync(process.execPath, [SHOAL, '--data', join(directory, name), '--json', '--quiet', ...args], { encoding: 'utf8' })
  const daemon = async (name: string, ...args: string[]): Promise<void> => {
    const child = spawn(process.execPath, [SHOAL, '--data', join(directory, name), '--json', 'daemon', '--listen', '/ip4/127.0.0.1/tcp/0', ...args], { stdio: ['ignore', 'pipe', 'ignore'] })
    const exited = new Promise(resolve => child.once('exit', resolve))
    stack.defer(async () => { child.kill(); await exited })
    await new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stdout }).once('line', () => { resolve() })
      child.once('exit', code => { reject(new Error(`a daemon ended with ${code}`)) })
    })
  }
  await daemon('seeder')
  const { invite } = JSON.parse(shoal('seeder', 'invite')) as { invite: string }
  await daemon('loader', '--join', invite)
  const { cid } = JSON.parse(shoal('seeder', 'add', source)) as { cid: string }
  const times: StartTimes = { bytes, get: [], loader: [] }
  const expected = digests(source)
  const check = (path: string): void => { if (digests(path) !== expected) throw new Error(`what was loaded to ${path} is wrong`) }
  for (let run = 0; run < runs + 1; run++) {
    const started = performance.now()
    const { path } = JSON.parse(shoal('loader', 'get', cid)) as { path: string }
    const get = (performance.now() - started) / 1000
    check(path)
    shoal('loader', 'rm', cid)
    const opened = JSON.parse(execFileSync(process.execPath, [OPEN, cid, join(directory, 'loader', 'api.sock')], { encoding: 'utf8' })) as { seconds: number, path: string }
    check(opened.path)
    shoal('loader', 'rm', cid)
    // The first finds and dials: the swarm is warm from then on.
    if (run === 0) continue
    times.get.push(get)
    times.loader.push(opened.seconds)
    log(`start ${run}: shoal get ${get.toFixed(3)} s, loader ${opened.seconds.toFixed(3)} s`)
  }
  return times
}

/** sha-256 of every file, by name. */
function digests (directory: string): string {
  return execFileSync('sh', ['-c', 'cd "$0" && find . -type f | sort | xargs sha256sum', directory], { encoding: 'utf8' })
}
