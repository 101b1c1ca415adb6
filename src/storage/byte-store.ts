import { MiB } from '../base/index.ts'
import type { Model } from '../model/types.ts'
import type { HandlePool } from './handles.ts'
import type { FileRecord, ModelRecord } from './records.ts'
import type { Slot } from './slots.ts'
import type { FileGuard } from './store.ts'

/** Files up to this size come in many at a time and are made durable together. */
export const SMALL_FILE_BYTES_MAX = 1 * MiB

/** A file on its way in. */
export interface ImportTarget {
  /** Where it lies until it is adopted; undefined in memory. */
  readonly path: string | undefined
  write: (offset: number, slot: Slot) => Promise<void>
  read: (offset: number, into: Uint8Array) => Promise<number>
  /** Nothing is written after it. */
  sync: () => Promise<void>
  /** Takes it away again; does nothing once it was adopted. */
  discard: () => Promise<void>
}

/** What is kept of a model outside the catalog, so that a lost catalog can be rebuilt. */
export interface SavedModel {
  model: Model
  pinned: boolean
  published: boolean
  addedAt: number
  /** Of each file in place the one that is read, and all other places of each file. */
  guards: Map<string, FileGuard>
  others: Map<string, FileGuard[]>
}

export interface Leftovers {
  bytes: number
  /** Says how many bytes that freed. What cannot be deleted is told, and the rest goes on. */
  remove: () => Promise<number>
}

/**
 * Where the bytes of files live: on disk (disk-bytes.ts) or in memory (memory-bytes.ts). Knows nothing of what is
 * recorded, of quotas or of who may be evicted; throws system errors as they come, which the store translates.
 * Files in place are no business of it: see in-place.ts.
 */
export interface ByteStore {
  /** For node:sqlite. */
  readonly catalogPath: string
  readonly directIo: boolean
  readonly handles: HandlePool

  /** Throws StoreLockedError, StoreVersionError, ConfigError, DiskError. */
  start: () => Promise<void>
  stop: () => Promise<void>
  pathOf: (key: string) => string | undefined
  directoryOf: (cid: string) => string | undefined
  /** Free bytes, and how many of them blocks must leave free. Undefined where that means nothing. */
  space: () => Promise<{ freeBytes: number, reserveBytes: number } | undefined>
  /** Writes and syncs something small. */
  probe: () => Promise<void>

  /** Makes an empty file of full size. What stood there is replaced. Durable after `syncNames`. */
  create: (file: FileRecord) => Promise<void>
  syncNames: () => Promise<void>
  /** Makes the file full size again, with what is left of its content. */
  restoreSize: (file: FileRecord) => Promise<void>
  /** Throws DiskError when the files are not where they were at the start: that one of them is not there says nothing then. */
  checkPlace: () => Promise<void>
  /** Names a complete file again that has only the names left which `complete` made. Says whether it did. What it holds has to be found out. */
  recover: (file: FileRecord) => Promise<boolean>
  /** Bytes of the file as it stands there; undefined when it does not. */
  sizeOf: (file: FileRecord) => Promise<number | undefined>
  write: (file: FileRecord, offset: number, slot: Slot) => Promise<void>
  /** Fills `into` from the file; says how many bytes there were. */
  read: (file: FileRecord, offset: number, into: Uint8Array) => Promise<number>
  /** Makes what was written to these files durable. */
  sync: (files: Iterable<FileRecord>) => Promise<void>
  /** Closes a complete file against writing and links it into these models. Idempotent. */
  complete: (file: FileRecord, models: Iterable<ModelRecord>) => Promise<void>
  /** Undoes `complete`: some block is missing again. */
  reopen: (file: FileRecord) => Promise<void>
  /** Whether what `complete` links of these files stands in the model's directory. */
  hasLinks: (model: ModelRecord, files: readonly FileRecord[]) => Promise<boolean>
  remove: (file: FileRecord) => Promise<void>

  /** `whole`: all of it will be written, and it is closed against writing when it is adopted. */
  startImport: (size: number, whole: boolean) => Promise<ImportTarget>
  /** A reflinked copy of that path, whole, or when it `isGiven` another name of it; undefined where the file system has no such thing. */
  clone: (path: string, size: number, options: { isGiven: boolean }) => Promise<ImportTarget | undefined>
  /** Makes imports, which were synced, the files. Durable when it resolves; can be done again after it failed. */
  adopt: (imports: Array<{ target: ImportTarget, key: string }>) => Promise<void>

  /** Keeps a model's metadata. Durable when it resolves. */
  saveModel: (model: ModelRecord, content: Model) => Promise<void>
  /** Keeps what may change about it: flags and guards. Durable when it resolves. */
  saveFlags: (model: ModelRecord) => Promise<void>
  removeModel: (model: ModelRecord) => Promise<void>
  savedModels: () => AsyncIterable<SavedModel>
  /** What a store made and belongs to nothing known; none as long as it is not known what belongs to a model that was kept. */
  leftovers: (known: { files: ReadonlyMap<string, FileRecord>, models: ReadonlyMap<string, ModelRecord> }) => Promise<Leftovers>
}
