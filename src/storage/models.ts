import { Bitfield, HashMismatchError, ModelNotFoundError, SourceChangedError, nextTurn, throwIfAborted, type AbortOptions } from '../base/index.ts'
import { checkModel, cidKey, verifyBytes, type Encoded, type FileIndex, type Model } from '../model/index.ts'
import type { Blocks } from './blocks.ts'
import { LINKS_AT_ONCE, inParallel } from './concurrency.ts'
import { LOOKUPS_PER_TURN, sweepCatalog, withWorkPair, type Core } from './core.ts'
import { diskError } from './disk-errors.ts'
import { FileRecord, ModelRecord, offsetsOf } from './records.ts'
import type { Room } from './room.ts'
import type { FilePart, PutModelOptions } from './store.ts'

/** Files put into the catalog in one go: some milliseconds. */
const FILES_PER_TURN = 100
/** Links that are looked at when a model is opened: some milliseconds. Verify looks at all. */
const LINKS_LOOKED_AT = 200
/** Blocks remembered not to be here, some 100 bytes each. */
const MISSED_MAX = 100_000

/** Models on their way in, and what may change about them. */
export class Models {
  readonly #core: Core
  readonly #room: Room
  readonly #blocks: Blocks

  constructor (core: Core, room: Room, blocks: Blocks) {
    this.#core = core
    this.#room = room
    this.#blocks = blocks
  }

  async put (content: Model, options: PutModelOptions): Promise<ModelRecord> {
    const cid = content.manifest.cid.toString()
    return await this.#change(cid, options, async () => {
      const known = this.#core.registry.models.get(cid)
      return known === undefined ? await this.#register(content, options) : await this.#again(known, options)
    })
  }

  /** Of one that is here: what it is made of need not be said again, which takes its time of thousands of files. */
  async want (cid: string, options: PutModelOptions): Promise<ModelRecord> {
    return await this.#change(cid, options, async () => await this.#again(this.#model(cid), options))
  }

  async #change (cid: string, options: PutModelOptions, work: () => Promise<ModelRecord>): Promise<ModelRecord> {
    throwIfAborted(options.signal)
    const letGo = this.#core.registry.hold(cid)
    try {
      const model = await this.#core.structure.run(async () => {
        throwIfAborted(options.signal)
        return await work()
      })
      this.#room.adds.named(model.files.map(({ key }) => key))
      await this.#reuse(model, options)
      return model
    } finally {
      letGo()
    }
  }

  async setPinned (cid: string, pinned: boolean): Promise<void> {
    await this.#core.structure.run(async () => {
      const model = this.#model(cid)
      if (model.pinned !== pinned) await this.#setFlags(model, { pinned, published: model.published })
    })
  }

  /** What it is for is the order of eviction: a disk too full to note it is no reason to refuse the model to its reader. */
  touch (cid: string): void {
    const model = this.#model(cid)
    model.usedAt = this.#core.clock.now()
    try {
      this.#core.catalog.touchModel(cid, model.usedAt)
    } catch (error) {
      const failed = diskError(error, `cannot record the use of ${cid}`)
      this.#core.volume.note(failed)
      this.#core.logger.warn({ cid, error: failed.message }, 'a use could not be recorded')
    }
  }

  #model (cid: string): ModelRecord {
    const model = this.#core.registry.models.get(cid)
    if (model === undefined) throw new ModelNotFoundError(`this node does not hold the model ${cid}; see what it holds with: shoal ls`)
    return model
  }

  async #setFlags (model: ModelRecord, flags: { pinned: boolean, published: boolean }): Promise<void> {
    const { catalog, bytes, logger } = this.#core
    const before = { pinned: model.pinned, published: model.published }
    Object.assign(model, flags)
    try {
      catalog.updateModel(model.cid, flags)
      await bytes.saveFlags(model)
    } catch (error) {
      Object.assign(model, before)
      try {
        catalog.updateModel(model.cid, before) // or what failed would be true after a restart
      } catch (again) {
        logger.error({ cid: model.cid, error: diskError(again, 'cannot record').message }, 'a change that failed may take effect at the next start')
      }
      throw diskError(error, `cannot record the state of ${model.cid}`)
    }
  }

  /** It is here already: what is new is what it is wanted for. */
  async #again (model: ModelRecord, options: PutModelOptions): Promise<ModelRecord> {
    const wanted = wantedFiles(model.files, options.wanted)
    const promised = this.#core.registry.expectedFiles()
    const missing = [...wanted].filter(file => !promised.has(file))
    if (options.whole === true) checkWhole(model.cid, model.files)
    await this.#room.makeFor(() => missing.reduce((sum, file) => sum + this.#room.lackingOf(file), 0), `the model ${model.cid}`)
    for (const file of wanted) model.expected.add(file)
    if (options.published === true && !model.published) await this.#setFlags(model, { pinned: model.pinned, published: true })
    if (model.linksFailed) {
      model.linksFailed = false
      await this.#linkComplete(model)
    }
    this.touch(model.cid)
    return model
  }

  /** Everything that makes it a model of this store, in an order that leaves nothing but leftovers when it is cut short. */
  async #register (content: Model, options: PutModelOptions): Promise<ModelRecord> {
    const { bytes, catalog, registry, clock } = this.#core
    const cid = content.manifest.cid.toString()
    checkBelongsTogether(content)
    await checkModel(content.manifest.value, content.indexes.map(({ value }) => value))

    const keys = content.indexes.map(index => index.cid.toString())
    if (options.whole === true) checkWhole(cid, keys.map(key => registry.files.get(key)))
    const wanted = new Set(wantedFiles(keys, options.wanted))
    const distinct = new Map(content.indexes.map((index, position) => [keys[position] ?? '', index]))
    const promised = registry.expectedFiles()
    const lacking = (): number => {
      let bytes = 0
      for (const [key, index] of distinct) {
        const file = registry.files.get(key)
        if (wanted.has(key) && !(file !== undefined && promised.has(file))) bytes += file === undefined ? index.value.size : this.#room.lackingOf(file)
      }
      return bytes
    }
    await this.#room.makeFor(lacking, `the model ${cid}`, new Set(keys))

    await this.#room.deletions.without([cid, ...distinct.keys()])
    const made: FileRecord[] = []
    let model: ModelRecord | undefined
    try {
      const lacking = [...distinct].filter(([key]) => !registry.files.has(key))
      for (const few of turnsOf(lacking)) {
        throwIfAborted(options.signal)
        made.push(...await this.#newFiles(few))
        await nextTurn()
      }
      await inParallel(LINKS_AT_ONCE, made, async file => { await bytes.create(file) })
      if (made.length > 0) await bytes.syncNames()
      const now = clock.now()
      model = new ModelRecord({
        cid,
        manifest: content.manifest,
        files: keys.map(key => registry.files.get(key)).filter(file => file !== undefined),
        pinned: false,
        published: options.published ?? false,
        addedAt: now,
        usedAt: now,
        ownDirectory: bytes.directoryOf(cid)
      })
      await bytes.saveModel(model, content)
      if (options.whole === true) checkWhole(cid, model.files) // one in place may have been withdrawn meanwhile
      catalog.addModel(content.manifest, model)
      registry.addModel(model)
      for (const file of model.distinct) if (wanted.has(file.key)) model.expected.add(file)
      await this.#linkComplete(model)
      return model
    } catch (error) {
      await this.#undo(made, model)
      const failed = diskError(error, `cannot register the model ${cid}`)
      this.#core.volume.note(failed)
      throw failed
    }
  }

  async #newFiles (files: Array<[string, Encoded<FileIndex>]>): Promise<FileRecord[]> {
    const { bytes, catalog, details, registry } = this.#core
    const rows = files.map(([, index]) => {
      const present = new Bitfield(index.value.blocks.length).bytes
      return { file: { index, present, presentBytes: 0, rescan: undefined, guard: undefined }, offsets: offsetsOf(index.value.sizes) }
    })
    const ids = await catalog.addFiles(rows)
    return files.map(([key, { value }], at) => {
      const offsets = rows[at]?.offsets ?? offsetsOf(value.sizes)
      details.keep(key, { index: value, offsets })
      const recorded = new Bitfield(value.blocks.length)
      const file = new FileRecord({ id: ids[at] ?? 0, key, size: value.size, recorded, presentBytes: 0, guard: undefined, ownPath: bytes.pathOf(key), details })
      registry.addFile(file)
      return file
    })
  }

  async #undo (made: FileRecord[], model: ModelRecord | undefined): Promise<void> {
    const { bytes, catalog, registry, logger } = this.#core
    try {
      for (const file of made) {
        file.pin()
        registry.removeFile(file)
        await bytes.remove(file)
      }
      if (model !== undefined) await bytes.removeModel(model)
      catalog.remove([], made)
      await sweepCatalog(this.#core)
    } catch (error) {
      logger.warn({ error: diskError(error, 'cannot clean up').message }, 'a model that could not be registered left files behind, until the next gc')
    }
  }

  /** The user may have removed or replaced what is no more than names, a file or all: who asks for the model is told of it. `all`: however many files it has. */
  async linkAgain (model: ModelRecord, { all = false }: { all?: boolean } = {}): Promise<void> {
    const { bytes, registry, structure, logger } = this.#core
    if (model.directory === undefined || !model.complete) return
    const files = [...model.distinct].slice(0, all ? undefined : LINKS_LOOKED_AT)
    if (await bytes.hasLinks(model, files).catch(() => true)) return // cannot be looked at: it is told by whoever uses it
    logger.warn({ model: model.cid, directory: model.directory }, 'what stands there is not what the model has; its files are linked again')
    await structure.run(async () => { if (registry.models.get(model.cid) === model) await this.#linkComplete(model) })
  }

  async #linkComplete (model: ModelRecord): Promise<void> {
    await inParallel(LINKS_AT_ONCE, [...model.distinct].filter(file => file.present.full), async file => { await this.#blocks.linkComplete(file) })
  }

  /** Copies blocks that are here in other files, or elsewhere in the same one. Verified like any that come in. */
  async #reuse (model: ModelRecord, options: PutModelOptions): Promise<void> {
    await this.#reuseParts([...wantedFiles(model.files, options.wanted)].map(file => ({ file, first: 0, count: file.present.length })), options)
  }

  /** The same for a part of a file. */
  async reusePart ({ file: { key }, first, count }: FilePart, options: AbortOptions): Promise<void> {
    const file = this.#core.registry.files.get(key)
    if (file !== undefined) await this.#reuseParts([{ file, first, count }], options)
  }

  async #reuseParts (parts: ReadonlyArray<{ file: FileRecord, first: number, count: number }>, { signal }: AbortOptions): Promise<void> {
    let looked = 0
    let copied = 0
    // A file may be the same block many times over, and thousands of files may share one: what was not found once is not looked for again.
    const missed = new Set<string>()
    if (this.#core.registry.heldBytes() === 0 && ![...this.#core.registry.files.values()].some(file => file.inPlace)) return
    for (const { file, first, count } of parts) {
      if (file.present.full) continue
      const { blocks } = file.index
      for (let block = first; block < first + count; block++) {
        const blockCid = blocks.at(block)
        if (blockCid === undefined || file.present.has(block) || missed.has(cidKey(blockCid))) continue
        if (looked >= LOOKUPS_PER_TURN) {
          looked = 0
          await nextTurn()
        }
        throwIfAborted(signal)
        const { found: from, looks } = this.#blocks.look(blockCid)
        looked += looks
        if (from === undefined) {
          if (missed.size >= MISSED_MAX) missed.clear()
          missed.add(cidKey(blockCid))
        } else if (await this.copy(from.file, from.block, file, block)) copied++
      }
    }
    if (copied > 0) await this.#blocks.flush()
  }

  /** Says whether it was there to copy. Written, not yet recorded. */
  async copy (source: FileRecord, sourceBlock: number, target: FileRecord, targetBlock: number): Promise<boolean> {
    const cid = target.index.blocks.at(targetBlock)
    const size = target.index.sizes[targetBlock]
    const offset = source.offsets[sourceBlock]
    const targetOffset = target.offsets[targetBlock]
    if (cid === undefined || size === undefined || offset === undefined || targetOffset === undefined) return false
    // An index from outside may give the block another size. That says nothing about the copy that is here.
    if (source.index.sizes[sourceBlock] !== size) return false
    return await withWorkPair(this.#core, async (from, to) => {
      if (!await this.#blocks.read({ file: source, block: sourceBlock, offset, size }, from)) return false
      if (!verifyBytes(cid, from.bytes)) {
        await this.#blocks.withdraw(source, [sourceBlock], `it does not hash to ${cid.toString()} any more`)
        return false
      }
      to.prepare(targetOffset, size).set(from.bytes)
      await this.#blocks.write(target, targetBlock, to)
      return true
    })
  }
}

/** In parts of FILES_PER_TURN files, or LOOKUPS_PER_TURN blocks of them. */
function * turnsOf (files: Array<[string, Encoded<FileIndex>]>): Generator<Array<[string, Encoded<FileIndex>]>> {
  let few: typeof files = []
  let blocks = 0
  for (const file of files) {
    few.push(file)
    blocks += file[1].value.blocks.length
    if (few.length < FILES_PER_TURN && blocks < LOOKUPS_PER_TURN) continue
    yield few
    few = []
    blocks = 0
  }
  if (few.length > 0) yield few
}

function wantedFiles<T> (files: readonly T[], wanted: readonly number[] | undefined): Set<T> {
  if (wanted === undefined) return new Set(files)
  return new Set(wanted.map(position => {
    const file = files[position]
    if (file === undefined) throw new RangeError(`the model has ${files.length} files and no file ${position}`)
    return file
  }))
}

function checkWhole (cid: string, files: ReadonlyArray<FileRecord | undefined>): void {
  if (!files.every(file => file?.present.full === true)) throw new SourceChangedError(`parts of the model ${cid} were lost while it was added; add it again`)
}

/** The caller verified each part against its CID; this is about whether the indexes are the manifest's. */
function checkBelongsTogether ({ manifest, indexes }: Model): void {
  for (const [position, { index }] of manifest.value.files.entries()) {
    const given = indexes[position]
    if (given === undefined || !given.cid.equals(index)) {
      throw new HashMismatchError(`file index ${position} of the model ${manifest.cid.toString()} is ${given?.cid.toString() ?? 'missing'}, not ${index.toString()}`)
    }
  }
}
