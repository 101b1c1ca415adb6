import {
  ApiError, FileNotFoundError, InvalidSafetensorsError, LOADER_HEADERS_AT_ONCE, LOADER_WAITS_MAX, ModelClosedError, Semaphore, ShoalError, TensorNotFoundError, UsageError,
  abortReason, asError, throwIfAborted, withSignal, type AbortOptions
} from '../base/index.ts'
import type { ApiClient } from '../api/client.ts'
import { commonDirectory } from '../api/common-directory.ts'
import type { OpenMessage } from '../api/types.ts'
import { readSafetensors } from '../model/safetensors.ts'
import { printable } from '../model/printable.ts'
import type { LoadProgress, LoadResult, OpenFile } from '../node/types.ts'
import { LocalFiles, NotSealedError } from './local-files.ts'
import { viewOf, type LocatedTensor, type TensorData } from './tensor-data.ts'
import type { ModelFile, OpenOptions, OpenedModel } from './types.ts'

type FilesMessage = OpenMessage & { type: 'files' }

/** `list` by file and offset; a name that stands in several files has several entries. */
interface TensorIndex { list: LocatedTensor[], byName: Map<string, LocatedTensor[]> }

/**
 * One open model. It owns a stream from the daemon, which keeps the load going and ends with it, and descriptors of the
 * model's files. A read first asks the daemon to wait for its range, unless the file is known to be complete, and then
 * takes the bytes from the file.
 */
export class LoadedModel implements OpenedModel {
  readonly cid: string
  readonly files: readonly ModelFile[]
  readonly done: Promise<LoadResult>
  readonly #client: ApiClient
  readonly #message: FilesMessage
  readonly #options: OpenOptions
  readonly #local = new LocalFiles()
  readonly #waits = new Semaphore(LOADER_WAITS_MAX)
  /** Aborts when this is closed: what waits or reads ends. */
  readonly #closed: AbortController
  readonly #byPath: ReadonlyMap<string, ModelFile>
  #tensors: Promise<TensorIndex> | undefined
  readonly #reading = new Set<Promise<unknown>>()
  readonly #done = Promise.withResolvers<LoadResult>()
  readonly #following: Promise<void>
  #progress: LoadProgress
  #result: LoadResult | undefined
  #failure: Error | undefined
  #closing: Promise<void> | undefined

  private constructor (client: ApiClient, cid: string, message: FilesMessage, rest: AsyncIterator<OpenMessage>, closed: AbortController, options: OpenOptions) {
    this.cid = cid
    this.#client = client
    this.#message = message
    this.#closed = closed
    this.#options = options
    this.files = message.files.map(file => this.#modelFile(file))
    this.#byPath = new Map(this.files.map(file => [file.path, file]))
    const wanted = message.files.filter(file => file.wanted)
    const sum = (files: OpenFile[]): number => files.reduce((total, file) => total + file.size, 0)
    this.#progress = { phase: 'loading', bytesDone: sum(wanted.filter(file => file.complete)), bytesTotal: sum(wanted), rate: 0, peers: 0, secondsLeft: undefined }
    this.#following = this.#follow(rest)
    this.done = this.#done.promise
    this.done.catch(() => undefined) // whoever does not await it learns of it by reading
  }

  /** Resolves when the daemon knows the model's files. */
  static async open (client: ApiClient, cid: string, options: OpenOptions): Promise<LoadedModel> {
    const { include, order, onDemand, providerTimeoutMs, signal } = options
    const closed = new AbortController()
    const either = signal === undefined ? closed.signal : AbortSignal.any([signal, closed.signal])
    const messages = client.open(cid, { include, order, onDemand, providerTimeoutMs, signal: either })[Symbol.asyncIterator]()
    try {
      for (let next = await messages.next(); next.done !== true; next = await messages.next()) {
        if (next.value.type === 'files') return new LoadedModel(client, cid, next.value, messages, closed, options)
        if (next.value.type === 'progress') options.onProgress?.(next.value.progress)
      }
      throw new ApiError(`the daemon opened ${printable(cid)} without telling its files; is it of another version?`)
    } catch (error) {
      closed.abort(error)
      throw error
    }
  }

  progress (): LoadProgress { return this.#progress }

  async path (options: AbortOptions = {}): Promise<string> {
    const result = await (this.#options.onDemand === true ? this.#loadAll(options.signal) : this.#until(this.done, options.signal))
    const path = result.path ?? this.#message.path ?? commonDirectory(this.#message.files.filter(file => file.wanted))
    if (path === undefined) throw new UsageError(`the files of ${this.cid} do not lie in one directory; place them in one with: shoal get ${this.cid} --output DIR`)
    return path
  }

  file (name: string): ModelFile {
    const file = this.#byPath.get(name)
    if (file === undefined) throw new FileNotFoundError(`${this.cid} has no file ${printable(name)}; see its files with: shoal show ${this.cid}`)
    return file
  }

  async tensors (options: AbortOptions = {}): Promise<LocatedTensor[]> {
    const { list } = await this.#tensorIndex(options.signal)
    return list.slice()
  }

  async tensor (name: string, options: AbortOptions = {}): Promise<TensorData> {
    const { byName } = await this.#tensorIndex(options.signal)
    const [tensor, second] = byName.get(name) ?? []
    if (tensor === undefined) throw new TensorNotFoundError(`${this.cid} has no tensor ${printable(name)}; tensors() lists those it has`)
    if (second !== undefined) throw new TensorNotFoundError(`${this.cid} has the tensor ${printable(name)} in ${tensor.file} and in ${second.file}; read it with file(name).read()`)
    const bytes = await this.file(tensor.file).read(tensor.offset, tensor.length, options)
    return { ...tensor, data: viewOf(tensor.dtype, bytes) }
  }

  async close (): Promise<void> {
    this.#closing ??= this.#close()
    await this.#closing
  }

  async [Symbol.asyncDispose] (): Promise<void> { await this.close() }

  async #close (): Promise<void> {
    this.#closed.abort(new ModelClosedError(`${this.cid} was closed; open it again to read from it`))
    await Promise.allSettled([this.#following, ...this.#reading])
    await this.#local.close()
  }

  /** Takes the daemon's messages to their end, and holds the model until it is closed: the daemon evicts nothing of it meanwhile. Never rejects. */
  async #follow (messages: AsyncIterator<OpenMessage>): Promise<void> {
    try {
      for (let next = await messages.next(); next.done !== true; next = await messages.next()) {
        const message = next.value
        if (message.type === 'progress') this.#tell(message.progress)
        if (message.type !== 'done') continue
        this.#result = message.result
        const { bytes } = message.result
        this.#tell({ phase: 'done', bytesDone: bytes, bytesTotal: bytes, rate: 0, peers: 0, secondsLeft: 0 })
        this.#done.resolve(message.result)
        await untilAborted(this.#closed.signal)
        return
      }
      throw new ApiError(`the load of ${this.cid} ended without a result; is the daemon of another version?`)
    } catch (error) {
      this.#failure = this.#closed.signal.aborted ? abortReason(this.#closed.signal) : asError(error)
      this.#done.reject(this.#failure)
    } finally {
      await messages.return?.()
    }
  }

  #tell (progress: LoadProgress): void {
    if (this.#progress.phase === 'done') return // what was opened on demand hears of the load of all of it twice
    this.#progress = progress
    this.#options.onProgress?.(progress)
  }

  #modelFile (file: OpenFile): ModelFile {
    const isComplete = (): boolean => this.#isComplete(file)
    return {
      path: file.path,
      size: file.size,
      sha256: file.sha256,
      wanted: file.wanted,
      get complete () { return isComplete() },
      read: async (offset, length, options = {}) => await this.#read(file, offset, length, options.signal)
    }
  }

  #isComplete (file: OpenFile): boolean {
    return file.complete || (file.wanted && this.#result !== undefined)
  }

  async #read (file: OpenFile, offset: number, length: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
    throwIfAborted(this.#closed.signal)
    throwIfAborted(signal)
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0 || offset + length > file.size) {
      throw new RangeError(`${file.path} has ${file.size} bytes; ${length} bytes from ${offset} on are not in it`)
    }
    if (length === 0) return new Uint8Array(0)
    const reading = this.#readRange(file, offset, length, signal === undefined ? this.#closed.signal : AbortSignal.any([signal, this.#closed.signal]))
    this.#reading.add(reading)
    try {
      return await reading
    } finally {
      this.#reading.delete(reading)
    }
  }

  async #readRange (file: OpenFile, offset: number, length: number, signal: AbortSignal): Promise<Uint8Array> {
    await this.#wait(file, offset, length, signal)
    try {
      return await this.#local.read(file, offset, length, { sealed: this.#isComplete(file), signal })
    } catch (error) {
      if (!(error instanceof NotSealedError)) throw error
      // It was complete once. The daemon knows what it is now.
      await this.#askDaemon(file, offset, length, signal)
      return await this.#local.read(file, offset, length, { sealed: false, signal })
    }
  }

  /** Resolves when the range is verified and on disk. */
  async #wait (file: OpenFile, offset: number, length: number, signal: AbortSignal): Promise<void> {
    if (this.#isComplete(file)) return
    if (!file.wanted) throw new UsageError(`${file.path} was left out by the include globs and is not here; open the model with a glob that matches it`)
    if (this.#failure !== undefined) throw this.#failure
    try {
      await this.#askDaemon(file, offset, length, signal)
    } catch (error) {
      throwIfAborted(signal)
      // Where the daemon says that nobody loads it, the load has just ended; how, is about to be told.
      if (error instanceof ShoalError && error.name === 'UsageError') await this.#until(this.done.catch(() => undefined), signal)
      if (this.#isComplete(file)) return
      throw this.#failure ?? error
    }
  }

  /** Loads what was open on demand as others load it: room for all of it first. */
  async #loadAll (signal: AbortSignal | undefined): Promise<LoadResult> {
    throwIfAborted(this.#closed.signal)
    if (this.#failure !== undefined) throw this.#failure
    const { include, order, providerTimeoutMs } = this.#options
    return this.#result ??= await this.#client.load(this.cid, {
      include, order, providerTimeoutMs,
      onProgress: progress => { this.#tell(progress) },
      signal: signal === undefined ? this.#closed.signal : AbortSignal.any([signal, this.#closed.signal])
    })
  }

  async #askDaemon ({ path }: OpenFile, offset: number, length: number, signal: AbortSignal): Promise<void> {
    await this.#waits.run(async () => { await this.#client.wait(this.cid, { path, offset, length }, { signal }) }, signal)
  }

  /** Callers share the reading of the headers, each with its own signal. A failure is not kept. */
  async #tensorIndex (signal: AbortSignal | undefined): Promise<TensorIndex> {
    if (this.#tensors === undefined) {
      const reading = this.#readHeaders()
      this.#tensors = reading
      reading.catch(() => { if (this.#tensors === reading) this.#tensors = undefined })
    }
    return await this.#until(this.#tensors, signal)
  }

  async #readHeaders (): Promise<TensorIndex> {
    const queue = this.#message.files.filter(file => file.path.toLowerCase().endsWith('.safetensors') && (file.wanted || this.#isComplete(file)))
    const positions = new Map(queue.map((file, position) => [file, position]))
    const found: LocatedTensor[][] = []
    await Promise.all(Array.from({ length: Math.min(LOADER_HEADERS_AT_ONCE, queue.length) }, async () => {
      for (let file = queue.shift(); file !== undefined; file = queue.shift()) found[positions.get(file) ?? 0] = await this.#readHeader(file)
    }))
    const list = found.flat()
    return { list, byName: Map.groupBy(list, tensor => tensor.name) }
  }

  async #readHeader (file: OpenFile): Promise<LocatedTensor[]> {
    try {
      const { tensors } = await readSafetensors(async (offset, length) => await this.#read(file, offset, length, undefined), file.size)
      return tensors.map(tensor => ({ ...tensor, file: file.path }))
    } catch (error) {
      if (error instanceof InvalidSafetensorsError) throw new InvalidSafetensorsError(`${file.path} of ${this.cid}: ${error.message}`, { cause: error })
      throw error
    }
  }

  /** Waits for shared work under the caller's own signal and until this is closed. */
  async #until<T> (work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    return await withSignal(work, signal === undefined ? this.#closed.signal : AbortSignal.any([signal, this.#closed.signal]))
  }
}

async function untilAborted (signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await new Promise(resolve => { signal.addEventListener('abort', resolve, { once: true }) })
}
