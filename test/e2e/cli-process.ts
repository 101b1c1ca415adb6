import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'

/** The launcher that users start. */
export const BIN = new URL('../../src/cli/bin.js', import.meta.url).pathname

export interface Finished { code: number | null, stdout: string, stderr: string }

/** The environment of a user who has set nothing; what a test sets comes on top. */
export function environment (extra: Record<string, string> = {}): Record<string, string> {
  const { PATH = '', HOME = '/tmp' } = process.env
  return { PATH, HOME, ...extra }
}

/** One run of the program, as a process of its own. */
export class CliProcess {
  readonly child: ChildProcess
  readonly finished: Promise<Finished>
  stdout = ''
  stderr = ''
  readonly #watchers = new Set<() => void>()

  constructor (args: string[], init: { env?: Record<string, string>, cwd?: string, node?: string } = {}) {
    const child = this.child = spawn(init.node ?? process.execPath, [BIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: environment(init.env), cwd: init.cwd })
    child.stdout?.setEncoding('utf8').on('data', (text: string) => { this.stdout += text; this.#changed() })
    child.stderr?.setEncoding('utf8').on('data', (text: string) => { this.stderr += text; this.#changed() })
    this.finished = once(child, 'close').then(([code]) => {
      this.#changed()
      return { code: code as number | null, stdout: this.stdout, stderr: this.stderr }
    })
  }

  get ended (): boolean { return this.child.exitCode !== null || this.child.signalCode !== null }

  /** Resolves when `holds`; rejects when the process ends before. */
  async until (holds: () => boolean): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const look = (): void => {
        if (holds()) resolve()
        else if (this.ended) reject(new Error(`ended early with ${this.child.exitCode ?? this.child.signalCode}: ${this.stdout}${this.stderr}`))
        else return
        this.#watchers.delete(look)
      }
      this.#watchers.add(look)
      look()
    })
  }

  signal (signal: NodeJS.Signals): void { this.child.kill(signal) }

  #changed (): void { for (const watcher of Array.from(this.#watchers)) watcher() }
}

export async function shoal (args: string[], init: ConstructorParameters<typeof CliProcess>[1] = {}): Promise<Finished> {
  return await new CliProcess(args, init).finished
}
