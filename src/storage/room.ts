import { ModelInUseError, ModelNotFoundError, OutOfSpaceError, QuotaExceededError, asError, throwIfAborted, type ShoalError } from '../base/index.ts'
import type { Blocks } from './blocks.ts'
import { sweepCatalog, type Core } from './core.ts'
import { Deletions, deleteAll } from './deletions.ts'
import { diskError } from './disk-errors.ts'
import { leaving, planEviction, type Keys } from './eviction.ts'
import { sizeOfBlocks, type FileRecord, type ModelRecord } from './records.ts'
import { RunningAdds, type RunningAdd } from './running-adds.ts'
import type { FilePart, GcResult, RemoveResult } from './store.ts'

const NONE: Keys = new Set()

/** A file that is to come in: how large, and with which add. */
export interface Incoming { size: number, add: RunningAdd | undefined }
type Adds = ReadonlyArray<RunningAdd | undefined>
export interface OpenImport extends Incoming { written: number }

/** Room on the volume and within the quota: who has reserved how much, and who has to go. */
export class Room {
  readonly #core: Core
  readonly #blocks: Blocks
  readonly #imports = new Set<OpenImport>()
  /** Blocks on their way in for which room is held, by file, and how often. */
  readonly #parts = new Map<FileRecord, Map<number, number>>()
  readonly adds: RunningAdds
  readonly deletions: Deletions

  constructor (core: Core, blocks: Blocks) {
    this.#core = core
    this.#blocks = blocks
    this.adds = new RunningAdds(core.clock)
    this.deletions = new Deletions(core)
  }

  /** Bytes that are held, and that are promised to who writes now. */
  #usedBytes (): number {
    const { registry } = this.#core
    let imports = 0
    for (const { size } of this.#imports) imports += size
    return registry.heldBytes() + registry.expectedBytes() + this.#partBytes() + imports
  }

  /** Bytes that are promised and not yet on the disk. */
  #owedBytes (): number {
    let owed = this.#core.registry.expectedBytes() + this.#partBytes()
    for (const { size, written } of this.#imports) owed += size - written
    return owed
  }

  /**
   * Makes room for `bytes` more, of which the volume still lacks `newBytes`, by removing leftovers and evicting. Throws QuotaExceededError
   * or OutOfSpaceError before anything was evicted in vain. The caller holds `structure`.
   */
  async make (bytes: number, what: string, { keep = NONE, newBytes = bytes, adds }: { keep?: Keys, newBytes?: number, adds?: Adds } = {}): Promise<void> {
    if (await this.fits(bytes, { newBytes, adds })) return
    // Parts first: nobody asked for them, and they were not promised. All that can go together has to be enough.
    const before = worst(await this.#lacking(bytes, newBytes))
    const spare = this.#spareParts(this.#kept(keep))
    const spareBytes = spare.reduce((sum, part) => sum + presentIn(part), 0)
    if (spareBytes > 0 && spareBytes + this.#plan(before, this.#kept(keep)).freedBytes >= before) await this.evictParts(spare, before)
    // From here to the plan nothing waits: others go on writing, holding and letting go.
    const lacking = await this.#lacking(bytes, newBytes)
    if (worst(lacking) <= 0) return
    const plan = this.#plan(worst(lacking), this.#kept(keep))
    if (plan.freedBytes < worst(lacking)) {
      if (adds !== undefined) { // something may lie about that did not when it was looked for
        await this.make(bytes, what, { keep, newBytes })
        return
      }
      throw this.#refusal({ bytes, newBytes }, what, lacking, plan.freedBytes)
    }
    await (await this.#drop(plan.models, keep)).deleted
  }

  /** The same for what is `lacking`, which may become more while room is made: somebody lets go of a part for which it was held. */
  async makeFor (lacking: () => number, what: string, keep: Keys = NONE): Promise<void> {
    for (let made = -1, bytes = lacking(); bytes > made; bytes = lacking()) {
      await this.make(bytes, what, { keep })
      made = bytes
    }
  }

  /** Bytes that are missing of a file for which no room is kept as a whole: without those for which it is held. */
  lackingOf (file: FileRecord): number {
    return file.missingBytes - this.#heldFor(file)
  }

  #heldFor (file: FileRecord): number {
    const blocks = this.#parts.get(file)
    return blocks === undefined || file.removed || file.inPlace ? 0 : sizeOfBlocks(file, [...blocks.keys()].filter(block => !file.present.has(block)))
  }

  /** Whether there is room for `bytes` more without evicting anything; removes leftovers for it. The caller holds `structure`. */
  async fits (bytes: number, { newBytes = bytes, adds }: { newBytes?: number, adds?: Adds | undefined } = {}): Promise<boolean> {
    if (bytes === 0) return true
    this.#core.volume.check()
    if (worst(await this.#lacking(bytes, newBytes)) <= 0) return true
    if (await this.deletions.settled() && worst(await this.#lacking(bytes, newBytes)) <= 0) return true
    // Once for each add: of thousands of small files each few would have all directories read again.
    if (adds?.every(add => add?.hasTidied === true) === true) return false
    await this.#removeLeftovers(false)
    for (const add of adds ?? []) if (add !== undefined) add.hasTidied = true
    return worst(await this.#lacking(bytes, newBytes)) <= 0
  }

  /** The caller holds `structure`. */
  async evictParts (parts: readonly FilePart[], bytes: number): Promise<number> {
    const { registry, logger, stopping } = this.#core
    let freed = 0
    for (let at = 0; at < parts.length && freed < bytes;) {
      // Those of one file together: what stays of it is copied once.
      const chosen = new Map<FileRecord, FilePart[]>()
      for (let sum = freed; at < parts.length && sum < bytes; at++) {
        const part = parts[at]
        const file = part === undefined ? undefined : registry.files.get(part.file.key)
        if (part === undefined || file === undefined || file !== part.file || !registry.maySpare(file, part)) continue
        sum += presentIn(part)
        const several = chosen.get(file)
        if (several === undefined) chosen.set(file, [part])
        else several.push(part)
      }
      for (const [file, several] of chosen) {
        try {
          freed += await this.#blocks.evict(file, several)
        } catch (error) {
          throwIfAborted(stopping)
          logger.warn({ file: file.key, error: diskError(error, 'cannot evict').message }, 'parts of a file could not be evicted')
        }
      }
    }
    return freed
  }

  /** Of kept models: of the others all may go at once. */
  #spareParts (keep: Keys): FilePart[] {
    const { registry } = this.#core
    return registry.spareParts().filter(part => {
      const file = registry.files.get(part.file.key)
      return file !== undefined && file === part.file && !keep.has(file.key) && [...file.models].some(({ cid }) => registry.isKept(cid)) && registry.maySpare(file, part)
    })
  }

  /** Makes room for what is missing of a part, and keeps it until it is let go of. The caller holds `structure`. Throws as `make` does. */
  async hold ({ file: { key }, first, count }: FilePart, what: string): Promise<() => void> {
    const file = this.#core.registry.files.get(key)
    if (file === undefined) throw new ModelNotFoundError(`${what} is not here any more; load it again`)
    const held = this.#parts.get(file) ?? new Map<number, number>()
    const missing: number[] = []
    for (let block = first; block < first + count; block++) if (!file.present.has(block)) missing.push(block)
    const isExpected = this.#core.registry.expectedFiles().has(file)
    await this.make(isExpected ? 0 : sizeOfBlocks(file, missing.filter(block => !held.has(block))), what)
    const parts = this.#parts.get(file) ?? held
    this.#parts.set(file, parts)
    for (const block of missing) parts.set(block, (parts.get(block) ?? 0) + 1)
    let isHeld = true
    return () => {
      if (!isHeld) return
      isHeld = false
      for (const block of missing) {
        const times = parts.get(block) ?? 0
        if (times > 1) parts.set(block, times - 1)
        else parts.delete(block)
      }
      if (parts.size === 0 && this.#parts.get(file) === parts) this.#parts.delete(file)
    }
  }

  /** Room that is held for blocks which have not come yet. */
  #partBytes (): number {
    if (this.#parts.size === 0) return 0
    const expected = this.#core.registry.expectedFiles()
    let sum = 0
    for (const file of this.#parts.keys()) if (!expected.has(file)) sum += this.#heldFor(file)
    return sum
  }

  /** Reserves room for files on their way in, or `isHere` already; undefined where it would have to `evict` and may not. The caller holds `structure`. */
  async startImports (files: readonly Incoming[], { evict, isHere = false }: { evict: boolean, isHere?: boolean }): Promise<Array<OpenImport | undefined>> {
    const bytes = files.reduce((sum, { size }) => sum + size, 0)
    const newBytes = isHere ? 0 : bytes
    const adds = files.map(({ add }) => add)
    if (evict) await this.make(bytes, files.length === 1 ? 'a file to be added' : `${files.length} files to be added`, { newBytes, adds })
    else if (!await this.fits(bytes, { newBytes, adds })) return files.map(() => undefined)
    return files.map(file => {
      const reserved = { ...file, written: 0 }
      this.#imports.add(reserved)
      return reserved
    })
  }

  endImport (reserved: OpenImport, file?: FileRecord): void {
    this.#imports.delete(reserved)
    if (file !== undefined) this.adds.cameIn(file.key, reserved.add)
  }

  /** Files that stay when the models that name them go, by key. */
  #kept (keep: Keys = NONE): Keys {
    return { has: key => keep.has(key) || this.adds.has(key) }
  }

  async remove (cid: string, { onlyCached = false }: { onlyCached?: boolean } = {}): Promise<RemoveResult> {
    const { results: [result], deleted } = await this.#core.structure.run(async () => {
      const model = this.#core.registry.models.get(cid)
      if (model === undefined) throw new ModelNotFoundError(`this node does not hold the model ${cid}; see what it holds with: shoal ls`)
      return await this.#drop([model], NONE, onlyCached ? 'cached' : 'any')
    })
    await deleted
    if (result === undefined) throw new ModelInUseError(`${cid} is being loaded or read; stop that first, then remove it`)
    return result
  }

  async gc (dryRun: boolean): Promise<GcResult> {
    const { leftoverBytes, removed, deleted } = await this.#core.structure.run(async () => {
      const leftoverBytes = await this.#removeLeftovers(dryRun)
      const { quota } = this.#core.settings
      const over = quota === undefined ? 0 : this.#usedBytes() - quota
      const plan = over > 0 ? this.#plan(over, this.#kept()) : { models: [], freedBytes: 0 }
      if (dryRun) return { leftoverBytes, removed: leaving(plan.models, this.#kept()).results, deleted: undefined }
      const { results, deleted } = await this.#drop(plan.models)
      return { leftoverBytes, removed: results, deleted }
    })
    await deleted
    return { removed, freedBytes: removed.reduce((sum, { freedBytes }) => sum + freedBytes, 0), leftoverBytes }
  }

  /**
   * Removes models and the files that only they name: record first, then names, then bytes. Should there be no room to
   * record it, the bytes go first: the next start finds files missing and believes the disk. A model that somebody
   * holds by now stays, and unless it may be any one that is kept (when evicting), pinned or published by now. Says which went, and when
   * their bytes are `deleted`. The caller holds `structure`, and need not while these go.
   */
  async #drop (chosen: ModelRecord[], stay: Keys = NONE, which: 'evictable' | 'cached' | 'any' = 'evictable'): Promise<{ results: RemoveResult[], deleted: Promise<void> | undefined }> {
    if (chosen.length === 0) return { results: [], deleted: undefined }
    const { events, registry, recording } = this.#core
    const { models, files, results } = await recording.run(async () => {
      const models = chosen.filter(({ cid, pinned, published }) => !registry.isHeld(cid) && (which === 'any' || !registry.isKept(cid)) && (which === 'any' || !(pinned || published)))
      const { files, results } = leaving(models, this.#kept(stay))
      if (models.length > 0) await this.#forget(models, files)
      return { models, files, results }
    })
    const deleted = this.deletions.start(models, files)
    for (const { cid } of models) events.emit('model:removed', { cid })
    if (files.length > 0) await sweepCatalog(this.#core)
    return { results, deleted }
  }

  async #forget (models: ModelRecord[], files: FileRecord[]): Promise<void> {
    const { catalog, registry } = this.#core
    for (const file of files) file.pin()
    const record = (): void => { catalog.remove(models.map(({ cid }) => cid), files) }
    try {
      record()
    } catch (error) {
      const failed = diskError(error, 'cannot record that models were removed')
      if (!(failed instanceof OutOfSpaceError)) throw failed
      await deleteAll(this.#core, models, files.filter(({ inPlace }) => !inPlace))
      try { record() } catch (again) { throw diskError(again, 'cannot record that models were removed') }
    }
    for (const model of models) registry.removeModel(model)
    for (const file of files) registry.removeFile(file)
  }

  /** Files no model names, and what lies about on the disk. */
  async #removeLeftovers (dryRun: boolean): Promise<number> {
    const { registry, bytes, catalog, logger } = this.#core
    const unnamed = [...registry.files.values()].filter(file => file.models.size === 0 && !this.adds.has(file.key))
    let freed = unnamed.reduce((sum, file) => sum + (file.inPlace ? 0 : file.presentBytes), 0)
    try {
      if (!dryRun && unnamed.length > 0) {
        for (const file of unnamed) file.pin()
        catalog.remove([], unnamed)
        for (const file of unnamed) registry.removeFile(file)
        for (const file of unnamed) {
          if (!file.inPlace) await bytes.remove(file).catch(error => { logger.warn({ file: file.key, error: asError(error).message }, 'a file that no model names cannot be deleted') })
        }
      }
      const leftovers = await bytes.leftovers(registry)
      freed += dryRun ? leftovers.bytes : await leftovers.remove()
    } catch (error) {
      throw diskError(error, 'cannot remove leftovers')
    }
    if (!dryRun) await sweepCatalog(this.#core)
    return freed
  }

  #plan (bytes: number, keep: Keys): { models: ModelRecord[], freedBytes: number } {
    const { registry } = this.#core
    return planEviction({ models: registry.models.values(), isHeld: cid => registry.isHeld(cid), isKept: cid => registry.isKept(cid), keep }, bytes)
  }

  /** Where nothing comes to the volume it lacks nothing, however full it is. */
  async #lacking (bytes: number, newBytes: number): Promise<Lacking> {
    const space = await this.#core.bytes.space().catch(error => { throw diskError(error, 'cannot find out how much space is free') })
    const { quota } = this.#core.settings
    return {
      quota: quota === undefined ? 0 : this.#usedBytes() + bytes - quota,
      volume: space === undefined || newBytes === 0 ? 0 : this.#owedBytes() + newBytes + space.reserveBytes - space.freeBytes,
      space
    }
  }

  #refusal ({ bytes, newBytes }: { bytes: number, newBytes: number }, what: string, lacking: Lacking, evictable: number): ShoalError {
    if (lacking.quota > evictable) {
      return new QuotaExceededError(`${what} needs ${bytes} bytes; ${this.#usedBytes()} of the quota of ${this.#core.settings.quota ?? 0} are used and only ${evictable} can be evicted. ` +
        'Remove or unpin models, or raise storage.quota')
    }
    const { freeBytes, reserveBytes } = lacking.space ?? { freeBytes: 0, reserveBytes: 0 }
    return new OutOfSpaceError(`${what} needs ${newBytes} bytes on disk; ${freeBytes} are free, ${reserveBytes} of them kept in reserve and ` +
      `${this.#owedBytes()} promised to others, and only ${evictable} can be evicted. Free some space or remove models`)
  }
}

function presentIn ({ file, first, count }: FilePart): number {
  let bytes = 0
  for (let block = first; block < first + count; block++) if (file.present.has(block)) bytes += file.index.sizes[block] ?? 0
  return bytes
}

/** How many bytes too few there are, by what says so; none when negative. */
interface Lacking { quota: number, volume: number, space: { freeBytes: number, reserveBytes: number } | undefined }

function worst ({ quota, volume }: Lacking): number {
  return Math.max(quota, volume)
}
