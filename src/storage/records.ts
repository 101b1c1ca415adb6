import { Bitfield, DECODED_BLOCKS_MAX } from '../base/index.ts'
import type { Encoded, FileIndex, Manifest } from '../model/types.ts'
import type { FileGuard, FilePart, StoredFile, StoredModel } from './store.ts'

export interface FileDetails { index: FileIndex, offsets: Float64Array }

/** Where each block starts. */
export function offsetsOf (sizes: readonly number[]): Float64Array {
  const offsets = new Float64Array(sizes.length)
  let offset = 0
  for (const [block, size] of sizes.entries()) {
    offsets[block] = offset
    offset += size
  }
  return offsets
}

/** The block that holds the byte at `offset`, for `offsetsOf` a file. */
export function blockAt (offsets: Float64Array, offset: number): number {
  let low = 0
  let high = offsets.length - 1
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if ((offsets[middle] ?? 0) <= offset) low = middle
    else high = middle - 1
  }
  return low
}

/**
 * Decoded file indexes. One of 250,000 blocks takes 13 MB with its offsets, so only a bounded number of blocks stays decoded
 * for sure; a record that someone holds on to keeps its own as long as it is in use.
 */
export class DetailsCache {
  readonly #load: (key: string) => FileDetails
  readonly #kept = new Map<string, FileDetails>()
  #blocks = 0

  constructor (load: (key: string) => FileDetails) {
    this.#load = load
  }

  load (key: string): FileDetails {
    const kept = this.#kept.get(key)
    if (kept !== undefined) return kept
    const details = this.#load(key)
    this.keep(key, details)
    return details
  }

  keep (key: string, details: FileDetails): void {
    if (this.#kept.has(key)) return
    this.#kept.set(key, details)
    this.#blocks += details.index.blocks.length + 1
    for (const [oldest, { index }] of this.#kept) {
      if (this.#blocks <= DECODED_BLOCKS_MAX || oldest === key) break
      this.#kept.delete(oldest)
      this.#blocks -= index.blocks.length + 1
    }
  }
}

export interface FileRecordInit {
  id: number
  key: string
  size: number
  /** What the catalog has recorded; the record owns it from now on. */
  recorded: Bitfield
  presentBytes: number
  guard: FileGuard | undefined
  /** Other places of it, known from before. */
  others?: readonly FileGuard[]
  ownPath: string | undefined
  details: DetailsCache
}

/** The store's side of a StoredFile. Everything mutable here is changed by the store only, see blocks.ts. */
export class FileRecord implements StoredFile {
  /** The catalog's number for it; never used again. */
  readonly id: number
  readonly key: string
  readonly size: number
  readonly present: Bitfield
  /** What the catalog says; `present` follows when the files stand where they belong. */
  readonly recorded: Bitfield
  presentBytes: number
  /** The place that is read, when it is in place. */
  guard: FileGuard | undefined
  /** All places where the user has it, or had it. When none of them is read, and nothing of it is here, it is away. */
  known: readonly FileGuard[]
  /** Those of them that were not there when they were last looked at. */
  readonly missing = new Set<FileGuard>()
  readonly ownPath: string | undefined
  /** The models that name it. */
  readonly models = new Set<ModelRecord>()
  /** Blocks being written now, and blocks written but not yet recorded. */
  readonly writing = new Map<number, Promise<void>>()
  readonly unsynced = new Set<number>()
  removed = false
  /** Its own file is known to be closed against writing. */
  closed = false
  /** Counts how often the file was made anew; what was written to an older one does not count. */
  generation = 0
  /** Pending while it is made anew; never rejects. */
  remaking: Promise<void> | undefined
  readonly #cache: DetailsCache
  #pinned: FileDetails | undefined
  #details: WeakRef<FileDetails> | undefined

  constructor (init: FileRecordInit) {
    this.id = init.id
    this.key = init.key
    this.size = init.size
    this.recorded = init.recorded
    this.present = init.recorded.clone()
    this.presentBytes = init.presentBytes
    this.guard = init.guard
    this.known = [...init.guard === undefined ? [] : [init.guard], ...init.others ?? []]
    this.ownPath = init.ownPath
    this.#cache = init.details
  }

  get index (): FileIndex { return this.details.index }
  get offsets (): Float64Array { return this.details.offsets }
  get path (): string | undefined { return this.guard?.path ?? this.ownPath }
  get inPlace (): boolean { return this.guard !== undefined }
  /** What is recorded of it when all of it is here. */
  get whole (): { present: Uint8Array, presentBytes: number } { return { present: Bitfield.full(this.present.length).bytes, presentBytes: this.size } }
  get places (): readonly FileGuard[] { return this.guard === undefined ? [] : this.known.filter(place => !this.missing.has(place)) }
  get away (): string | undefined { return this.guard === undefined && this.present.count === 0 && !this.present.full ? this.known[0]?.path : undefined }
  get missingBytes (): number { return this.size - this.presentBytes }

  /** `guard` is one of `known`, or undefined. */
  setPlaces (guard: FileGuard | undefined, known: readonly FileGuard[]): void {
    this.guard = guard
    this.known = known
    for (const place of this.missing) if (place === guard || !known.includes(place)) this.missing.delete(place)
  }

  get details (): FileDetails {
    let details = this.#pinned ?? this.#details?.deref()
    if (details === undefined) {
      details = this.#cache.load(this.key)
      this.#details = new WeakRef(details)
    }
    return details
  }

  /** Keeps the index for good: the catalog is about to forget it, and others may still hold this record. */
  pin (): void {
    this.#pinned = this.details
  }
}

export function sizeOfBlocks (file: FileRecord, blocks: number[]): number {
  if (blocks.length === 0) return 0
  if (blocks.length === file.present.length) return file.size
  const { sizes } = file.index
  return blocks.reduce((sum, block) => sum + (sizes[block] ?? 0), 0)
}

export interface ModelRecordInit {
  cid: string
  manifest: Encoded<Manifest>
  files: FileRecord[]
  pinned: boolean
  published: boolean
  addedAt: number
  usedAt: number
  ownDirectory: string | undefined
}

/** The store's side of a StoredModel. */
export class ModelRecord implements StoredModel {
  readonly cid: string
  readonly manifest: Encoded<Manifest>
  readonly files: readonly FileRecord[]
  /** Each file once, however many paths it has. */
  readonly distinct: ReadonlySet<FileRecord>
  readonly bytes: number
  readonly addedAt: number
  readonly ownDirectory: string | undefined
  pinned: boolean
  published: boolean
  usedAt: number
  /** The files someone means to fetch: room is kept for them until nobody holds the model any more. */
  readonly expected = new Set<FileRecord>()
  /** Some link could not be made: there is no directory to tell of. */
  linksFailed = false
  #paths: Map<FileRecord, string[]> | undefined

  constructor (init: ModelRecordInit) {
    this.cid = init.cid
    this.manifest = init.manifest
    this.files = init.files
    this.distinct = new Set(init.files)
    this.bytes = init.files.reduce((sum, file) => sum + file.size, 0)
    this.addedAt = init.addedAt
    this.ownDirectory = init.ownDirectory
    this.pinned = init.pinned
    this.published = init.published
    this.usedAt = init.usedAt
  }

  get presentBytes (): number { return this.files.reduce((sum, file) => sum + file.presentBytes, 0) }
  get complete (): boolean { return this.files.every(file => file.present.full) }

  get directory (): string | undefined {
    return this.linksFailed || this.files.some(file => file.inPlace || file.away !== undefined) ? undefined : this.ownDirectory
  }

  /** The paths under which this model has the file. */
  pathsOf (file: FileRecord): readonly string[] {
    return (this.#paths ??= this.#allPaths()).get(file) ?? []
  }

  #allPaths (): Map<FileRecord, string[]> {
    const paths = new Map<FileRecord, string[]>()
    for (const [position, { path }] of this.manifest.value.files.entries()) {
      const file = this.files[position]
      const known = file === undefined ? undefined : paths.get(file)
      if (known !== undefined) known.push(path)
      else if (file !== undefined) paths.set(file, [path])
    }
    return paths
  }
}

/** What this store knows, by name. Plain bookkeeping; who changes it also writes the catalog. */
export class Registry {
  readonly files = new Map<string, FileRecord>()
  readonly models = new Map<string, ModelRecord>()
  readonly #byId = new Map<number, FileRecord>()
  readonly #bySize = new Map<number, Set<FileRecord>>()
  readonly #holds = new Map<string, number>()
  readonly #kept = new Set<string>()
  readonly #spare = new Map<string, readonly FilePart[]>()

  fileById (id: number): FileRecord | undefined { return this.#byId.get(id) }

  /** All files of that size. */
  filesOf (size: number): Iterable<FileRecord> { return this.#bySize.get(size) ?? [] }

  addFile (file: FileRecord): void {
    this.files.set(file.key, file)
    this.#byId.set(file.id, file)
    const sameSize = this.#bySize.get(file.size)
    if (sameSize === undefined) this.#bySize.set(file.size, new Set([file]))
    else sameSize.add(file)
  }

  removeFile (file: FileRecord): void {
    file.removed = true
    this.files.delete(file.key)
    this.#byId.delete(file.id)
    const sameSize = this.#bySize.get(file.size)
    sameSize?.delete(file)
    if (sameSize?.size === 0) this.#bySize.delete(file.size)
  }

  addModel (model: ModelRecord): void {
    this.models.set(model.cid, model)
    for (const file of model.distinct) file.models.add(model)
  }

  removeModel (model: ModelRecord): void {
    this.models.delete(model.cid)
    for (const file of model.distinct) file.models.delete(model)
  }

  /**
   * Counts by name, so that a model can be held before it is here. Who lets go last lets go of the room, too: others may take
   * it, so whoever comes back has to ask for it again.
   */
  hold (cid: string): () => void {
    this.#holds.set(cid, (this.#holds.get(cid) ?? 0) + 1)
    let held = true
    return () => {
      if (!held) return
      held = false
      const left = (this.#holds.get(cid) ?? 1) - 1
      if (left > 0) {
        this.#holds.set(cid, left)
        return
      }
      this.#holds.delete(cid)
      this.models.get(cid)?.expected.clear()
    }
  }

  isHeld (cid: string): boolean { return this.#holds.has(cid) }

  /** By name too: a promise may come before its model does. */
  keep (cid: string, keep: boolean): void {
    if (keep) this.#kept.add(cid)
    else this.#kept.delete(cid)
  }

  isKept (cid: string): boolean { return this.#kept.has(cid) }

  setSpare (cid: string, parts: readonly FilePart[]): void {
    if (parts.length === 0) this.#spare.delete(cid)
    else this.#spare.set(cid, parts)
  }

  spareParts (): FilePart[] { return [...this.#spare.values()].flat() }

  /** Every model that has the file can do without this part of it, now. */
  maySpare (file: FileRecord, { first, count }: FilePart): boolean {
    if (file.inPlace || file.removed || file.models.size === 0) return false
    for (const model of file.models) {
      if (model.pinned || model.published || this.isHeld(model.cid)) return false
      const spare = this.#spare.get(model.cid)?.some(part => part.file === file && part.first <= first && part.first + part.count >= first + count)
      if (spare !== true) return false
    }
    return true
  }

  /** Bytes of recorded blocks that lie in files of the store. */
  heldBytes (): number {
    let sum = 0
    for (const file of this.files.values()) if (!file.inPlace) sum += file.presentBytes
    return sum
  }

  /** Files that running loads are going to fetch the rest of: room is kept for each of them once. */
  expectedFiles (): Set<FileRecord> {
    const files = new Set<FileRecord>()
    for (const cid of this.#holds.keys()) {
      for (const file of this.models.get(cid)?.expected ?? []) files.add(file)
    }
    return files
  }

  /** Bytes that running loads are still going to write. */
  expectedBytes (): number {
    let sum = 0
    for (const file of this.expectedFiles()) if (!file.inPlace) sum += file.missingBytes
    return sum
  }
}
