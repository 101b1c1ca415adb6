import type { CID } from 'multiformats/cid'
import { NodeStoppedError, NoProviderError, abortReason, asError, throwIfAborted, withSignal, type AbortOptions, type Clock } from '../base/index.ts'
import type { Encoded, Manifest, Model } from '../model/index.ts'
import type { FilePart, ModelStore, StoredFile, StoredModel } from '../storage/store.ts'
import type { ModelFetch, ModelFetchStats } from '../transfer/types.ts'
import { Finding, findModel, type FindComponents } from './find-model.ts'
import { OpenShared, isUnreserved, endsWell, progressOf, type FetchOptions, type SharedFetch } from './open-model.ts'
import { ProviderSearch } from './provider-search.ts'
import type { LoadOptions, LoadProgress, NodeSettings, OpenModel, TransferStatus } from './types.ts'
import { wantedFiles } from './wanted-files.ts'

/** Of the parts of this node. */
export interface HintedOptions extends LoadOptions {
  /** Peers that are said to have it: asked first. */
  from?: readonly string[]
}

/** Of who opens a model to fetch parts of it for the swarm. */
export interface RangeOptions extends HintedOptions {
  /** Fetch nothing but the ranges that are waited for. Not shown as a load. */
  rangesOnly: true
}

export interface LoadComponents extends FindComponents { store: ModelStore }

export interface LoadHooks {
  /** The model is registered and its first bytes may come: others can be told at once. Also told of one that only ranges are fetched of. */
  onRegistered: (model: StoredModel) => void
  /** Somebody loads it, and not all of it is here. */
  onBegun: (model: StoredModel) => void
  /** The fetch ended, done or not: what is here now of these files can be announced. */
  onEnded: (model: StoredModel, files: ReadonlySet<StoredFile>) => void
  onLoaded: (model: StoredModel) => void
  onFailed: (cid: string, error: Error) => void
}

/** What a load needs before its callers can say which files they want. */
interface Prepared {
  readonly manifest: Encoded<Manifest>
  /** What the store is given; undefined once it is there. */
  content: Model | undefined
}

/** One fetch of one model, with everybody who waits for it. */
export class SharedLoad implements SharedFetch {
  /** Resolves when nobody needs it any more. */
  readonly ended: Promise<void>
  readonly #components: LoadComponents
  readonly #settings: NodeSettings['transfer']
  readonly #hooks: LoadHooks
  readonly #cid: CID
  readonly #key: string
  readonly #startedAt: number
  readonly #stopping = new AbortController()
  readonly #prepared: Promise<Prepared>
  readonly #callers = new Set<object>()
  /** Those of them who load files: whom events and progress are for. */
  readonly #loaders = new Map<object, { onDemand: boolean }>()
  readonly #readying = new Map<number, Promise<StoredModel>>()
  readonly #providers: ProviderSearch
  /** By the running fetch. */
  #fetched = new Set<StoredFile>()
  /** To the store: what others here had of its blocks is announced with it. */
  #isNew = false
  #fetch: ModelFetch | undefined
  #letGo: () => void = () => undefined
  #resolveEnded: () => void = () => undefined
  #model: StoredModel | undefined
  /** Undefined when the store knew the model. */
  #finding: Finding | undefined
  /** Not all of it was here. */
  #fetchable = true
  /** Somebody loaded files of it, and not only ranges for the swarm. */
  #wasLoad = false

  constructor (components: LoadComponents, settings: NodeSettings['transfer'], hooks: LoadHooks, { cid, from }: { cid: CID, from: readonly string[] }) {
    this.#components = components
    this.#settings = settings
    this.#hooks = hooks
    this.#cid = cid
    this.#key = cid.toString()
    this.#startedAt = components.clock.now()
    this.ended = new Promise(resolve => { this.#resolveEnded = resolve })
    this.#providers = new ProviderSearch(components, cid, this.#stopping.signal)
    this.#providers.hint(from)
    this.#prepared = this.#prepare(from)
    this.#prepared.catch(() => undefined) // each caller awaits it in join()
  }

  /** Nobody loads it, or there is nothing to fetch: not shown as a transfer. */
  get idle (): boolean { return this.#loaders.size === 0 || this.#model?.complete === true }

  get ending (): boolean { return this.#stopping.signal.aborted }

  async join (options: HintedOptions | RangeOptions): Promise<OpenModel> {
    const caller = {}
    const ranges = rangesOf(options)
    this.#callers.add(caller)
    if (ranges === undefined) this.#loaders.set(caller, { onDemand: options.onDemand === true })
    this.#providers.hint(options.from ?? [])
    options.onProgress?.(this.#progress(undefined))
    try {
      const prepared = await this.#patiently(options)
      const wanted = ranges === undefined ? wantedFiles(this.#key, prepared.manifest.value, options.include) : []
      const model = await withSignal(this.#put(prepared, isUnreserved(options) ? [] : wanted), options.signal)
      if (ranges === undefined) this.#begun(model)
      // One that has ended takes no more files; it may be writing its last block for somebody else.
      while (this.#fetch?.ended === true) await withSignal(endsWell(this.#fetch), options.signal)
      return new OpenShared(this, caller, model, wanted, options)
    } catch (error) {
      await this.leave(caller)
      throw error
    }
  }

  async leave (caller: object): Promise<void> {
    const was = this.#callers.delete(caller)
    this.#loaders.delete(caller)
    if (!was || this.#callers.size > 0) return
    await this.end(new NodeStoppedError('nobody waits for this load any more'))
  }

  async end (reason: Error): Promise<void> {
    if (!this.#stopping.signal.aborted) this.#stopping.abort(reason)
    this.#providers.end()
    await this.#fetch?.stop()
    this.#letGo()
    this.#resolveEnded()
  }

  get store (): ModelStore { return this.#components.store }
  get clock (): Clock { return this.#components.clock }

  /** The running fetch, or one of this whole file; undefined when it is all here. */
  async fetchFor (model: StoredModel, file: number, order: LoadOptions['order']): Promise<ModelFetch | undefined> {
    if (this.#fetch === undefined) {
      // Many readers may find their blocks gone at once: the file is made ready for all of them.
      let ready = this.#readying.get(file)
      if (ready === undefined) {
        ready = this.#put({ manifest: model.manifest, content: undefined }, [file]).finally(() => { this.#readying.delete(file) })
        this.#readying.set(file, ready)
      }
      await ready
    }
    this.#note(model, [file])
    return this.#fetch ?? this.fetchOf(model, [file], { order })
  }

  /** Room for a part on its way in, until it is let go of; what other files here have of it is there by then. */
  async expect (part: FilePart, options: AbortOptions): Promise<() => void> {
    const { store } = this.#components
    const letGo = await store.holdRoom(part, `a part of ${this.#key}`)
    try {
      await store.reusePart(part, options)
    } catch (error) {
      letGo()
      throw error
    }
    return letGo
  }

  /** Fetches no more than these bytes, beside whatever else is being fetched. Room for them is up to the caller. */
  async fetchRange (model: StoredModel, file: number, range: { offset: number, length: number }, options: AbortOptions): Promise<void> {
    for (;;) {
      throwIfAborted(this.#stopping.signal)
      const fetch = this.#fetch ?? this.#startFetch(model, [], {})
      this.#note(model, [file])
      try {
        await fetch.want(file, range.offset, range.length, options) // in the same turn: a fetch of which nothing is wanted ends with it
        return
      } catch (error) {
        throwIfAborted(options.signal)
        if (!fetch.ended || !await endsWell(fetch)) throw error // else it had all that was wanted of it just before this was
      }
    }
  }

  /** The fetch, widened to these files; undefined when they are all here. */
  fetchOf (model: StoredModel, files: number[], options: FetchOptions): ModelFetch | undefined {
    if (files.every(file => model.files[file]?.present.full === true)) return undefined
    throwIfAborted(this.#stopping.signal) // nobody would end it
    if (this.#fetch !== undefined) {
      this.#fetch.addFiles(files, { onDemand: options.onDemand ?? false })
      this.#note(model, files)
      return this.#fetch
    }
    return this.#startFetch(model, files, options)
  }

  #startFetch (model: StoredModel, files: number[], { order, onDemand = false }: FetchOptions): ModelFetch {
    const { exchange, logger } = this.#components
    this.#note(model, files)
    const fetch = this.#fetch = exchange.fetchModel({ model, files, onDemand, isBackground: () => this.#loaders.size === 0, ...(order === undefined ? {} : { order }) })
    const offInterested = exchange.events.on('peer:interested', ({ model: wanted, peerId }) => { if (wanted === this.#key) fetch.addPeer(peerId) })
    const offStarved = fetch.events.on('starved', () => { this.#starved() })
    const offProgress = fetch.events.on('progress', () => { this.#providers.starvesNoMore() })
    const finished = (): void => {
      offInterested(); offStarved(); offProgress()
      this.#providers.end()
      if (this.#fetch === fetch) this.#fetch = undefined
    }
    fetch.done.then(() => {
      finished()
      this.#told(model)
      if (model.complete && this.#wasLoad) this.#hooks.onLoaded(model)
    }, error => {
      finished()
      const reason = this.reason(error)
      logger.info({ cid: this.#key, error: reason.message }, 'load ended early')
      this.#told(model)
      if (this.#wasLoad) this.#hooks.onFailed(this.#key, reason)
    })
    this.#providers.begin(fetch)
    return fetch
  }

  #note (model: StoredModel, files: readonly number[]): void {
    for (const position of files) {
      const file = model.files[position]
      if (file !== undefined) this.#fetched.add(file)
    }
  }

  #told (model: StoredModel): void {
    const files = this.#isNew ? new Set(model.files) : this.#fetched
    this.#isNew = false
    this.#fetched = new Set()
    this.#hooks.onEnded(model, files)
  }

  status (): TransferStatus {
    const stats = this.#fetch?.stats()
    return {
      cid: this.#key,
      startedAt: this.#startedAt,
      progress: this.#progress(stats),
      peers: stats?.peers ?? {},
      callers: this.#callers.size,
      resting: this.#model !== undefined && (stats === undefined || stats.missingBlocks === 0)
    }
  }

  /** Told once, when somebody loads files of it. */
  #begun (model: StoredModel): void {
    if (this.#wasLoad) return
    this.#wasLoad = true
    if (this.#fetchable) this.#hooks.onBegun(model)
  }

  async #prepare (from: readonly string[]): Promise<Prepared> {
    const { store } = this.#components
    const known = store.model(this.#key)
    if (known !== undefined) {
      this.#letGo = store.holdModel(this.#key)
      this.#model = known
      await store.touchModel(this.#key)
      await store.settleModel(this.#key, { signal: this.#stopping.signal }) // whoever opens it is told where its files are
      this.#fetchable = !known.complete
      if (!known.complete) this.#hooks.onRegistered(known)
      return { manifest: known.manifest, content: undefined }
    }
    this.#finding = new Finding(this.#cid)
    const found = await findModel(this.#components, this.#cid, this.#finding, { signal: this.#stopping.signal, hints: from })
    const { model } = found
    this.#providers.hint(found.from)
    throwIfAborted(this.#stopping.signal)
    // Held before it is put: eviction for another load must not take it in between.
    this.#letGo = store.holdModel(this.#key)
    return { manifest: model.manifest, content: model }
  }

  /** Waits until the model is found, as long as this caller wants to: the search goes on while others wait. */
  async #patiently ({ signal, providerTimeoutMs: patienceMs = this.#settings.providerTimeoutMs }: LoadOptions): Promise<Prepared> {
    const finding = this.#finding
    if (finding === undefined) return await withSignal(this.#prepared, signal)
    const { clock } = this.#components
    const joinedAt = clock.monotonic()
    const over = new AbortController()
    let cancel = (): void => undefined
    const watch = (delayMs: number): void => {
      cancel = clock.setTimeout(() => {
        const waitedMs = clock.monotonic() - Math.max(joinedAt, finding.foundAt)
        if (waitedMs < patienceMs) watch(patienceMs - waitedMs)
        else over.abort(finding.nobody())
      }, delayMs)
    }
    watch(patienceMs)
    try {
      return await withSignal(this.#prepared, signal === undefined ? over.signal : AbortSignal.any([signal, over.signal]))
    } finally {
      cancel()
    }
  }

  /** The model in the store, with room for these files. Each caller answers for its own: what is refused to one is not refused to all. */
  async #put (prepared: Prepared, wanted: number[]): Promise<StoredModel> {
    const known = this.#model
    if (known !== undefined && wanted.every(file => known.files[file]?.present.full === true)) return known
    const { store } = this.#components
    const { signal } = this.#stopping
    const model = prepared.content === undefined ? await store.wantFiles(this.#key, { signal, wanted }) : await store.putModel(prepared.content, { signal, wanted })
    throwIfAborted(signal)
    if (prepared.content !== undefined) this.#isNew = true
    prepared.content = undefined // the store has it
    if (this.#model === undefined) {
      this.#model = model
      this.#hooks.onRegistered(model)
    }
    return model
  }

  #starved (): void {
    if (this.#providers.starves() > this.#settings.stallTimeoutMs) {
      const done = this.#fetch?.stats()
      const reason = new NoProviderError(`nobody has the rest of ${this.#key}: ${done?.bytesDone ?? 0} of ${done?.bytesTotal ?? 0} bytes are here and stay, ${this.#providers.asked} peers were asked; load again when a holder is up`)
      if (this.#loaders.size === 0 || [...this.#loaders.values()].some(({ onDemand }) => !onDemand)) {
        void this.end(reason)
        return
      }
      // On demand others may have all that they have asked for so far: who waits is told, and nobody's model is closed.
      this.#fetch?.giveUp(reason)
      this.#providers.starvesNoMore()
      this.#providers.starves()
    }
    this.#providers.search()
  }

  #progress (stats: ModelFetchStats | undefined): LoadProgress {
    return progressOf(stats, this.#model)
  }

  /** Why it ended, for those who wait. */
  reason (fallback: unknown): Error {
    const { signal } = this.#stopping
    return signal.aborted ? abortReason(signal) : asError(fallback)
  }
}

function rangesOf (options: HintedOptions | RangeOptions): RangeOptions | undefined {
  return 'rangesOnly' in options ? options : undefined
}
