import { mkdir, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { ORIGIN_INSTALMENTS_MAX, asError, ifThere, throwIfAborted, type Clock, type Logger } from '../base/index.ts'
import { checkDescription } from './check-description.ts'
import type { AddInstalment, Describe, OriginComponents } from './components.ts'
import type { InstalmentBook } from './instalment-book.ts'
import type { KnownModel } from './known-model.ts'
import { bytesOf } from './upstream-model.ts'

export interface InstalmentsComponents extends Pick<OriginComponents, 'held' | 'hold'> {
  clock: Clock
  logger: Logger
  book: InstalmentBook
  addInstalment: AddInstalment
  describe: Describe
}

export interface InstalmentsInit {
  known: KnownModel
  /** Where files stand that are whole, and where those of one instalment go to be published; on one volume. */
  files: string
  staging: string
  signal: AbortSignal
}

/** One for each such part of the model. */
const SHARES = 48
/** And some before: configuration and tokenizer are small, and waited for first. */
const EARLY = 14
const EARLY_MS = 1_000

/** Whether the files that came since the last instalment make one. `bytes` and `waitedMs` are theirs, and the oldest one's. Pure. */
export function isDue ({ count, bytes, waitedMs, bytesTotal }: { count: number, bytes: number, waitedMs: number, bytesTotal: number }): boolean {
  if (count >= ORIGIN_INSTALMENTS_MAX - 1) return false // the last one is for the rest
  return bytes * SHARES >= bytesTotal || (count < EARLY && waitedMs >= EARLY_MS)
}

/**
 * Publishes the files of a model as they come from the upstream, each some of them, so that others load the first ones while the last are
 * still on their way, and cutting them into blocks takes no time of its own at the end.
 */
export class Instalments {
  readonly #components: InstalmentsComponents
  readonly #init: InstalmentsInit
  readonly #sizes: ReadonlyMap<string, number>
  readonly #bytesTotal: number
  /** Whole, and in none yet. */
  readonly #waiting = new Set<string>()
  readonly #paths = new Set<string>()
  readonly #cids: string[] = []
  readonly #letGo: Array<() => void> = []
  #waitingSince = 0
  #waitingBytes = 0
  #bytesBefore = 0
  #bytesNow = 0
  #ending = false
  #wake: () => void = () => undefined

  constructor (components: InstalmentsComponents, init: InstalmentsInit) {
    this.#components = components
    this.#init = init
    this.#sizes = new Map(init.known.model.files.map(({ path, size }) => [path, size]))
    this.#bytesTotal = bytesOf(init.known.model)
  }

  /** In the order they were published. */
  get cids (): readonly string[] { return this.#cids }
  /** Files that are in one. */
  get paths (): ReadonlySet<string> { return this.#paths }
  /** Cut into blocks so far. */
  get bytesDone (): number { return this.#bytesBefore + this.#bytesNow }

  /** Those that an earlier fetch has published and that are here still; and what it had begun to publish goes back to the rest. */
  async resume (): Promise<void> {
    const { book, held, hold, describe, logger } = this.#components
    const { known, files, staging, signal } = this.#init
    for (const path of this.#sizes.keys()) {
      if (await ifThere(stat(join(staging, path))) === undefined) continue
      await mkdir(dirname(join(files, path)), { recursive: true, mode: 0o700 })
      await rename(join(staging, path), join(files, path))
    }
    for (const cid of book.own(known.key)) {
      if (this.#cids.length >= ORIGIN_INSTALMENTS_MAX - 1) break
      const letGo = hold(cid)
      try {
        if (held(cid) !== 'whole') throw new Error('parts of it are gone')
        const { files } = await describe(cid, { signal })
        checkDescription(known, { cid, files }, 'this disk', 'some')
        this.#published(cid, files.map(({ path }) => path), letGo)
      } catch (error) {
        letGo()
        throwIfAborted(signal)
        logger.info({ cid, error: asError(error).message }, 'what was published of a model that is on its way is not gone on with')
      }
    }
  }

  /** The file is whole, stands under its path in `files`, and its hash was compared. */
  arrived (path: string): void {
    if (this.#waiting.size === 0) this.#waitingSince = this.#components.clock.monotonic()
    if (!this.#waiting.has(path)) this.#waitingBytes += this.#sizes.get(path) ?? 0
    this.#waiting.add(path)
    this.#wake()
  }

  /** Publishes what comes, until end() was called and all is published. Throws what publishing throws, UpstreamMismatchError, and the signal's reason. */
  async run (): Promise<void> {
    for (;;) {
      const paths = await this.#next()
      if (paths.length > 0) await this.#publish(paths)
      else if (this.#ending) return
    }
  }

  /** Everything is in `files` now. */
  end (): void {
    this.#ending = true
    this.#wake()
  }

  /** From now on they may be evicted. */
  release (): void {
    for (const letGo of this.#letGo.splice(0)) letGo()
  }

  async #next (): Promise<string[]> {
    const { clock } = this.#components
    for (;;) {
      throwIfAborted(this.#init.signal)
      if (this.#ending) return [...this.#sizes.keys()].filter(path => !this.#paths.has(path))
      const waitedMs = this.#waiting.size === 0 ? 0 : clock.monotonic() - this.#waitingSince
      if (this.#waiting.size > 0 && isDue({ count: this.#cids.length, bytes: this.#waitingBytes, waitedMs, bytesTotal: this.#bytesTotal })) return [...this.#waiting]
      await this.#change(waitedMs < EARLY_MS && this.#waiting.size > 0 ? EARLY_MS - waitedMs : undefined)
    }
  }

  async #change (timeoutMs: number | undefined): Promise<void> {
    const { signal } = this.#init
    await new Promise<void>(resolve => {
      let cancel = (): void => undefined
      const wake = this.#wake = () => {
        this.#wake = () => undefined
        cancel()
        signal.removeEventListener('abort', wake)
        resolve()
      }
      if (timeoutMs !== undefined) cancel = this.#components.clock.setTimeout(wake, timeoutMs)
      signal.addEventListener('abort', wake, { once: true })
    })
  }

  async #publish (paths: readonly string[]): Promise<void> {
    const { addInstalment, describe, held, book } = this.#components
    const { known, files, staging, signal } = this.#init
    await rm(staging, { recursive: true, force: true })
    for (const path of paths) {
      const place = join(staging, path)
      await mkdir(dirname(place), { recursive: true, mode: 0o700 })
      await rename(join(files, path), place)
      if (this.#waiting.delete(path)) this.#waitingBytes -= this.#sizes.get(path) ?? 0
      known.arrivals.moved(path, place)
    }
    this.#waitingSince = this.#components.clock.monotonic()
    const { cid, letGo } = await addInstalment(staging, {
      signal,
      onProgress: ({ bytesDone }) => { this.#bytesNow = bytesDone },
      onStored: async path => { await rm(path, { force: true }) },
      // Before the store has it, or a crash would leave it there for good; not what a user has already.
      onNamed: async cid => { if (held(cid) === undefined || book.has(cid)) await book.add(known.key, cid, 'own') }
    })
    try {
      checkDescription(known, await describe(cid, { signal }), 'this disk', 'some')
    } catch (error) {
      letGo()
      throw error
    }
    this.#bytesNow = 0
    this.#published(cid, paths, letGo)
    await rm(staging, { recursive: true, force: true })
  }

  #published (cid: string, paths: readonly string[], letGo: () => void): void {
    this.#cids.push(cid)
    this.#letGo.push(letGo)
    for (const path of paths) {
      this.#paths.add(path)
      this.#bytesBefore += this.#sizes.get(path) ?? 0
      this.#init.known.arrivals.inModel(path, { cid, index: undefined, from: undefined, compared: true })
    }
  }
}
