import { setImmediate as nextTurn } from 'node:timers/promises'
import { FileNotFoundError, MiB, UsageError, throwIfAborted, withSignal, type AbortOptions, type Clock } from '../base/index.ts'
import { positionOf } from '../model/index.ts'
import { blockAt, localFiles, type LocalFile } from '../storage/index.ts'
import type { FilePart, ModelStore, StoredFile, StoredModel } from '../storage/store.ts'
import type { ModelFetch, ModelFetchStats } from '../transfer/types.ts'
import type { LoadOptions, LoadProgress, LoadResult, OpenFile, OpenModel, ReadOptions } from './types.ts'

/** How what is missing is fetched. */
export type FetchOptions = Pick<LoadOptions, 'order' | 'onDemand'>

/** Of a large range, room is held for so much at a time: enough to keep several peers busy. */
const STEP_BYTES = 256 * MiB

/** Room is made for each range that is asked for, and not before. */
export function isUnreserved ({ onDemand, reserve }: LoadOptions): boolean { return onDemand === true && reserve === false }

/** What one caller needs of the load it shares with others. */
export interface SharedFetch {
  readonly store: ModelStore
  readonly clock: Clock
  /** The fetch, widened to these files; undefined when they are all here. */
  fetchOf: (model: StoredModel, files: number[], options: FetchOptions) => ModelFetch | undefined
  /** The running fetch, or one of this whole file; undefined when it is all here. */
  fetchFor: (model: StoredModel, file: number, order: LoadOptions['order']) => Promise<ModelFetch | undefined>
  /** Makes room for a part, until it is let go of, and copies what is here of it. Throws QuotaExceededError and OutOfSpaceError. */
  expect: (part: FilePart, options: AbortOptions) => Promise<() => void>
  /** Fetches no more than these bytes. Room for them is up to the caller. */
  fetchRange: (model: StoredModel, file: number, range: { offset: number, length: number }, options: AbortOptions) => Promise<void>
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
  readonly #options: LoadOptions
  /** Bytes of the wanted files, each distinct file once. */
  readonly #distinctBytes: number
  /** Bytes of those that were not here when this caller joined. */
  readonly #lackingBytes: number
  readonly #started: number
  /** Until the wanted files are here. What is read after that may need another. */
  #fetch: ModelFetch | undefined
  #result: LoadResult | undefined
  #letGo = (): void => undefined

  constructor (shared: SharedFetch, caller: object, model: StoredModel, wanted: number[], options: LoadOptions) {
    this.cid = model.cid
    this.#shared = shared
    this.#caller = caller
    this.#model = model
    this.#wanted = new Set(wanted)
    this.#options = options
    this.#started = shared.clock.monotonic()
    const distinct = new Set(wanted.map(file => model.files[file]))
    this.#distinctBytes = sum(distinct, file => file?.index.size ?? 0)
    this.#lackingBytes = this.#distinctBytes - sum(distinct, file => file?.presentBytes ?? 0)
    this.#fetch = shared.fetchOf(model, wanted, options)
    if (options.onDemand === true) this.#letGo = this.#fetch?.hold() ?? this.#letGo
    this.done = this.#wait()
    this.done.catch(() => undefined) // whoever does not await it has other ways to learn
  }

  get files (): readonly OpenFile[] {
    const localOf = localFiles(this.#model)
    return this.#model.manifest.value.files.map((_entry, position) => this.#file(position, localOf(position)))
  }

  file (path: string): OpenFile {
    const position = this.#position(path)
    return this.#file(position, localFiles(this.#model)(position))
  }

  #file (position: number, local: LocalFile): OpenFile {
    const file = this.#model.files[position]
    const { path = '', size = 0 } = this.#model.manifest.value.files[position] ?? {}
    return {
      path,
      size,
      sha256: Buffer.from(file?.index.sha256 ?? []).toString('hex'),
      localPath: local.path,
      complete: file?.present.full ?? false,
      wanted: this.#wanted.has(position),
      gitSha1: file?.index.gitSha1 === undefined ? undefined : Buffer.from(file.index.gitSha1).toString('hex'),
      guard: local.guard
    }
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
    if (length === 0 || isHere(file, offset, length)) return
    await this.#fetched(position, offset, length, options)
  }

  async read (path: string, offset: number, length: number, options: ReadOptions = {}): Promise<Uint8Array> {
    const position = this.#position(path)
    const file = this.#model.files[position]
    if (file === undefined) throw new FileNotFoundError(`${this.cid} has no file ${path}`)
    if (offset >= 0 && length > 0 && offset + length <= file.index.size && !isHere(file, offset, length)) {
      const into = options.into ?? Buffer.allocUnsafeSlow(length)
      if (await this.#fetched(position, offset, length, { ...options, into }) === 'read') return into
    } else {
      await this.waitFor(path, offset, length, options)
    }
    return await this.#shared.store.readRange(file, offset, length, options.into)
  }

  close (): void {
    this.#letGo()
    void this.#shared.leave(this.#caller)
  }

  #position (path: string): number {
    const position = positionOf(this.#model.manifest.value.files, path)
    if (position < 0) throw new FileNotFoundError(`${this.cid} has no file ${path}; see its files with: shoal show ${this.cid}`)
    return position
  }

  /** Fetches a range; says whether it was also read. */
  async #fetched (position: number, offset: number, length: number, options: ReadOptions): Promise<'here' | 'read'> {
    try {
      for (;;) {
        const how = await this.#fetchRange(position, offset, length, options)
        if (how !== 'again') return how
        await nextTurn() // whatever is wrong, others get their turn
      }
    } catch (error) {
      throwIfAborted(options.signal)
      throw this.#shared.reason(error)
    }
  }

  async #fetchRange (position: number, offset: number, length: number, options: ReadOptions): Promise<'here' | 'read' | 'again'> {
    if (this.#wanted.size === 0) {
      await this.#shared.fetchRange(this.#model, position, { offset, length }, options)
      return 'here'
    }
    if (isUnreserved(this.#options)) {
      await this.#fetchUnreserved(position, offset, length, options)
      return 'here'
    }
    const fetch = await withSignal(this.#shared.fetchFor(this.#model, position, this.#options.order), options.signal)
    try {
      if (fetch === undefined || options.into === undefined) {
        await fetch?.want(position, offset, length, options)
        return 'here'
      }
      await fetch.read(position, offset, options.into, options)
      return 'read'
    } catch (error) {
      throwIfAborted(options.signal)
      if (fetch?.ended !== true || !await withSignal(endsWell(fetch), options.signal)) throw error
      return 'again' // it had all that was wanted of it just before this was
    }
  }

  /** Step by step, so that room is held for little at a time. */
  async #fetchUnreserved (position: number, offset: number, length: number, options: AbortOptions): Promise<void> {
    const file = this.#model.files[position]
    if (file === undefined) return
    for (let at = offset; at < offset + length; at += STEP_BYTES) {
      const step = Math.min(STEP_BYTES, offset + length - at)
      if (isHere(file, at, step)) continue
      const first = blockAt(file.offsets, at)
      const letGo = await this.#shared.expect({ file, first, count: blockAt(file.offsets, at + step - 1) - first + 1 }, options)
      try {
        if (!isHere(file, at, step)) await this.#shared.fetchRange(this.#model, position, { offset: at, length: step }, options)
      } finally {
        letGo()
      }
    }
  }

  async #wait (): Promise<LoadResult> {
    const { onProgress, signal } = this.#options
    const fetch = this.#fetch
    const before = fetch?.stats()
    const off = onProgress === undefined ? undefined : fetch?.events.on('progress', stats => { onProgress(progressOf(stats, this.#model)) })
    try {
      if (fetch !== undefined) await withSignal(this.#wantedDone(fetch), signal)
    } catch (error) {
      throwIfAborted(signal)
      throw this.#shared.reason(error)
    } finally {
      off?.()
      this.#fetch = undefined
    }
    const { fetchedBytes, duplicateBytes, peers } = since(before, fetch?.stats())
    // A shared fetch brings others' files too.
    const ownBytes = Math.min(fetchedBytes, this.#lackingBytes)
    const files = [...this.#wanted].map(position => this.#model.files[position])
    const bytes = sum(files, file => file?.index.size ?? 0)
    this.#result = {
      cid: this.cid,
      path: this.#model.directory,
      bytes,
      seconds: (this.#shared.clock.monotonic() - this.#started) / 1000,
      fetchedBytes: ownBytes,
      // What did not come over the network was here: before, in another file, or written by a load that was cut short.
      reusedBytes: this.#distinctBytes - ownBytes,
      duplicateBytes,
      peers
    }
    onProgress?.(this.progress())
    return this.#result
  }

  /** The fetch may have been widened by others: this caller is done when its own files are. */
  async #wantedDone (fetch: ModelFetch): Promise<void> {
    await (this.#options.onDemand === true ? fetch.done : Promise.race([fetch.done, fetch.complete(this.#wanted)]))
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

function isHere ({ offsets, present }: StoredFile, offset: number, length: number): boolean {
  if (present.full) return true
  for (let block = blockAt(offsets, offset); block < offsets.length && (offsets[block] ?? 0) < offset + length; block++) {
    if (!present.has(block)) return false
  }
  return true
}

/** What a fetch has moved between two looks at it. */
function since (before: ModelFetchStats | undefined, now: ModelFetchStats | undefined): Pick<LoadResult, 'fetchedBytes' | 'duplicateBytes' | 'peers'> {
  if (before === undefined || now === undefined) return { fetchedBytes: 0, duplicateBytes: 0, peers: {} }
  const peers = Object.entries(now.peers).map(([peerId, bytes]): [string, number] => [peerId, bytes - (before.peers[peerId] ?? 0)])
  return {
    fetchedBytes: now.fetchedBytes - before.fetchedBytes,
    duplicateBytes: now.duplicateBytes - before.duplicateBytes,
    peers: Object.fromEntries(peers.filter(([, bytes]) => bytes > 0))
  }
}

/** For a fetch that is over but for its last writes. */
export async function endsWell (fetch: ModelFetch): Promise<boolean> {
  return await fetch.done.then(() => true, () => false)
}

function sum<T> (items: Iterable<T>, of: (item: T) => number): number {
  let total = 0
  for (const item of items) total += of(item)
  return total
}
