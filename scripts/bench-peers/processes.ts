import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { accessSync, constants, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { createInterface } from 'node:readline'
import { GiB, MiB, asError } from '../../src/base/index.ts'

/** A load that is silent for this long is broken, not slow. */
const LINE_TIMEOUT_MS = 300_000
const TICKS_PER_SECOND = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }))
const SAMPLE_MS = 25

/** Where a program is on the PATH, or undefined. */
export function which (name: string): string | undefined {
  // Debian keeps daemons in sbin, which is not on everybody's PATH.
  for (const directory of [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin']) {
    const path = join(directory, name)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch (error) {
      if (asError(error) instanceof TypeError) throw error
    }
  }
  return undefined
}

/** Killed when this process ends in a hurry: some of them do not notice that nobody is there any more. */
const alive = new Set<ChildProcess>()
process.on('exit', () => { for (const child of alive) child.kill('SIGKILL') })

/** A child process that is talked to in lines of text. */
export class LineProcess implements AsyncDisposable {
  readonly child: ChildProcess
  readonly #lines: string[] = []
  readonly #name: string
  readonly #exited: Promise<void>
  #wake: () => void = () => undefined
  #ended = false

  constructor (command: string, args: readonly string[], options: { env?: NodeJS.ProcessEnv, quiet?: boolean } = {}) {
    this.#name = command
    this.child = spawn(command, args, { stdio: ['pipe', 'pipe', options.quiet === true ? 'ignore' : 'inherit'], env: options.env ?? process.env })
    alive.add(this.child)
    this.child.stdin?.on('error', () => undefined) // it may be gone; its exit tells
    if (this.child.stdout !== null) {
      createInterface({ input: this.child.stdout }).on('line', line => {
        this.#lines.push(line)
        this.#wake()
      })
    }
    this.#exited = new Promise(resolve => {
      const end = (): void => { alive.delete(this.child); this.#ended = true; this.#wake(); resolve() }
      this.child.once('close', end)
      this.child.once('error', end)
    })
  }

  get pid (): number { return this.child.pid ?? 0 }

  /** The next line that `accept` takes; others are dropped. Throws when the process ends first or says nothing for five minutes. */
  async line (accept: (line: string) => boolean = () => true): Promise<string> {
    const signal = AbortSignal.timeout(LINE_TIMEOUT_MS)
    signal.addEventListener('abort', () => { this.#wake() }, { once: true })
    for (;;) {
      for (let line = this.#lines.shift(); line !== undefined; line = this.#lines.shift()) if (accept(line)) return line
      if (this.#ended) throw new Error(`${this.#name} ended before it answered`)
      if (signal.aborted) throw new Error(`${this.#name} did not answer within ${LINE_TIMEOUT_MS / 1000} s`)
      await new Promise<void>(resolve => { this.#wake = resolve })
    }
  }

  async json<T> (): Promise<T> { return JSON.parse(await this.line(line => line.startsWith('{'))) as T }

  say (line: string): void { this.child.stdin?.write(`${line}\n`) }

  async [Symbol.asyncDispose] (): Promise<void> {
    this.child.stdin?.end()
    this.child.kill('SIGTERM')
    const timer = setTimeout(() => { this.child.kill('SIGKILL') }, 5_000)
    await this.#exited
    clearTimeout(timer)
  }
}

/**
 * A program that ends by itself, under a shell that outlives it, so that what it used can still be read from /proc. It
 * starts with `run()`.
 */
export class OneShot implements AsyncDisposable {
  readonly #shell: LineProcess

  constructor (command: string, args: readonly string[], options: { env?: NodeJS.ProcessEnv, quiet?: boolean } = {}) {
    this.#shell = new LineProcess('/bin/sh', ['-c', 'read go; "$@" </dev/null; echo "exit $?"; read end', 'sh', command, ...args], options)
  }

  get pids (): number[] { return [this.#shell.pid] }

  /** What it printed, by line. Throws when it does not end well. */
  async run (): Promise<string[]> {
    const lines: string[] = []
    this.#shell.say('go')
    await this.#shell.line(line => { lines.push(line); return /^exit \d+$/.test(line) })
    const status = lines.pop()
    if (status !== 'exit 0') throw new Error(`a program ended with ${status}: ${lines.slice(-5).join(' | ')}`)
    return lines
  }

  async [Symbol.asyncDispose] (): Promise<void> { await this.#shell[Symbol.asyncDispose]() }
}

export interface Usage {
  /** User and system time of both sides, their ended children included. */
  cpuSeconds: number
  /** Peaks above idle. `rss` counts mapped file pages that are resident too, `anonymous` does not. */
  seeder: { rssMiB: number, anonymousMiB: number }
  loader: { rssMiB: number, anonymousMiB: number }
}

interface Memory { rss: number, anonymous: number }

/** Reads from /proc what the processes of both sides, with their descendants, use between `start` and `stop`. */
export class Meter {
  readonly #sides: { seeder: readonly number[], loader: readonly number[] }
  #cpu = 0
  #idle: Record<'seeder' | 'loader', Memory>
  #peak: Record<'seeder' | 'loader', Memory>
  #timer: NodeJS.Timeout | undefined

  constructor (sides: { seeder: readonly number[], loader: readonly number[] }) {
    this.#sides = sides
    this.#idle = { seeder: memoryOf(sides.seeder), loader: memoryOf(sides.loader) }
    this.#peak = { seeder: { ...this.#idle.seeder }, loader: { ...this.#idle.loader } }
  }

  start (): void {
    this.#cpu = this.#cpuSeconds()
    this.#timer = setInterval(() => { this.#sample() }, SAMPLE_MS)
  }

  stop (): Usage {
    clearInterval(this.#timer)
    this.#sample()
    const above = (side: 'seeder' | 'loader'): Usage['seeder'] => ({
      rssMiB: (this.#peak[side].rss - this.#idle[side].rss) / MiB,
      anonymousMiB: (this.#peak[side].anonymous - this.#idle[side].anonymous) / MiB
    })
    return { cpuSeconds: this.#cpuSeconds() - this.#cpu, seeder: above('seeder'), loader: above('loader') }
  }

  #sample (): void {
    for (const side of ['seeder', 'loader'] as const) {
      const { rss, anonymous } = memoryOf(this.#sides[side])
      this.#peak[side] = { rss: Math.max(this.#peak[side].rss, rss), anonymous: Math.max(this.#peak[side].anonymous, anonymous) }
    }
  }

  #cpuSeconds (): number {
    const ticks = [...this.#sides.seeder, ...this.#sides.loader].flatMap(withDescendants).map(pid => {
      // The fields after the name, which may hold anything: utime, stime, cutime, cstime are the 14th to 17th of all.
      const fields = readProc(`/proc/${pid}/stat`).split(') ').at(-1)?.split(' ') ?? []
      return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0)
    })
    return ticks.reduce((sum, each) => sum + each, 0) / TICKS_PER_SECOND
  }
}

function memoryOf (pids: readonly number[]): Memory {
  const sum = { rss: 0, anonymous: 0 }
  for (const pid of pids.flatMap(withDescendants)) {
    const status = readProc(`/proc/${pid}/status`)
    sum.rss += 1024 * Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0)
    sum.anonymous += 1024 * Number(/RssAnon:\s+(\d+)/.exec(status)?.[1] ?? 0)
  }
  return sum
}

function withDescendants (pid: number): number[] {
  const children = readProc(`/proc/${pid}/task/${pid}/children`).trim()
  return [pid, ...(children === '' ? [] : children.split(' ').flatMap(child => withDescendants(Number(child))))]
}

/** Empty when the process has just gone. */
function readProc (path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH') return ''
    throw error
  }
}

export function gibPerSecond (bytes: number, seconds: number): number { return bytes / GiB / seconds }
