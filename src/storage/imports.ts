import { Bitfield, SourceChangedError, UsageError, asError, nextTurn } from '../base/index.ts'
import { verifyBytes, type Encoded, type FileIndex } from '../model/index.ts'
import type { Blocks } from './blocks.ts'
import { SMALL_FILE_BYTES_MAX, type ImportTarget } from './byte-store.ts'
import { Grouped, LINKS_AT_ONCE, inParallel } from './concurrency.ts'
import { LOOKUPS_PER_TURN, withWorkSlot, type Core } from './core.ts'
import { diskError } from './disk-errors.ts'
import { GuardBrokenError, checkGuard, placesWith, readGuarded, sameGuard } from './in-place.ts'
import type { FoundPlace, Places } from './places.ts'
import { FileRecord, offsetsOf } from './records.ts'
import type { Incoming, OpenImport as Reservation, Room } from './room.ts'
import type { RunningAdd } from './running-adds.ts'
import type { Slot } from './slots.ts'
import type { FileGuard, FileImport, ImportOptions, StoredFile } from './store.ts'

type Committed = { file: StoredFile, newBytes: number }
/** A file that was written, on its way into the catalog. */
interface Ready { key: string, index: Encoded<FileIndex>, target: ImportTarget, reserved: Reservation }
/** A user's file that is to be held where it is. */
interface Placed { key: string, index: Encoded<FileIndex>, guard: FileGuard, add: RunningAdd | undefined }
/** Reads bytes of what comes in; says how many there were. */
type ReadIn = (offset: number, into: Uint8Array) => Promise<number>

/** Files made durable and recorded in one go: while it lasts nobody else's blocks are recorded. */
const FILES_PER_GROUP = 64

/**
 * Whole files on their way in: copied, cloned or referenced in place. Files that come together share what costs most: the
 * look at the free space, the syncs (the file system joins those that run at once), the sync of the directory and the
 * transaction. When a file comes a second time, a copy the store
 * holds wins over one in place: the user may change or delete theirs.
 */
export class Imports {
  readonly #core: Core
  readonly #room: Room
  readonly #blocks: Blocks
  readonly #places: Places
  readonly #starting = this.#starts({ evict: true })
  readonly #startingFree = this.#starts({ evict: false })

  readonly #committing = new Grouped<Ready, FileRecord | undefined>(FILES_PER_GROUP, async files => await this.#commitAll(files))

  readonly #referencing = new Grouped<Placed, FileRecord>(FILES_PER_GROUP, async files => {
    return await this.#core.structure.run(async () => await this.#core.recording.run(async () => await this.#placeAll(files)))
  })

  constructor (core: Core, { room, blocks, places }: { room: Room, blocks: Blocks, places: Places }) {
    this.#core = core
    this.#room = room
    this.#blocks = blocks
    this.#places = places
  }

  #starts (options: { evict: boolean }): Grouped<Incoming, Reservation | undefined> {
    return new Grouped(FILES_PER_GROUP, async files => await this.#core.structure.run(async () => await this.#room.startImports(files, options)))
  }

  async importFile (size: number, { evict = true, add }: ImportOptions): Promise<FileImport | undefined> {
    const reserved = await (evict ? this.#starting : this.#startingFree).add({ size, add })
    if (reserved === undefined) return undefined
    try {
      return new OpenImport(this, reserved, size, await this.#core.bytes.startImport(size, true), false)
    } catch (error) {
      this.#room.endImport(reserved)
      throw this.noted(error, 'cannot start to add a file')
    }
  }

  async cloneFile (path: string, size: number, { evict = true, isGiven = false, add }: ImportOptions & { isGiven?: boolean }): Promise<(FileImport & { path: string }) | undefined> {
    return await this.#core.structure.run(async () => {
      // A clone shares its blocks with the source, but for how long is the source's owner's business: it counts in full.
      const [reserved] = await this.#room.startImports([{ size, add }], { evict, isHere: isGiven })
      if (reserved === undefined) return undefined
      let clone: (FileImport & { path: string }) | undefined
      try {
        const target = await this.#core.bytes.clone(path, size, { isGiven })
        if (target?.path !== undefined) clone = Object.assign(new OpenImport(this, reserved, size, target, true), { path: target.path })
        return clone
      } catch (error) {
        throw this.noted(error, `cannot clone ${path}`)
      } finally {
        if (clone === undefined) this.#room.endImport(reserved)
      }
    })
  }

  /** A whole file of our own, for who is adding it: it stays until the model that names it is here. */
  async heldFile (key: string, add?: RunningAdd): Promise<StoredFile | undefined> {
    return await this.#core.structure.run(async () => {
      const held = this.#core.registry.files.get(key)
      if (held === undefined || !isWholeOwn(held)) return undefined
      this.#room.adds.cameIn(key, add)
      return held
    })
  }

  mayHold (size: number): boolean {
    for (const file of this.#core.registry.filesOf(size)) if (isWholeOwn(file)) return true
    return false
  }

  async referenceFile (index: Encoded<FileIndex>, guard: FileGuard, add?: RunningAdd): Promise<Committed> {
    if (guard.size !== index.value.size) throw new SourceChangedError(`${guard.path} has ${guard.size} bytes and its index ${index.value.size}; add it again`)
    const key = index.cid.toString()
    const { held, newBytes } = await this.#referring(guard, async () => {
      await this.#core.bytes.handles.forget(guard.path) // what is open may be an earlier file of that path
      await checkGuard(guard)
      const newBytes = await this.#newBytes(index)
      return { held: await this.#referencing.add({ key, index, guard, add }), newBytes }
    })
    if (held.inPlace || held.present.full) return { file: held, newBytes }
    const reserved = await this.#starting.add({ size: held.missingBytes, add }) // it is a copy of our own, and takes room like one
    if (reserved === undefined) throw new TypeError('room for which others may go is made or refused')
    try {
      await this.#referring(guard, async () => {
        await this.#fill(held, index, async (offset, into) => {
          await readGuarded(this.#core.bytes.handles, guard, offset, into)
          return into.length
        })
      })
    } finally {
      this.#room.endImport(reserved)
    }
    return { file: held, newBytes }
  }

  async #referring<T> (guard: FileGuard, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (error instanceof GuardBrokenError) throw new SourceChangedError(`${error.message}; add it again when nobody writes to it`, { cause: error })
      throw this.noted(error, `cannot reference ${guard.path}`)
    }
  }

  /** The caller holds `structure` and `recording`. Says for each which file it became. */
  async #placeAll (files: Placed[]): Promise<FileRecord[]> {
    const { registry, catalog, bytes, staleFlags } = this.#core
    await this.#room.deletions.without(files.map(({ key }) => key))
    const unknown = new Map(files.filter(({ key }) => !registry.files.has(key)).map(file => [file.key, file]))
    for (const file of await this.#add([...unknown.values()])) this.#blocks.presentAll(file)
    const known = files.map(({ key }) => {
      const file = registry.files.get(key)
      if (file === undefined) throw new TypeError('a file that was recorded is not there')
      return file
    })
    for (const { key, add } of files) this.#room.adds.cameIn(key, add)
    const stands = new Map<FileGuard, boolean>()
    for (const { guard } of known) if (guard !== undefined && !stands.has(guard)) stands.set(guard, await isThere(guard))
    // From here on nothing waits until all is decided: a read may withdraw any of them meanwhile.
    const moved = new Map<FileRecord, Pick<FileRecord, 'guard' | 'known'>>()
    const free: FoundPlace[] = []
    for (const [at, { guard }] of files.entries()) {
      const file = known[at]
      if (file === undefined) continue
      if (file.guard === undefined) free.push({ file, place: guard }) // taken if nothing of it is here: a copy of our own wins
      else if (!file.places.some(place => sameGuard(place, guard))) moved.set(file, this.#oneMore(moved.get(file) ?? file, { place: guard, models: file.models.size }, stands))
    }
    if (moved.size > 0) catalog.setPlaces(Array.from(moved, ([{ id, key, whole }, places]) => ({ id, key, ...whole, ...places })))
    const left: FileGuard[] = []
    for (const [file, { guard, known: places }] of moved) {
      if (file.guard !== undefined && file.guard !== guard) {
        left.push(file.guard)
        file.generation++ // it lies elsewhere now: a read that began before says nothing about it
      }
      file.setPlaces(guard, places)
      staleFlags.mark(file.models)
    }
    await this.#places.take(free)
    for (const { path } of left) await bytes.handles.forget(path)
    return known
  }

  /** A place that is read stays the one that is read as long as it is there: whoever added it goes on. */
  #oneMore ({ guard, known }: Pick<FileRecord, 'guard' | 'known'>, { place, models }: { place: FileGuard, models: number }, stands: ReadonlyMap<FileGuard, boolean>): Pick<FileRecord, 'guard' | 'known'> {
    const stays = guard !== undefined && guard.path !== place.path && stands.get(guard) !== false
    const others = placesWith(place, known, models)
    return stays ? { guard, known: [guard, ...others.filter(other => other !== guard)] } : { guard: place, known: others }
  }

  async commit (index: Encoded<FileIndex>, target: ImportTarget, reserved: Reservation): Promise<Committed> {
    const key = index.cid.toString()
    try {
      // Small ones are synced together with others; a large one would keep them waiting.
      if (index.value.size > SMALL_FILE_BYTES_MAX) await target.sync()
      for (;;) {
        const newBytes = await this.#newBytes(index)
        const adopted = await this.#committing.add({ key, index, target, reserved })
        if (adopted !== undefined) return { file: adopted, newBytes }
        const held = this.#core.registry.files.get(key)
        if (held === undefined) continue // it was removed a moment ago
        try {
          await this.#fill(held, index, async (offset, into) => await target.read(offset, into))
        } catch (error) {
          if (!held.removed) throw error
        }
        if (held.removed) continue
        this.#room.adds.cameIn(key, reserved.add)
        await this.abort(target, reserved)
        return { file: held, newBytes }
      }
    } catch (error) {
      throw this.noted(error, 'cannot finish adding a file')
    }
  }

  async abort (target: ImportTarget, reserved: Reservation): Promise<void> {
    this.#room.endImport(reserved)
    await target.discard().catch(error => {
      this.#core.logger.warn({ path: target.path, error: asError(error).message }, 'an abandoned import stays behind until the next gc')
    })
  }

  async write (target: ImportTarget, offset: number, slot: Slot): Promise<void> {
    this.#core.volume.check()
    try {
      await target.write(offset, slot)
    } catch (error) {
      throw this.noted(error, `cannot write ${slot.bytes.length} bytes of a file to be added`)
    }
  }

  noted (error: unknown, what: string): Error {
    const failed = diskError(error, what)
    this.#core.volume.note(failed)
    return failed
  }

  /** Says for each which file it became; undefined when the store holds one of its own. */
  async #commitAll (files: Ready[]): Promise<Array<FileRecord | undefined>> {
    await inParallel(LINKS_AT_ONCE, files.filter(({ index }) => index.value.size <= SMALL_FILE_BYTES_MAX), async ({ target }) => { await target.sync() })
    return await this.#core.structure.run(async () => {
      const adopted = await this.#core.recording.run(async () => await this.#adoptAll(files))
      // Before anyone can take it for a leftover.
      for (const [at, { reserved }] of files.entries()) if (adopted[at] !== undefined) this.#room.endImport(reserved, adopted[at])
      return adopted
    })
  }

  /**
   * Makes the imports the files. The caller holds `structure` and `recording`: nothing else is made of a file until it
   * stands. One in place may be withdrawn meanwhile; it has a new generation then, which tells whoever waits to make it
   * anew that a copy came instead.
   */
  async #adoptAll (files: Ready[]): Promise<Array<FileRecord | undefined>> {
    const { bytes, registry } = this.#core
    const wanted = new Map<string, Ready>()
    for (const file of files) {
      const held = registry.files.get(file.key)
      if (!wanted.has(file.key) && (held === undefined || held.inPlace)) wanted.set(file.key, file)
    }
    await this.#room.deletions.without([...wanted.keys()])
    await bytes.adopt([...wanted.values()])
    const added = await this.#add([...wanted.values()].filter(({ key }) => !registry.files.has(key)).map(({ index }) => ({ index, guard: undefined })))
    for (const file of added) {
      file.closed = true
      this.#blocks.presentAll(file)
    }
    const adopted = new Map(added.map(file => [file.key, file]))
    for (const { key, index } of wanted.values()) {
      const held = adopted.has(key) ? undefined : registry.files.get(key)
      if (held !== undefined) adopted.set(key, await this.#replace(held, index))
    }
    return files.map(file => wanted.get(file.key) === file ? adopted.get(file.key) : undefined)
  }

  /** A copy came instead of one in place. */
  async #replace (held: FileRecord, index: Encoded<FileIndex>): Promise<FileRecord> {
    const { bytes, catalog, staleFlags } = this.#core
    catalog.setPlaces([{ id: held.id, key: held.key, ...held.whole, guard: undefined, known: [] }])
    const blocks = Array.from(index.value.blocks, (_, block) => block)
    for (const block of blocks) held.recorded.set(block)
    const before = held.guard
    held.setPlaces(undefined, [])
    held.generation++ // it lies elsewhere now: a read that began before says nothing about it
    if (before !== undefined) await bytes.handles.forget(before.path)
    staleFlags.mark(held.models)
    await this.#blocks.present(held, blocks)
    return held
  }

  /** Records whole files, all or none. */
  async #add (files: Array<{ index: Encoded<FileIndex>, guard: FileGuard | undefined }>): Promise<FileRecord[]> {
    const { catalog, registry, bytes, details } = this.#core
    const rows = files.map(({ index, guard }) => ({
      file: { index, guard, present: Bitfield.full(index.value.blocks.length).bytes, presentBytes: index.value.size, rescan: undefined },
      offsets: offsetsOf(index.value.sizes)
    }))
    const ids = await catalog.addFiles(rows)
    return rows.map(({ file: { index: { cid, value }, guard }, offsets }, at) => {
      const key = cid.toString()
      details.keep(key, { index: value, offsets })
      const file = new FileRecord({
        id: ids[at] ?? 0,
        key,
        size: value.size,
        recorded: new Bitfield(value.blocks.length), // shown by presentAll
        presentBytes: 0,
        guard,
        ownPath: bytes.pathOf(key),
        details
      })
      registry.addFile(file)
      return file
    })
  }

  /** Writes the blocks a held file lacks, from what comes in. */
  async #fill (held: FileRecord, { value }: Encoded<FileIndex>, readIn: ReadIn): Promise<void> {
    const offsets = offsetsOf(value.sizes)
    for (const [block, cid] of value.blocks.entries()) {
      if (held.present.has(block)) continue
      await withWorkSlot(this.#core, async slot => {
        const into = slot.prepare(offsets[block] ?? 0, value.sizes[block] ?? 0)
        const read = await readIn(offsets[block] ?? 0, into)
        if (read < into.length || !verifyBytes(cid, into)) throw new SourceChangedError(`block ${block} of a file to be added is not what its index says; add it again`)
        if (!held.removed) await this.#blocks.write(held, block, slot)
      })
    }
    await this.#blocks.flush()
  }

  /** Bytes of blocks that no file here has. */
  async #newBytes ({ value }: Encoded<FileIndex>): Promise<number> {
    let bytes = 0
    let looked = 0
    for (const [block, cid] of value.blocks.entries()) {
      const { found, looks } = this.#blocks.look(cid)
      if (found === undefined) bytes += value.sizes[block] ?? 0
      looked += looks
      if (looked < LOOKUPS_PER_TURN) continue
      looked = 0
      await nextTurn()
    }
    return bytes
  }
}

function isWholeOwn (file: FileRecord): boolean {
  return !file.inPlace && file.present.full
}

async function isThere (guard: FileGuard): Promise<boolean> {
  return await checkGuard(guard).then(() => true, () => false)
}

class OpenImport implements FileImport {
  readonly #imports: Imports
  readonly #reserved: Reservation
  readonly #size: number
  readonly #target: ImportTarget
  #state: 'open' | 'committing' | 'ended' = 'open'
  #writing = 0

  /** `whole`: its bytes are there already. */
  constructor (imports: Imports, reserved: Reservation, size: number, target: ImportTarget, whole: boolean) {
    this.#imports = imports
    this.#reserved = reserved
    this.#size = size
    this.#target = target
    if (whole) reserved.written = size
  }

  async write (offset: number, slot: Slot): Promise<void> {
    if (this.#state !== 'open') throw new UsageError('this import has ended; start another one')
    const { length } = slot.bytes
    if (offset < 0 || offset + length > this.#size) throw new RangeError(`${length} bytes at ${offset} are not within an import of ${this.#size}`)
    this.#writing++
    try {
      await this.#imports.write(this.#target, offset, slot)
      this.#reserved.written += length
    } finally {
      this.#writing--
    }
  }

  async commit (index: Encoded<FileIndex>): Promise<Committed> {
    if (this.#state !== 'open' || this.#writing > 0) throw new UsageError('an import is committed once, when its writes are done')
    if (index.value.size !== this.#size || this.#reserved.written !== this.#size) {
      throw new UsageError(`an import of ${this.#size} bytes got ${this.#reserved.written} and an index of ${index.value.size}`)
    }
    this.#state = 'committing'
    try {
      const committed = await this.#imports.commit(index, this.#target, this.#reserved)
      this.#state = 'ended'
      return committed
    } catch (error) {
      this.#state = 'open' // for abort()
      throw error
    }
  }

  async abort (): Promise<void> {
    if (this.#state === 'ended') return
    this.#state = 'ended'
    await this.#imports.abort(this.#target, this.#reserved)
  }
}
