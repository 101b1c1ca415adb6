import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { at, bundleCli } from '../../scripts/lib/bundle.ts'

/** The launcher in a checkout, where the sources run as they are. */
export const CHECKOUT_BIN = at('src/cli/bin.js')
/** The launcher that users start: that of an installed package. */
export const BIN = await installed()

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

  constructor (args: string[], init: { env?: Record<string, string>, cwd?: string, node?: string, bin?: string } = {}) {
    const child = this.child = spawn(init.node ?? process.execPath, [init.bin ?? BIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: environment(init.env), cwd: init.cwd })
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

/** What `npm install` makes, of the sources as they are now; what it depends on is found in the checkout above it. */
async function installed (): Promise<string> {
  const directory = at('dist/bundle/node_modules/shoal')
  await bundleCli(join(directory, 'dist/program'))
  for (const path of ['package.json', 'src/cli/bin.js']) {
    const to = join(directory, path)
    await mkdir(dirname(to), { recursive: true })
    // Others may start it right now.
    await cp(at(path), `${to}.${process.pid}`)
    await rename(`${to}.${process.pid}`, to)
  }
  return join(directory, 'src/cli/bin.js')
}
