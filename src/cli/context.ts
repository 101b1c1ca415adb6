import { once } from 'node:events'
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { ApiClient } from '../api/client.ts'
import { checkSocketPath, defaultDataDirectory, defaultSocketPath } from '../api/paths.ts'
import { AbortError, UsageError } from '../base/index.ts'
import { EXIT } from './exit-codes.ts'
import { shellWord } from './format.ts'
import { Progress } from './progress.ts'

const CHUNK_LENGTH = 64 * 1024

export interface GlobalOptions {
  data?: string
  api?: string
  json?: boolean
  quiet?: boolean
}

/** What every command gets: where things are, how to speak, and a signal that Ctrl-C aborts. */
export class Context {
  readonly json: boolean
  readonly quiet: boolean
  readonly dataDirectory: string
  readonly socketPath: string
  readonly #interrupted = new AbortController()
  readonly #start: string
  #client: ApiClient | undefined

  constructor (options: GlobalOptions) {
    this.json = options.json ?? false
    this.quiet = options.quiet ?? false
    for (const name of ['data', 'api'] as const) checkPathOption(`--${name}`, options[name])
    this.dataDirectory = options.data === undefined ? defaultDataDirectory() : resolve(options.data)
    this.socketPath = options.api === undefined ? defaultSocketPath(process.env, options.data === undefined ? undefined : this.dataDirectory) : resolve(options.api)
    checkSocketPath(this.socketPath)
    this.#start = ['shoal daemon', ...options.data === undefined ? [] : ['--data', shellWord(this.dataDirectory)], ...options.api === undefined ? [] : ['--api', shellWord(this.socketPath)]].join(' ')
  }

  get client (): ApiClient {
    return this.#client ??= new ApiClient({ socketPath: this.socketPath, start: this.#start })
  }

  get signal (): AbortSignal { return this.#interrupted.signal }

  /** From now on the first SIGINT or SIGTERM aborts `signal`, the second ends the process. */
  listenForInterrupts (): void {
    const onSignal = (): void => {
      if (this.#interrupted.signal.aborted) process.exit(EXIT.interrupted)
      this.#interrupted.abort(new AbortError('interrupted'))
    }
    process.on('SIGINT', onSignal)
    process.on('SIGTERM', onSignal)
  }

  /** The command's answer, on stdout: JSON, or what a person reads, if there is anything to read. */
  print (json: object, text: string | undefined): void {
    if (this.json) process.stdout.write(`${JSON.stringify(json)}\n`)
    else if (text !== undefined) process.stdout.write(`${text}\n`)
  }

  /** The same for what may be too much for one string: written as fast as it is read. */
  async printLines (json: object, lines: Iterable<string>): Promise<void> {
    if (this.json) {
      this.print(json, undefined)
      return
    }
    const chunk: string[] = []
    let length = 0
    const write = async (): Promise<void> => {
      const taken = process.stdout.write(chunk.join(''))
      chunk.length = length = 0
      if (!taken) await once(process.stdout, 'drain')
    }
    for (const line of lines) {
      chunk.push(line, '\n')
      length += line.length
      if (length >= CHUNK_LENGTH) await write()
    }
    if (chunk.length > 0) await write()
  }

  /** Beside the answer, on stderr. With --json nothing: the answer holds it. */
  note (text: string): void {
    if (!this.quiet && !this.json) process.stderr.write(`${text}\n`)
  }

  progress (label: string): Progress {
    return new Progress(label, { quiet: this.quiet, json: this.json })
  }
}

/** Wraps what a command does as a commander action; its result, if any, is the exit code. */
export function action<Args extends unknown[]> (work: (context: Context, ...args: Args) => Promise<number | void>): (this: Command, ...args: [...Args, object, Command]) => Promise<void> {
  return async function (...args) {
    const command = args[args.length - 1] as Command
    const context = new Context(command.optsWithGlobals<GlobalOptions>())
    const given = args.slice(0, -1)
    const code = await work(context, ...given as Args)
    if (typeof code === 'number') process.exitCode = code
  }
}

/** An empty path would be resolved to the current directory: an unset variable of a script is not to mean that. Throws UsageError. */
export function checkPathOption (option: string, path: string | undefined): void {
  if (path === '') throw new UsageError(`${option} is empty; give it a path, or leave it out`)
}

/** For options that may be repeated. */
export function collect (value: string, before: string[] | undefined): string[] {
  return [...before ?? [], value]
}
