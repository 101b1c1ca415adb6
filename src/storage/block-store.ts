import type { CID } from 'multiformats/cid'
import { Emitter, NodeStoppedError, abortReason, asError, throwIfAborted, type AbortOptions, type Clock, type Logger, type ProgressOptions } from '../base/index.ts'
import type { Encoded, FileIndex, Model } from '../model/index.ts'
import { Blocks } from './blocks.ts'
import type { ByteStore } from './byte-store.ts'
import { Catalog } from './catalog.ts'
import { WORK_SLOTS, type Core, type StoreSettings } from './core.ts'
import { diskError } from './disk-errors.ts'
import { Imports } from './imports.ts'
import { Gate, Lock } from './concurrency.ts'
import { loadRegistry } from './load-registry.ts'
import { Models } from './models.ts'
import { Places } from './places.ts'
import { DetailsCache, Registry } from './records.ts'
import { isDamage, loadDetails, rebuildCatalog, setCatalogAside, settleFiles } from './recover.ts'
import { Room } from './room.ts'
import type { RunningAdd } from './running-adds.ts'
import { SlotPool, type Slot } from './slots.ts'
import { StaleFlags } from './stale-flags.ts'
import type {
  BlockLocation, FileGuard, FileImport, FilePart, GcResult, ImportOptions, ModelStore, PutModelOptions, RangeVerifyResult, RemoveResult, StoreEvents, StoreStatus, StoredFile, StoredModel,
  VerifyProgress, VerifyResult
} from './store.ts'
import { verifyHeld, verifyRange } from './verify.ts'
import { Volume } from './volume.ts'

export interface BlockStoreInit { clock: Clock, logger: Logger, settings: StoreSettings }

interface Parts { core: Core, blocks: Blocks, places: Places, room: Room, models: Models, imports: Imports }

/**
 * The store over any ByteStore: wires its parts and hands each call to the one that knows. Blocks (blocks.ts) are read,
 * written and recorded; models (models.ts) and whole files (imports.ts) come in; room is made (room.ts); what is held
 * is checked (verify.ts), and found again after a crash (recover.ts).
 */
export class BlockStore implements ModelStore {
  readonly events: Emitter<StoreEvents>
  readonly slots: SlotPool
  readonly #bytes: ByteStore
  readonly #init: BlockStoreInit
  readonly #gate = new Gate()
  readonly #stopping = new AbortController()
  #started: Promise<void> | undefined
  #stopped: Promise<void> | undefined
  #parts: Parts | undefined

  constructor (bytes: ByteStore, init: BlockStoreInit) {
    this.#bytes = bytes
    this.#init = init
    this.events = new Emitter(error => { init.logger.error({ error: asError(error).message }, 'a listener of the store threw') })
    this.slots = new SlotPool(init.settings.slots, { shared: init.settings.sharedSlots ?? false })
  }

  async start ({ signal }: AbortOptions = {}): Promise<void> {
    if (this.#gate.closed) throw stopped()
    throwIfAborted(signal)
    const cut = (): void => { if (signal !== undefined) this.#stopping.abort(abortReason(signal)) }
    signal?.addEventListener('abort', cut, { once: true })
    try {
      await (this.#started ??= this.#start())
    } finally {
      signal?.removeEventListener('abort', cut)
    }
  }

  async stop (): Promise<void> {
    await (this.#stopped ??= this.#stop())
  }

  async #start (): Promise<void> {
    const { signal } = this.#stopping
    await this.#bytes.start()
    try {
      const core = await this.#open()
      const blocks = new Blocks(core, { clock: this.#init.clock, ...this.#init.settings })
      const room = new Room(core, blocks)
      const places = new Places(core, blocks)
      this.#parts = { core, blocks, places, room, models: new Models(core, room, blocks), imports: new Imports(core, { room, blocks, places }) }
      await settleFiles(core, { blocks, places }, signal)
    } catch (error) {
      await this.#close()
      throw diskError(error, 'cannot open the store')
    }
  }

  /** The catalog with all that it says. One that is damaged, missing or half rebuilt is filled from what was kept beside it. */
  async #open (): Promise<Core> {
    const { catalogPath } = this.#bytes
    const { logger } = this.#init
    for (let attempt = 0; ; attempt++) {
      let catalog: Catalog | undefined
      try {
        catalog = new Catalog(catalogPath)
        if (catalog.rebuilding) {
          const models = await rebuildCatalog(catalog, this.#bytes, this.#stopping.signal)
          if (models > 0) logger.warn({ models }, 'the catalog is rebuilt; every block is hashed once')
          catalog.rebuilt()
        }
        const core = this.#core(catalog)
        await loadRegistry(core)
        return core
      } catch (error) {
        catalog?.[Symbol.dispose]()
        if (attempt > 0 || catalogPath === ':memory:' || !isDamage(error)) throw error
        logger.error({ path: catalogPath, error: asError(error).message }, 'the catalog is damaged; it is set aside and rebuilt from the files')
        await setCatalogAside(catalogPath)
      }
    }
  }

  #core (catalog: Catalog): Core {
    const { clock, logger, settings } = this.#init
    const registry = new Registry()
    const recording = new Lock()
    const volume = new Volume({
      clock,
      events: this.events,
      logger,
      probe: async () => {
        await this.#bytes.probe()
        const space = await this.#bytes.space()
        if (space !== undefined && space.freeBytes < space.reserveBytes) throw diskError(Object.assign(new Error('too little is free'), { code: 'ENOSPC' }), 'the volume is still full')
      }
    })
    return {
      settings,
      clock,
      logger,
      events: this.events,
      bytes: this.#bytes,
      catalog,
      registry,
      details: new DetailsCache(key => loadDetails(catalog, key)),
      volume,
      staleFlags: new StaleFlags({ clock, logger, bytes: this.#bytes, registry, recording, volume }),
      structure: new Lock(),
      recording,
      copying: new Lock(),
      workSlots: new SlotPool(WORK_SLOTS),
      stopping: this.#stopping.signal
    }
  }

  async #stop (): Promise<void> {
    this.#stopping.abort(stopped())
    await this.#started?.catch(() => undefined)
    await this.#gate.close(stopped())
    await this.#parts?.places.stop(stopped())
    await this.#parts?.blocks.flush().catch(error => {
      this.#init.logger.error({ error: asError(error).message }, 'the last written blocks could not be recorded; they will be fetched again')
    })
    await this.#close()
  }

  async #close (): Promise<void> {
    const parts = this.#parts
    this.#parts = undefined
    await parts?.places.stop(stopped())
    await parts?.core.staleFlags.stop()
    await parts?.core.volume.stop()
    parts?.core.catalog[Symbol.dispose]()
    await this.#bytes.stop()
  }

  get #running (): Parts {
    if (this.#parts === undefined) throw stopped()
    return this.#parts
  }

  async status (): Promise<StoreStatus> {
    const { core } = this.#running
    return await this.#gate.run(async () => ({
      heldBytes: core.registry.heldBytes(),
      quotaBytes: core.settings.quota,
      volumeFreeBytes: (await core.bytes.space().catch(() => undefined))?.freeBytes,
      writable: core.volume.writable,
      error: core.volume.error?.message,
      slots: { size: this.slots.size, free: this.slots.free },
      directIo: core.bytes.directIo
    }))
  }

  models (): StoredModel[] { return this.#parts === undefined ? [] : [...this.#parts.core.registry.models.values()] }
  model (cid: string): StoredModel | undefined { return this.#parts?.core.registry.models.get(cid) }

  async putModel (model: Model, options: PutModelOptions = {}): Promise<StoredModel> {
    return await this.#run(async ({ models }) => await models.put(model, options))
  }

  async wantFiles (cid: string, options: AbortOptions & { wanted: number[] }): Promise<StoredModel> {
    return await this.#run(async ({ models }) => await models.want(cid, options))
  }

  async setPinned (cid: string, pinned: boolean): Promise<void> {
    await this.#run(async ({ models }) => { await models.setPinned(cid, pinned) })
  }

  async settleModel (cid: string, options?: AbortOptions): Promise<void> {
    await this.#run(async ({ core, models, places }) => {
      const model = core.registry.models.get(cid)
      if (model === undefined) return
      await places.look(model.distinct, this.#eitherSignal(options))
      await models.linkAgain(model)
    })
  }

  async touchModel (cid: string): Promise<void> {
    await this.#run(async ({ models }) => { models.touch(cid) })
  }

  holdModel (cid: string): () => void { return this.#running.core.registry.hold(cid) }
  isHeld (cid: string): boolean { return this.#running.core.registry.isHeld(cid) }

  keepModel (cid: string, keep: boolean): void { this.#running.core.registry.keep(cid, keep) }

  spareParts (cid: string, parts: readonly FilePart[]): void { this.#running.core.registry.setSpare(cid, parts) }

  async evictParts (parts: readonly FilePart[], bytes: number): Promise<number> {
    return await this.#run(async ({ core, room }) => await core.structure.run(async () => await room.evictParts(parts, bytes)))
  }

  async makeRoom (bytes: number, what: string, options?: { newBytes?: number }): Promise<void> {
    await this.#run(async ({ core, room }) => { await core.structure.run(async () => { await room.make(bytes, what, options) }) })
  }

  async holdRoom (part: FilePart, what: string): Promise<() => void> {
    return await this.#run(async ({ core, room }) => await core.structure.run(async () => await room.hold(part, what)))
  }

  async reusePart (part: FilePart, options: AbortOptions = {}): Promise<void> {
    await this.#run(async ({ models }) => { await models.reusePart(part, { signal: this.#eitherSignal(options) }) })
  }

  async removeModel (cid: string, options?: { onlyCached?: boolean }): Promise<RemoveResult> {
    return await this.#run(async ({ room }) => await room.remove(cid, options))
  }

  async gc (options: { dryRun?: boolean } = {}): Promise<GcResult> {
    return await this.#run(async ({ room }) => await room.gc(options.dryRun ?? false))
  }

  async verify (cid: string | undefined, options?: AbortOptions & ProgressOptions<VerifyProgress>): Promise<VerifyResult> {
    const signal = this.#eitherSignal(options)
    return await this.#run(async ({ core, blocks, places, models }) => {
      const files = cid === undefined ? core.registry.files.values() : core.registry.models.get(cid)?.distinct ?? []
      await places.takeBack(files, signal) // what is not there is found out, and told, by reading it
      const result = await verifyHeld(core, blocks, cid, { ...options, signal })
      for (const model of core.registry.models.values()) if (cid === undefined || model.cid === cid) await models.linkAgain(model, { all: true })
      return result
    })
  }

  async verifyRange (file: StoredFile, first: number, count: number, options?: AbortOptions): Promise<RangeVerifyResult> {
    return await this.#run(async ({ core, blocks }) => await verifyRange(core, blocks, file, { first, count, signal: this.#eitherSignal(options) }))
  }

  #eitherSignal (options: AbortOptions | undefined): AbortSignal {
    return options?.signal === undefined ? this.#stopping.signal : AbortSignal.any([this.#stopping.signal, options.signal])
  }

  startAdd (): RunningAdd { return this.#running.room.adds.start() }

  async importFile (size: number, options?: { add?: RunningAdd }): Promise<FileImport>
  async importFile (size: number, options: ImportOptions): Promise<FileImport | undefined>
  async importFile (size: number, options: ImportOptions = {}): Promise<FileImport | undefined> {
    return await this.#run(async ({ imports }) => await imports.importFile(size, options))
  }

  async cloneFile (path: string, size: number, options: ImportOptions & { isGiven?: boolean } = {}): Promise<(FileImport & { path: string }) | undefined> {
    return await this.#run(async ({ imports }) => await imports.cloneFile(path, size, options))
  }

  async heldFile (key: string, add?: RunningAdd): Promise<StoredFile | undefined> {
    return await this.#run(async ({ imports }) => await imports.heldFile(key, add))
  }

  mayHold (size: number): boolean { return this.#running.imports.mayHold(size) }

  async referenceFile (index: Encoded<FileIndex>, guard: FileGuard, add?: RunningAdd): Promise<{ file: StoredFile, newBytes: number }> {
    return await this.#run(async ({ imports }) => await imports.referenceFile(index, guard, add))
  }

  metadata (cid: CID): Uint8Array | undefined {
    return lookUp(cid, () => this.#parts?.core.catalog.metadata(cid.toString()))
  }

  hasMetadata (cid: CID): boolean {
    return lookUp(cid, () => this.#parts?.core.catalog.hasMetadata(cid.toString())) === true
  }

  findBlock (cid: CID, outside?: ReadonlySet<StoredFile>): BlockLocation | undefined {
    return lookUp(cid, () => this.#parts?.blocks.find(cid, outside))
  }

  async readBlock (location: BlockLocation, slot: Slot): Promise<boolean> {
    return await this.#run(async ({ blocks }) => await blocks.read(location, slot))
  }

  async readRange (file: StoredFile, offset: number, length: number, into?: Uint8Array): Promise<Uint8Array> {
    return await this.#run(async ({ blocks }) => await blocks.readRange(file, offset, length, into))
  }

  async writeBlock (file: StoredFile, block: number, slot: Slot): Promise<void> {
    await this.#run(async ({ blocks }) => { await blocks.write(file, block, slot) })
  }

  async flush (): Promise<void> {
    await this.#run(async ({ core, blocks }) => {
      await blocks.flush()
      await core.staleFlags.save()
    })
  }

  async #run<T> (operation: (parts: Parts) => Promise<T>): Promise<T> {
    const parts = this.#running
    return await this.#gate.run(async () => await operation(parts))
  }
}

function lookUp<T> (cid: CID, query: () => T): T {
  try {
    return query()
  } catch (error) {
    throw diskError(error, `cannot look up ${cid.toString()} in the catalog`)
  }
}

function stopped (): NodeStoppedError {
  return new NodeStoppedError('the store is not open')
}
