import type { CID } from 'multiformats/cid'
import { DiskError, STORE_DIRTY_FILES_MAX, UsageError, asError, systemCode, type Clock } from '../base/index.ts'
import { RAW, verifyBytes } from '../model/index.ts'
import { LINKS_AT_ONCE, inParallel } from './concurrency.ts'
import { recordOf, type Core } from './core.ts'
import { diskError } from './disk-errors.ts'
import { evictParts } from './evict.ts'
import { GuardBrokenError, readGuarded } from './in-place.ts'
import { Losses, type LostPlace } from './losses.ts'
import { blockAt, sizeOfBlocks, type FileRecord } from './records.ts'
import type { Slot } from './slots.ts'
import type { BlockLocation, FilePart, StoredFile } from './store.ts'
import { SyncBatch } from './sync-batch.ts'

/** A block in place is taken when no copy of our own is found in so many looks: thousands of files in place may share their header. */
const LOOKS_FOR_OWN_MAX = 64

/** `generation` says what it was written to, should the file have been made anew or failed to sync meanwhile. */
interface Written { file: FileRecord, block: number, generation: number }
type Location = BlockLocation & { readonly file: FileRecord }
/** `unsynced`: what was written and waits to be synced is lost too; `place`: of a file in place. */
interface Lost { blocks: number[] | 'all', reason: string, unsynced?: boolean, place?: LostPlace }

/**
 * Blocks in and out. Owns what is recorded about a file, and the order of effects:
 * write -> sync -> catalog -> links of a complete file -> `present` -> event; and back when a block is withdrawn
 * (losses.ts) or evicted (evict.ts).
 */
export class Blocks {
  readonly #core: Core
  readonly #batch: SyncBatch<Written>
  readonly #losses: Losses

  constructor (core: Core, settings: { clock: Clock, syncBytes: number, syncIntervalMs: number }) {
    this.#core = core
    this.#batch = new SyncBatch({
      clock: settings.clock,
      bytesMax: settings.syncBytes,
      intervalMs: settings.syncIntervalMs,
      keysMax: STORE_DIRTY_FILES_MAX,
      keyOf: item => item.file,
      run: async items => { await this.#record(items) }
    })
    this.#losses = new Losses(core, async file => { await this.linkComplete(file) })
  }

  find (cid: CID, outside?: ReadonlySet<StoredFile>): Location | undefined {
    return this.look(cid, outside).found
  }

  /** The same; `looks` is how many of its places that took, and so how long. */
  look (cid: CID, outside?: ReadonlySet<StoredFile>): { found: Location | undefined, looks: number } {
    let looks = 1
    if (cid.code !== RAW) return { found: undefined, looks }
    let found: Location | undefined
    this.#core.catalog.locate(cid.multihash.bytes, ({ file: id, block, offset, size }) => {
      if (++looks > LOOKS_FOR_OWN_MAX && found !== undefined) return 'enough'
      const file = this.#core.registry.fileById(id)
      if (file === undefined || file.present.count === 0 || outside?.has(file) === true) return 'next file'
      if (file.inPlace && found !== undefined) return 'next file' // a copy of our own is surer
      if (!file.present.has(block)) return 'more'
      found = { file, block, offset, size }
      return file.inPlace ? 'next file' : 'enough'
    })
    return { found, looks }
  }

  async read (location: BlockLocation, slot: Slot): Promise<boolean> {
    return await this.tryRead(location, slot) === undefined
  }

  /** Like `read`: undefined when the slot holds the block, else why the block is not here any more. */
  async tryRead (location: BlockLocation, slot: Slot): Promise<string | undefined> {
    const file = this.#core.registry.files.get(location.file.key)
    const { block, offset, size } = location
    if (file === undefined || !file.present.has(block)) return 'it is not here'
    const { generation } = file
    const into = slot.prepare(offset, size)
    let lost: Lost | undefined
    try {
      lost = await this.#fill(file, block, offset, into)
    } catch (error) {
      if (file.removed || file.generation === generation) throw error
    }
    // Removed and put again, or made anew, while it was read: what was read may be the new file, which is empty.
    if (file.removed || !file.present.has(block)) return 'it is not here any more'
    if (file.generation !== generation) return await this.tryRead(location, slot) // it is elsewhere now
    if (lost === undefined) return undefined
    if (lost.place === undefined) await this.#lose(file, lost)
    else if (await this.losePlace(lost.place)) return await this.tryRead(location, slot)
    return lost.reason
  }

  /** What is lost, and why; undefined when `into` holds the bytes. */
  async #fill (file: FileRecord, block: number, offset: number, into: Uint8Array): Promise<Lost | undefined> {
    const { guard } = file
    try {
      if (guard === undefined) {
        return await this.#core.bytes.read(file, offset, into) === into.length ? undefined : await this.#cutOff(file, block)
      }
      await readGuarded(this.#core.bytes.handles, guard, offset, into)
      const cid = file.index.blocks.at(block)
      if (cid === undefined || !verifyBytes(cid, into)) throw new GuardBrokenError(`${guard.path} holds other bytes than when it was added`)
      return undefined
    } catch (error) {
      if (error instanceof GuardBrokenError && guard !== undefined) return { blocks: 'all', reason: error.message, place: { file, place: guard, error } }
      if (guard === undefined && systemCode(error) === 'ENOENT') return await this.#fillAgain(file, block, offset, into) ? undefined : { blocks: 'all', reason: 'the file is gone' }
      throw diskError(error, `cannot read block ${block} of ${file.path ?? file.key}`)
    }
  }

  /** Of a file that is gone, but for the names that models have for it: one right block says that they are the file. The next start hashes the rest. */
  async #fillAgain (file: FileRecord, block: number, offset: number, into: Uint8Array): Promise<boolean> {
    const { bytes, catalog, logger } = this.#core
    try {
      await bytes.checkPlace()
      const cid = file.index.blocks.at(block)
      if (!await bytes.recover(file) || await bytes.read(file, offset, into) < into.length || cid === undefined || !verifyBytes(cid, into)) return false
      logger.warn({ file: file.key }, 'a file was gone, and has its name again, by its link in a model')
      catalog.setPresence([{ id: file.id, key: file.key, present: file.recorded.bytes, presentBytes: file.presentBytes, rescan: 0 }], { durable: false })
      return true
    } catch (error) {
      throw diskError(error, `cannot find out what has become of ${file.path ?? file.key}`)
    }
  }

  /**
   * A file that ends within a block ends before all later ones too. All go: were one of them fetched again, the file would be
   * long again, and the rest of them zeros.
   */
  async #cutOff (file: FileRecord, found: number): Promise<Lost> {
    const endsAt = await this.#core.bytes.sizeOf(file) ?? 0
    const { index, offsets } = file.details
    const isCut = (block: number): boolean => block === found || (offsets[block] ?? 0) + (index.sizes[block] ?? 0) > endsAt
    return { blocks: [...file.present].filter(isCut), unsynced: [...file.unsynced].some(isCut), reason: `the file ends after ${endsAt} of ${file.size} bytes` }
  }

  async #lose (file: FileRecord, { blocks, unsynced, reason }: Lost): Promise<void> {
    if (unsynced === true) this.#dropUnsynced(file)
    await this.withdraw(file, blocks, reason)
  }

  async readRange (stored: StoredFile, offset: number, length: number, into: Uint8Array = new Uint8Array(length)): Promise<Uint8Array> {
    const file = recordOf(this.#core, stored)
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0 || offset + length > file.size) {
      throw new UsageError(`${length} bytes at ${offset} are not within the ${file.size} bytes of ${file.key}`)
    }
    if (into.length !== length) throw new UsageError(`${length} bytes do not fit the ${into.length} they are read into`)
    if (length === 0) return into
    const { offsets, generation, guard } = file
    for (let block = blockAt(offsets, offset); block < offsets.length && (offsets[block] ?? 0) < offset + length; block++) {
      if (!file.present.has(block)) throw new DiskError(`block ${block} of ${file.key}, which holds bytes ${offset} to ${offset + length}, is not here`)
    }
    try {
      if (guard !== undefined) {
        await readGuarded(this.#core.bytes.handles, guard, offset, into)
      } else if (await this.#core.bytes.read(file, offset, into) < length) {
        const lost = await this.#cutOff(file, blockAt(offsets, offset + length - 1))
        if (!file.removed && file.generation === generation) await this.#lose(file, lost)
        throw new DiskError(`${file.path ?? file.key} ends before ${offset + length}; what it lost is withdrawn, load it again`)
      }
    } catch (error) {
      if (file.removed || file.generation === generation) {
        const isElsewhere = error instanceof GuardBrokenError && guard !== undefined && await this.losePlace({ file, place: guard, error })
        if (!isElsewhere) throw diskError(error, `cannot read ${file.path ?? file.key}`)
      }
    }
    if (file.removed) throw new DiskError(`${file.key} was removed while it was read`)
    if (file.generation !== generation) return await this.readRange(file, offset, length, into) // withdrawn, or elsewhere now
    return into
  }

  async write (stored: StoredFile, block: number, slot: Slot): Promise<void> {
    const file = recordOf(this.#core, stored)
    if (file.present.has(block) || file.unsynced.has(block)) return
    let writing = file.writing.get(block)
    if (writing === undefined) {
      writing = this.#write(file, block, slot).finally(() => { file.writing.delete(block) })
      file.writing.set(block, writing)
    }
    await writing
  }

  async #write (file: FileRecord, block: number, slot: Slot): Promise<void> {
    const { index, offsets } = file.details
    const size = index.sizes[block]
    const offset = offsets[block]
    if (size === undefined || offset === undefined) throw new RangeError(`${file.key} has ${index.sizes.length} blocks and no block ${block}`)
    if (slot.bytes.length !== size) throw new RangeError(`block ${block} of ${file.key} has ${size} bytes, the slot holds ${slot.bytes.length}`)
    const { bytes, volume } = this.#core
    volume.check()
    await this.#batch.room()
    await file.remaking
    if (file.present.has(block)) return // the file came in whole meanwhile
    const { generation } = file
    try {
      await bytes.write(file, offset, slot)
    } catch (error) {
      const failed = diskError(error, `cannot write block ${block} of ${file.path ?? file.key}`)
      volume.note(failed)
      throw failed
    }
    if (file.removed) return
    if (file.generation !== generation) throw new DiskError(`${file.key} was made anew, or failed to sync, while block ${block} was written; fetch it again`)
    file.unsynced.add(block)
    this.#batch.add({ file, block, generation }, size)
  }

  async flush (): Promise<void> {
    await this.#losses.redo()
    await this.#batch.flush()
  }

  /** One batch: from written to recorded. What fails on the way was never recorded, and is told as lost. */
  async #record (items: Written[]): Promise<void> {
    const byFile = new Map<FileRecord, number[]>()
    const generations = new Map<FileRecord, number>()
    const stale = (file: FileRecord, generation = generations.get(file)): boolean => file.removed || file.generation !== generation
    for (const { file, block, generation } of items) {
      if (stale(file, generation)) continue
      generations.set(file, generation)
      const blocks = byFile.get(file)
      if (blocks === undefined) byFile.set(file, [block])
      else blocks.push(block)
    }
    const { bytes, catalog, volume, events, recording } = this.#core
    try {
      await bytes.sync(byFile.keys())
    } catch (error) {
      // The system tells of a failed write-back once: all that waits may have been part of it, not this batch alone.
      for (const file of byFile.keys()) if (!stale(file)) this.#dropUnsynced(file)
      const failed = diskError(error, 'cannot make written blocks durable')
      volume.note(failed)
      throw failed
    }
    try {
      await recording.run(async () => {
        for (const file of byFile.keys()) if (stale(file)) byFile.delete(file)
        for (const [file, blocks] of byFile) for (const block of blocks) file.recorded.set(block)
        try {
          catalog.setPresence(Array.from(byFile, ([file, blocks]) => ({ id: file.id, key: file.key, present: file.recorded.bytes, presentBytes: file.presentBytes + sizeOfBlocks(file, blocks) })), { durable: false })
        } catch (error) {
          for (const [file, blocks] of byFile) for (const block of blocks) file.recorded.set(block, false)
          throw error
        }
        await inParallel(LINKS_AT_ONCE, [...byFile], async ([file, blocks]) => { await this.present(file, blocks) })
      })
    } catch (error) {
      const failed = diskError(error, 'cannot record written blocks')
      for (const [file, blocks] of byFile) {
        for (const block of blocks) file.unsynced.delete(block)
        if (!file.removed) events.emit('blocks:lost', { file, blocks })
      }
      volume.note(failed)
      throw failed
    }
  }

  /** What was written and waits to be synced does not count any more, nor what is being written now. */
  #dropUnsynced (file: FileRecord): void {
    const blocks = [...file.unsynced]
    file.generation++
    file.unsynced.clear()
    this.#core.events.emit('blocks:lost', { file, blocks })
  }

  /**
   * Shows recorded blocks to the world, after a file that they complete has been linked into place. The caller holds
   * `recording`.
   */
  async present (file: FileRecord, blocks: number[]): Promise<void> {
    const { events } = this.#core
    const { generation } = file
    const complete = file.recorded.full
    if (complete) await this.linkComplete(file)
    if (file.generation !== generation) return // it was made anew: these blocks are told as lost
    // A block may have been withdrawn while the links were made.
    const shown = blocks.filter(block => file.recorded.has(block) && file.present.set(block))
    file.presentBytes += sizeOfBlocks(file, shown)
    for (const block of blocks) file.unsynced.delete(block)
    if (file.removed) return
    if (shown.length > 0) events.emit('blocks:present', { file, blocks: shown })
    if (complete && file.present.full) events.emit('file:complete', { file })
  }

  /** Links a complete file into its models. A model that cannot be linked has no directory, and the rest goes on. */
  async linkComplete (file: FileRecord): Promise<void> {
    if (file.inPlace) return
    for (const model of file.models) {
      try {
        await this.#core.bytes.complete(file, [model])
      } catch (error) {
        model.linksFailed = true
        this.#core.logger.error({ model: model.cid, file: file.key, error: asError(error).message }, 'cannot link a complete file into its model')
      }
    }
  }

  /** Shows all blocks of a file that came in whole, and is in the catalog as such. */
  presentAll (file: FileRecord): void {
    const shown: number[] = []
    for (let block = 0; block < file.present.length; block++) {
      file.recorded.set(block)
      if (file.present.set(block)) shown.push(block)
    }
    file.presentBytes = file.size
    if (shown.length > 0) this.#core.events.emit('blocks:present', { file, blocks: shown })
    this.#core.events.emit('file:complete', { file })
  }

  async withdraw (file: FileRecord, blocks: number[] | 'all', reason: string): Promise<void> { await this.#losses.withdraw(file, blocks, reason) }

  async losePlace (lost: LostPlace): Promise<boolean> { return await this.#losses.losePlace(lost) }
  async withdrawPlaces (lost: readonly LostPlace[]): Promise<void> { await this.#losses.withdrawPlaces(lost) }
  async savePlaces (files: readonly FileRecord[]): Promise<void> { await this.#losses.savePlaces(files) }

  async evict (file: FileRecord, parts: readonly FilePart[]): Promise<number> { return await evictParts(this.#core, file, parts) }
}
