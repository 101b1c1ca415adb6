import { FileNotFoundError, UsageError, abortReason, throwIfAborted, type AbortOptions, type Clock } from '../base/index.ts'
import type { ModelStore, StoredModel } from '../storage/store.ts'
import type { ModelFetch, ModelFetchStats } from '../transfer/types.ts'
import type { LoadOptions, LoadProgress, LoadResult, OpenFile, OpenModel } from './types.ts'

/** What one caller needs of the load it shares with others. */
export interface SharedFetch {
  readonly store: ModelStore
  readonly clock: Clock
  /** The fetch, widened to these files; undefined when they are all here. */
  fetchOf: (model: StoredModel, files: number[], order: LoadOptions['order']) => ModelFetch | undefined
  /** Why the load ended, or what was thrown. */
  reason: (thrown: unknown) => Error
  leave: (caller: object) => Promise<void>
}

/** One caller's view of a shared load. */
export class OpenShared implements OpenModel {
  readonly cid: string
  readonly done: Promise<LoadResult>
  readonly #shared: SharedFetch
  readonly #caller: object
  readonly #model: StoredModel
  readonly #wanted: Set<number>
  readonly #fetch: ModelFetch | undefined
  readonly #options: LoadOptions
  /** Bytes of the wanted files, each distinct file once. */
  readonly #distinctBytes: number
  readonly #started: number
  #result: LoadResult | undefined

  constructor (shared: SharedFetch, caller: object, model: StoredModel, wanted: number[], options: LoadOptions) {
    this.cid = model.cid
    this.#shared = shared
    this.#caller = caller
    this.#model = model
    this.#wanted = new Set(wanted)
    this.#options = options
    this.#started = shared.clock.monotonic()
    this.#distinctBytes = sum(new Set(wanted.map(file => model.files[file])), file => file?.index.size ?? 0)
    this.#fetch = shared.fetchOf(model, wanted, options.order)
    this.done = this.#wait()
    this.done.catch(() => undefined) // whoever does not await it has other ways to learn
  }

  get files (): readonly OpenFile[] {
    return this.#model.manifest.value.files.map(({ path, size }, position) => {
      const file = this.#model.files[position]
      return {
        path,
        size,
        sha256: Buffer.from(file?.index.sha256 ?? []).toString('hex'),
        localPath: file?.path,
        complete: file?.present.full ?? false,
        wanted: this.#wanted.has(position),
        guard: file?.guard
      }
    })
  }

  progress (): LoadProgress {
    if (this.#result !== undefined) return { phase: 'done', bytesDone: this.#result.bytes, bytesTotal: this.#result.bytes, rate: 0, peers: 0, secondsLeft: 0 }
    return progressOf(this.#fetch?.stats(), this.#model)
  }

  async waitFor (path: string, offset: number, length: number, options: AbortOptions = {}): Promise<void> {
    const position = this.#position(path)
    const file = this.#model.files[position]
    if (file === undefined || offset < 0 || length < 0 || offset + length > file.index.size) {
      throw new UsageError(`${path} has ${file?.index.size ?? 0} bytes; bytes ${offset} to ${offset + length} are not in it`)
    }
    if (file.present.full || length === 0) return
    const fetch = this.#fetch ?? this.#shared.fetchOf(this.#model, [position], this.#options.order)
    try {
      await fetch?.want(position, offset, length, options)
    } catch (error) {
      throwIfAborted(options.signal)
      throw this.#shared.reason(error)
    }
  }

  async read (path: string, offset: number, length: number, options: AbortOptions = {}): Promise<Uint8Array> {
    await this.waitFor(path, offset, length, options)
    const file = this.#model.files[this.#position(path)]
    if (file === undefined) throw new FileNotFoundError(`${this.cid} has no file ${path}`)
    return await this.#shared.store.readRange(file, offset, length)
  }

  close (): void {
    void this.#shared.leave(this.#caller)
  }

  #position (path: string): number {
    const position = this.#model.manifest.value.files.findIndex(file => file.path === path)
    if (position < 0) throw new FileNotFoundError(`${this.cid} has no file ${path}; see its files with: shoal show ${this.cid}`)
    return position
  }

  async #wait (): Promise<LoadResult> {
    const { onProgress, signal } = this.#options
    const off = onProgress === undefined ? undefined : this.#fetch?.events.on('progress', stats => { onProgress(progressOf(stats, this.#model)) })
    try {
      if (this.#fetch !== undefined) await withSignal(this.#wantedDone(this.#fetch), signal)
    } catch (error) {
      throwIfAborted(signal)
      throw this.#shared.reason(error)
    } finally {
      off?.()
    }
    const stats = this.#fetch?.stats()
    const files = [...this.#wanted].map(position => this.#model.files[position])
    const bytes = sum(files, file => file?.index.size ?? 0)
    this.#result = {
      cid: this.cid,
      path: this.#model.directory,
      bytes,
      seconds: (this.#shared.clock.monotonic() - this.#started) / 1000,
      fetchedBytes: stats?.fetchedBytes ?? 0,
      // What did not come over the network was here: before, in another file, or written by a load that was cut short.
      reusedBytes: Math.max(0, this.#distinctBytes - (stats?.fetchedBytes ?? 0)),
      duplicateBytes: stats?.duplicateBytes ?? 0,
      peers: stats?.peers ?? {}
    }
    onProgress?.(this.progress())
    return this.#result
  }

  /** The fetch may have been widened by others: this caller is done when its own files are. */
  async #wantedDone (fetch: ModelFetch): Promise<void> {
    const own = [...this.#wanted].filter(position => this.#model.files[position]?.present.full !== true)
    await Promise.race([
      fetch.done,
      Promise.all(own.map(async position => { await fetch.complete(position) }))
    ])
  }
}

export function progressOf (stats: ModelFetchStats | undefined, model: StoredModel | undefined): LoadProgress {
  if (stats === undefined) {
    if (model === undefined) return { phase: 'finding', bytesDone: 0, bytesTotal: 0, rate: 0, peers: 0, secondsLeft: undefined }
    return { phase: 'loading', bytesDone: model.presentBytes, bytesTotal: model.bytes, rate: 0, peers: 0, secondsLeft: undefined }
  }
  const left = stats.bytesTotal - stats.bytesDone
  return {
    phase: 'loading',
    bytesDone: stats.bytesDone,
    bytesTotal: stats.bytesTotal,
    rate: stats.rate,
    peers: stats.activePeers,
    secondsLeft: stats.rate > 0 ? left / stats.rate : undefined
  }
}

/** Waits for shared work under one's own signal: leaving does not end it. */
export async function withSignal<T> (work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return await work
  throwIfAborted(signal)
  let off = (): void => undefined
  const aborted = new Promise<never>((_resolve, reject) => {
    const onAbort = (): void => { reject(abortReason(signal)) }
    signal.addEventListener('abort', onAbort, { once: true })
    off = () => { signal.removeEventListener('abort', onAbort) }
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    off()
  }
}

function sum<T> (items: Iterable<T>, of: (item: T) => number): number {
  let total = 0
  for (const item of items) total += of(item)
  return total
}
