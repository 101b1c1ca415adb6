import type { CID } from 'multiformats/cid'
import type { AbortOptions, Bitfield, Emitter, ProgressOptions } from '../base/index.ts'
import type { Encoded, FileIndex, Manifest, Model } from '../model/types.ts'
import type { RunningAdd } from './running-adds.ts'
import type { Slot, SlotPool } from './slots.ts'

export type { RunningAdd }

/** A file this node knows the index of. Shared by all models that contain the same file. */
export interface StoredFile {
  /** The file index CID, as a string: the key of this file. */
  readonly key: string
  readonly index: FileIndex
  /** `offsets[i]` is where block i starts, in bytes. */
  readonly offsets: Float64Array
  /** The recorded blocks: verified, written and synced. A live view that only the store changes. */
  readonly present: Bitfield
  readonly presentBytes: number
  /** Where the bytes are: files/<key> (sparse while incomplete), or the user's own file when referenced in place. Undefined in memory. */
  readonly path: string | undefined
  readonly inPlace: boolean
  /** What a file in place must still look like to be the one that was added. */
  readonly guard?: FileGuard | undefined
  /** All the user's files that have its content and are referenced, `guard` among them; those that were there when last looked at. */
  readonly places?: readonly FileGuard[]
  /** Where it was in place: it is not there now, nothing of it is here, and it is looked for again. */
  readonly away?: string | undefined
}

/** Blocks `first` to `first + count - 1` of a file. */
export interface FilePart { readonly file: StoredFile, readonly first: number, readonly count: number }

/** A model this node holds, in full or in part. */
export interface StoredModel {
  readonly cid: string
  readonly manifest: Encoded<Manifest>
  /** In manifest order. The same StoredFile may stand twice when two paths have equal content. */
  readonly files: readonly StoredFile[]
  readonly pinned: boolean
  /** True when it was added here, false when it was loaded from the swarm. */
  readonly published: boolean
  /** Bytes of all files. */
  readonly bytes: number
  readonly presentBytes: number
  readonly complete: boolean
  /** Milliseconds since 1970. */
  readonly addedAt: number
  readonly usedAt: number
  /** models/<cid>: its complete files stand here under their paths as hard links. Undefined in memory and for files in place. */
  readonly directory: string | undefined
}

/** Where a recorded block is. */
export interface BlockLocation {
  readonly file: StoredFile
  readonly block: number
  readonly offset: number
  readonly size: number
}

export interface StoreEvents {
  /** Blocks were recorded as present (after their sync). `blocks` are positions in the file's index. */
  'blocks:present': { file: StoredFile, blocks: number[] }
  /** Blocks were found bad or gone and are no longer recorded; or were written and could not be recorded. Fetch them again. */
  'blocks:lost': { file: StoredFile, blocks: number[], /** Given up for room: nothing is wrong with the disk. */ evicted?: boolean, /** Why they were withdrawn. */ reason?: string }
  'file:complete': { file: StoredFile }
  'model:removed': { cid: string }
  /** The volume went read-only after `error`, or writable again. */
  'volume:state': { writable: boolean, error?: Error }
}

export interface StoreStatus {
  /** Bytes of blocks held (a block counts once per file it is in; files in place count zero). */
  heldBytes: number
  quotaBytes: number | undefined
  volumeFreeBytes: number | undefined
  writable: boolean
  /** Why the volume is read-only. */
  error: string | undefined
  slots: { size: number, free: number }
  directIo: boolean
}

/** What a model is put into the store for. */
export interface PutModelOptions extends AbortOptions {
  /** Default false. */
  published?: boolean
  /** Only if all of it is here: throws SourceChangedError, and changes nothing, when something of it was lost meanwhile. Default false. */
  whole?: boolean
  /** Positions in the manifest of the files that will be fetched: room is made for these only. Default all. Call again to widen. */
  wanted?: number[]
}

export interface RemoveResult {
  cid: string
  /** Bytes of blocks that no other model shares. */
  freedBytes: number
}

export interface GcResult {
  removed: RemoveResult[]
  freedBytes: number
  /** Bytes of leftovers (abandoned imports, files no model names) that were removed too. */
  leftoverBytes: number
}

export interface BadBlock {
  model: string
  path: string
  block: number
  cid: string
  reason: string
}

export interface VerifyProgress { bytesDone: number, bytesTotal: number }
/** Blocks that could not be looked at, for a reason that says nothing about them: they stay as they are. `reason`: of the first one. */
export interface Unchecked { blocks: number, reason: string }
/**
 * `blocks` were recorded when it began; `bad` lists all of them that were withdrawn by its end, those of a file that went as a whole too.
 * `unchecked`, which the others leave out: absent when there are none.
 */
export interface VerifyResult { blocks: number, bytes: number, bad: BadBlock[], unchecked?: Unchecked }
/** Blocks that were recorded and are checked; `bad` are positions in the file's index. `unchecked` as in VerifyResult. */
export interface RangeVerifyResult { blocks: number, bytes: number, bad: number[], unchecked?: Unchecked }

/**
 * A file on its way in. Write its blocks in any order, then `commit` with the finished index, or `abort`.
 * The bytes live in a temporary file of the same volume until then.
 */
export interface FileImport {
  /** Writes `slot.bytes` at `offset`. The slot may be released when the promise resolves. */
  write: (offset: number, slot: Slot) => Promise<void>
  /**
   * Makes it durable and names it by its index: after this every block is recorded as present. If the file is here
   * already the import is dropped and the missing blocks of the held one are filled from it.
   * Returns the stored file and how many of its bytes no other file here had.
   */
  commit: (index: Encoded<FileIndex>) => Promise<{ file: StoredFile, newBytes: number }>
  abort: () => Promise<void>
}

/** `evict`: others may go for it, default true. `add`: what it comes in with. */
export interface ImportOptions { evict?: boolean, add?: RunningAdd | undefined }

/** What guards a file that is referenced in place: when any of these changes, its blocks are withdrawn. */
export interface FileGuard { path: string, size: number, mtimeMs: number, ino: number }

/**
 * Blocks and models on this machine. Two implementations: file-backed (storage/file-store.ts) and in memory
 * (storage/memory-store.ts); one compliance suite (test/compliance/store.ts) runs on both.
 *
 * Order of effects: verify (by the caller) -> write -> fdatasync -> record -> event. Removing runs the other way round.
 * Only ENOENT means "not found"; every other system error surfaces as DiskError or OutOfSpaceError.
 */
export interface ModelStore {
  readonly events: Emitter<StoreEvents>
  readonly slots: SlotPool

  /**
   * Opens (creates, or rebuilds the catalog of) the data directory. Throws StoreLockedError, StoreVersionError, DiskError; the reason of
   * `signal` when that fires first: the next start of the directory goes on with what this one was looking through.
   */
  start: (options?: AbortOptions) => Promise<void>
  /** Syncs and records what is written, closes everything. */
  stop: () => Promise<void>
  status: () => Promise<StoreStatus>

  models: () => StoredModel[]
  model: (cid: string) => StoredModel | undefined
  /**
   * Registers a verified model: makes its sparse files, and fills blocks that are here in other files by copying them
   * locally. Idempotent. Makes room first: evicts, then throws QuotaExceededError or OutOfSpaceError.
   */
  putModel: (model: Model, options?: PutModelOptions) => Promise<StoredModel>
  /** putModel once more, of a model that is here, for more files: they are made ready to be fetched. Throws ModelNotFoundError, and as putModel. */
  wantFiles: (cid: string, options: AbortOptions & { wanted: number[] }) => Promise<StoredModel>
  setPinned: (cid: string, pinned: boolean) => Promise<void>
  /**
   * Before somebody is told where a model's files are: looks for files in place that went or came back, and makes the links of complete
   * ones when its directory is gone. Files that cannot be looked at stay as they are.
   */
  settleModel: (cid: string, options?: AbortOptions) => Promise<void>
  /** Marks it as used now (for least-recently-used eviction). A disk that cannot record that is no error. */
  touchModel: (cid: string) => Promise<void>
  /**
   * A model in use is not evicted and its files are not deleted. Call the returned function to let go. Counts by name: hold
   * a model before putModel, and it cannot be evicted between the two. While held, room is kept for its wanted files.
   */
  holdModel: (cid: string) => () => void
  /**
   * While it is kept, by name and until it is not kept any more, a model is never evicted: this node promised others to
   * keep parts of it. A user may still remove it. Not remembered beyond stop().
   */
  keepModel: (cid: string, keep: boolean) => void
  /**
   * Parts of a model that may go although it is kept: nobody was promised them any more, and no user loaded them. Replaces what
   * was said before; an empty list takes it back. They go before any cached model does.
   */
  spareParts: (cid: string, parts: readonly FilePart[]) => void
  /**
   * Evicts as many of these as it takes to free `bytes`, in this order, and says how many bytes that freed. Only what is
   * spare for every model that has the file, and none of a model that is held, pinned or published. A file that loses parts
   * is made anew once, beside the old one: who has that open goes on reading it. Cut short when the store stops.
   */
  evictParts: (parts: readonly FilePart[], bytes: number) => Promise<number>
  /** Evicts until `bytes` more would fit, of which `newBytes` (default all) are not on the volume yet. Throws QuotaExceededError or OutOfSpaceError, having evicted nothing. */
  makeRoom: (bytes: number, what: string, options?: { newBytes?: number }) => Promise<void>
  /** The same for what is missing of a part of a file, and keeps that room for it until it is let go of. */
  holdRoom: (part: FilePart, what: string) => Promise<() => void>
  /** Copies blocks of a part that are here in other files, or elsewhere in the same one, into it, verified like any that come in. */
  reusePart: (part: FilePart, options?: AbortOptions) => Promise<void>
  isHeld: (cid: string) => boolean
  /** Throws ModelNotFoundError, and ModelInUseError while it is held; with `onlyCached` also when it is pinned, published or kept by then. */
  removeModel: (cid: string, options?: { onlyCached?: boolean }) => Promise<RemoveResult>
  /** Evicts least recently used cached models down to the quota, never pinned, published, kept or held ones; removes leftovers. */
  gc: (options?: { dryRun?: boolean }) => Promise<GcResult>
  verify: (cid: string | undefined, options?: AbortOptions & ProgressOptions<VerifyProgress>) => Promise<VerifyResult>

  /** Re-hashes recorded blocks `first` to `first + count - 1` of a file, and withdraws those that are bad or gone. */
  verifyRange: (file: StoredFile, first: number, count: number, options?: AbortOptions) => Promise<RangeVerifyResult>

  /**
   * What is added belongs to no model until all of it is here: what comes in with this one stays until it ends, when the model that names it
   * was put, or never will be. Without one it stays for ten minutes, or until a model names it.
   */
  startAdd: () => RunningAdd
  /**
   * Starts an import of `size` bytes. Makes room first; throws QuotaExceededError, OutOfSpaceError, StoreReadOnlyError, DiskError.
   * With `evict: false` undefined where there is no room without evicting something.
   */
  importFile: ((size: number, options?: { add?: RunningAdd }) => Promise<FileImport>) & ((size: number, options: ImportOptions) => Promise<FileImport | undefined>)
  /**
   * An import whose bytes are there already: a reflinked copy of the file at `path`, which is to have `size` bytes. Hash what lies at the
   * `path` of the result, and commit that; nothing more is written. Undefined where the file system has no reflinks, or the file has
   * another size by then. Room and errors as importFile.
   * `isGiven`: nobody writes to that file any more, and it is the caller's to give. It becomes another name of the same file, which nobody may
   * write to from now on, and takes no more room on the volume; undefined where that cannot be. The caller takes the old name away.
   */
  cloneFile: (path: string, size: number, options?: ImportOptions & { isGiven?: boolean }) => Promise<(FileImport & { path: string }) | undefined>
  /**
   * The file of this key, for who adds it and need not bring its bytes: it stays, as what was committed does.
   * Undefined unless all of it is here, in a file of the store's own.
   */
  heldFile: (key: string, add?: RunningAdd) => Promise<StoredFile | undefined>
  /** False when heldFile would find no file of this size, so that none needs to be hashed to ask for it. */
  mayHold: (size: number) => boolean
  /**
   * Records a user's file as held in place; all its blocks count as present while the guard holds. All or nothing: when
   * it breaks, or one block hashes to something else, that place is forgotten. When it has no other one, all are withdrawn and the
   * file becomes an empty one of our own, to be loaded like any other. A place that is only away (its mount, its name or
   * the right to read it) is kept in mind, and the file is in place again when it is back, unless something of it came meanwhile.
   * A copy the store holds already wins: what that lacks is copied. Throws SourceChangedError, QuotaExceededError, OutOfSpaceError.
   */
  referenceFile: (index: Encoded<FileIndex>, guard: FileGuard, add?: RunningAdd) => Promise<{ file: StoredFile, newBytes: number }>

  /** The bytes of a manifest or file index this node has. */
  metadata: (cid: CID) => Uint8Array | undefined
  /** Whether metadata() would have them, at the cost of a look-up: they may be 16 MiB. */
  hasMetadata: (cid: CID) => boolean
  /** Where a recorded block is, in whichever file but those of `outside`. */
  findBlock: (cid: CID, outside?: ReadonlySet<StoredFile>) => BlockLocation | undefined
  /**
   * Reads a recorded block into `slot` (which it prepares). Returns false, having withdrawn the block, when it is no longer what was
   * recorded (a file in place that changed, a truncated file).
   */
  readBlock: (location: BlockLocation, slot: Slot) => Promise<boolean>
  /**
   * Reads any recorded range of a file, into `into` when it is given, which must have that length; throws DiskError when it
   * cannot. Meant for small reads (headers, tensors in memory stores), and with `into` for streams.
   */
  readRange: (file: StoredFile, offset: number, length: number, into?: Uint8Array) => Promise<Uint8Array>
  /**
   * Writes a verified block from `slot` at its place. Resolves when the bytes are written (the slot may be released);
   * the block is recorded, and `blocks:present` told, after the next sync. Writing a recorded block is a no-op.
   */
  writeBlock: (file: StoredFile, block: number, slot: Slot) => Promise<void>
  /** Syncs and records everything written so far. */
  flush: () => Promise<void>
}
