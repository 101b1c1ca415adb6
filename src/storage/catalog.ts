import { DatabaseSync, type SQLOutputValue, type StatementSync } from 'node:sqlite'
import { crc32 } from 'node:zlib'
import { DiskError } from '../base/index.ts'
import type { Encoded, FileIndex, Manifest } from '../model/types.ts'
import type { FileGuard } from './store.ts'

/** Of the tables below. Another number means another program wrote it: it is rebuilt from the files. */
const SCHEMA_VERSION = 1
/** Some 20 ms of rows. */
const PLACES_PER_BLOCK_MAX = 16_384
/** Places of a file that are skipped one by one, before the next file is looked up: that costs as much as a few of them. */
const SKIPPED_IN_LINE = 8
const SCHEMA = `
CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE metadata (cid TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
CREATE TABLE models (
  cid TEXT PRIMARY KEY, pinned INTEGER NOT NULL, published INTEGER NOT NULL, added_at REAL NOT NULL, used_at REAL NOT NULL
) STRICT;
CREATE TABLE files (
  id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, blocks INTEGER NOT NULL,
  present BLOB NOT NULL, present_bytes INTEGER NOT NULL, rescan INTEGER, crc INTEGER NOT NULL,
  place_path TEXT, place_size INTEGER, place_mtime REAL, place_ino TEXT
) STRICT;
CREATE TABLE blocks (
  hash BLOB NOT NULL, file INTEGER NOT NULL, block INTEGER NOT NULL, offset INTEGER NOT NULL, size INTEGER NOT NULL,
  PRIMARY KEY (hash, file, block)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = ${SCHEMA_VERSION};
`
/** In the transaction that makes the tables: an empty catalog that is not marked says that nothing is here, and all files are leftovers. */
const REBUILDING = 'INSERT OR IGNORE INTO state (name, value) VALUES (\'rebuilding\', 1)'
/** Places of a file beside the one that is read. Came later: whoever does not know it does without. */
const PLACES = `CREATE TABLE IF NOT EXISTS places (
  file INTEGER NOT NULL, position INTEGER NOT NULL, path TEXT NOT NULL, size INTEGER NOT NULL, mtime REAL NOT NULL, ino TEXT NOT NULL, PRIMARY KEY (file, position)
) STRICT, WITHOUT ROWID`

export interface FileRow {
  id: number
  key: string
  size: number
  blocks: number
  present: Uint8Array
  presentBytes: number
  /** The first block whose presence has to be found out by hashing what is on disk; undefined when all is known. */
  rescan: number | undefined
  /** The place that is read. */
  guard: FileGuard | undefined
  /** Other places of it. */
  others?: readonly FileGuard[]
}
export interface ModelRow { cid: string, pinned: boolean, published: boolean, addedAt: number, usedAt: number }
export interface BlockRow { file: number, block: number, offset: number, size: number }
export interface Presence { present: Uint8Array, presentBytes: number, rescan?: number }
export interface PresenceChange extends Presence { id: number, key: string }
/** `known`: all places, `guard` among them. */
export interface PlacesChange extends PresenceChange { guard: FileGuard | undefined, known: readonly FileGuard[] }
export type NewFile = Omit<FileRow, 'id' | 'key' | 'size' | 'blocks'> & { index: Encoded<FileIndex> }

type Row = Record<string, SQLOutputValue>

/**
 * What is here, in SQLite. Synchronous: every call is one small transaction, microseconds to a few milliseconds.
 *
 * WAL with synchronous = NORMAL does not sync at a commit, so a power cut may take the last records back, in order:
 * their blocks were synced before and are fetched again or found by nobody. What must not come back is a record that
 * was taken away (a removed file, a withdrawn block), nor be lost what a user was told (an added model, a pin): those
 * transactions run with synchronous = FULL, which syncs the log with all that stands before them in it.
 *
 * Locked for good while it is open: nobody else has business with it, and SQLite then needs no shared-memory file, which
 * a full disk could not grow.
 */
export class Catalog implements Disposable {
  readonly #database: DatabaseSync
  readonly #durable: boolean
  readonly #statements = new Map<string, StatementSync>()

  /** `:memory:` for a store without a disk. Throws what SQLite throws; a file that is no catalog is told by isCatalogCorrupt. */
  constructor (path: string) {
    this.#durable = path !== ':memory:'
    this.#database = new DatabaseSync(path, { timeout: 0 })
    try {
      if (this.#durable) this.#database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16384')
      const version = integer(this.#get('PRAGMA user_version'), 'user_version')
      if (version === 0) this.#database.exec(`BEGIN IMMEDIATE; ${SCHEMA} ${REBUILDING}; COMMIT`)
      else if (version !== SCHEMA_VERSION) throw new UnknownSchemaError(`its schema has the version ${version}`)
      else if (this.#durable) this.#check()
      this.#database.exec(PLACES)
    } catch (error) {
      this.#database.close()
      throw error
    }
  }

  /** True from when a new catalog is made until all that was kept beside the old one is in it. */
  get rebuilding (): boolean { return this.#find('SELECT value FROM state WHERE name = \'rebuilding\'') !== undefined }
  rebuilt (): void { this.#run('DELETE FROM state WHERE name = \'rebuilding\'') }

  /** Throws UnknownSchemaError for a row that is not what was written: SQLite itself would not notice a flipped bit. */
  files (): FileRow[] {
    const others = this.#otherPlaces()
    return this.#all('SELECT id, key, size, blocks, present, present_bytes, rescan, crc, place_path, place_size, place_mtime, place_ino FROM files').map(row => {
      const key = text(row, 'key')
      const presence = {
        present: blob(row, 'present'),
        presentBytes: integer(row, 'present_bytes'),
        rescan: row.rescan === null ? undefined : integer(row, 'rescan')
      }
      if (presenceCrc(key, presence) !== integer(row, 'crc')) throw new UnknownSchemaError(`what it says about ${key} is damaged`)
      const guard = row.place_path === null
        ? undefined
        : { path: text(row, 'place_path'), size: integer(row, 'place_size'), mtimeMs: integer(row, 'place_mtime'), ino: Number(text(row, 'place_ino')) }
      const id = integer(row, 'id')
      return { id, key, size: integer(row, 'size'), blocks: integer(row, 'blocks'), ...presence, guard, others: others.get(id) ?? [] }
    })
  }

  #otherPlaces (): Map<number, FileGuard[]> {
    const found = new Map<number, FileGuard[]>()
    for (const row of this.#all('SELECT file, path, size, mtime, ino FROM places ORDER BY file, position')) {
      const place = { path: text(row, 'path'), size: integer(row, 'size'), mtimeMs: integer(row, 'mtime'), ino: Number(text(row, 'ino')) }
      const file = integer(row, 'file')
      const known = found.get(file)
      if (known === undefined) found.set(file, [place])
      else known.push(place)
    }
    return found
  }

  models (): ModelRow[] {
    return this.#all('SELECT cid, pinned, published, added_at, used_at FROM models').map(row => ({
      cid: text(row, 'cid'),
      pinned: integer(row, 'pinned') === 1,
      published: integer(row, 'published') === 1,
      addedAt: integer(row, 'added_at'),
      usedAt: integer(row, 'used_at')
    }))
  }

  /** The CIDs of all manifests and file indexes. */
  metadataCids (): string[] { return this.#all('SELECT cid FROM metadata').map(row => text(row, 'cid')) }

  metadata (cid: string): Uint8Array | undefined {
    const row = this.#find('SELECT bytes FROM metadata WHERE cid = ?', cid)
    return row === undefined ? undefined : blob(row, 'bytes')
  }

  hasMetadata (cid: string): boolean { return this.#find('SELECT 1 FROM metadata WHERE cid = ?', cid) !== undefined }

  /**
   * Shows `look` where blocks of this multihash belong, recorded or not, file by file: PLACES_PER_BLOCK_MAX places at most,
   * because a hostile file index can name one block 400,000 times. `look` may end it, or skip the rest of a file, and must not wait.
   */
  locate (multihash: Uint8Array, look: (place: BlockRow) => 'more' | 'next file' | 'enough'): void {
    let left = PLACES_PER_BLOCK_MAX
    /** Places after the last one of this file. */
    let after = 0
    while (left > 0) {
      // No bound parameter as limit: SQLite would plan the statement anew each time, which takes longer than to run it.
      const rows = this.#prepared(`SELECT file, block, offset, size FROM blocks WHERE hash = ? AND file > ? LIMIT ${PLACES_PER_BLOCK_MAX}`).iterate(multihash, after)
      let skipped: number | undefined
      let inFile = 0
      for (const row of rows) {
        if (left-- === 0) return
        const file = integer(row, 'file')
        if (file === skipped) {
          if (++inFile < SKIPPED_IN_LINE) continue
          break
        }
        skipped = undefined
        const next = look({ file, block: integer(row, 'block'), offset: integer(row, 'offset'), size: integer(row, 'size') })
        if (next === 'enough') return
        if (next === 'more') continue
        skipped = file
        inFile = 0
      }
      if (skipped === undefined || inFile < SKIPPED_IN_LINE) return
      after = skipped
    }
  }

  /** Returns its id. A file is all there or not at all, with its blocks. */
  addFile (file: NewFile, offsets: Float64Array): number {
    return this.#transaction(() => this.#addFile(file, offsets))
  }

  /** All of them or none; returns their ids. */
  addFiles (files: Array<{ file: NewFile, offsets: Float64Array }>): number[] {
    return this.#transaction(() => files.map(({ file, offsets }) => this.#addFile(file, offsets)))
  }

  #addFile ({ index, guard, others = [], ...presence }: NewFile, offsets: Float64Array): number {
    const { value, cid, bytes } = index
    const key = cid.toString()
    this.#run('INSERT OR IGNORE INTO metadata (cid, bytes) VALUES (?, ?)', key, bytes)
    const { lastInsertRowid } = this.#prepared('INSERT INTO files (key, size, blocks, present, present_bytes, rescan, crc) VALUES (?, ?, ?, ?, ?, ?, ?)')
      .run(key, value.size, value.blocks.length, presence.present, presence.presentBytes, presence.rescan ?? null, presenceCrc(key, presence))
    const id = Number(lastInsertRowid)
    if (guard !== undefined) this.#setGuard(id, guard)
    this.#addPlaces(id, others)
    const insert = this.#prepared('INSERT INTO blocks (hash, file, block, offset, size) VALUES (?, ?, ?, ?, ?)')
    for (const [block, blockCid] of value.blocks.entries()) {
      insert.run(blockCid.multihash.bytes, id, block, offsets[block] ?? 0, value.sizes[block] ?? 0)
    }
    return id
  }

  setPresence (changes: PresenceChange[], options: { durable: boolean }): void {
    this.#transaction(() => { for (const change of changes) this.#setPresence(change) }, options)
  }

  setPlaces (changes: PlacesChange[]): void {
    this.#transaction(() => {
      for (const { guard, known, ...presence } of changes) {
        this.#setGuard(presence.id, guard)
        this.#run('DELETE FROM places WHERE file = ?', presence.id)
        this.#addPlaces(presence.id, known.filter(place => place !== guard))
        this.#setPresence(presence)
      }
    }, { durable: true })
  }

  addModel (manifest: Encoded<Manifest>, row: ModelRow): void {
    this.#transaction(() => {
      this.#run('INSERT OR IGNORE INTO metadata (cid, bytes) VALUES (?, ?)', row.cid, manifest.bytes)
      this.#run('INSERT INTO models (cid, pinned, published, added_at, used_at) VALUES (?, ?, ?, ?, ?)',
        row.cid, row.pinned ? 1 : 0, row.published ? 1 : 0, row.addedAt, row.usedAt)
    }, { durable: true })
  }

  updateModel (cid: string, { pinned, published }: { pinned: boolean, published: boolean }): void {
    this.#transaction(() => {
      this.#run('UPDATE models SET pinned = ?, published = ? WHERE cid = ?', pinned ? 1 : 0, published ? 1 : 0, cid)
    }, { durable: true })
  }

  touchModel (cid: string, usedAt: number): void {
    this.#run('UPDATE models SET used_at = ? WHERE cid = ?', usedAt, cid)
  }

  /** Forgets models and files at once. Walks all blocks: 20 ms where a terabyte is held. */
  remove (models: string[], files: Array<{ id: number, key: string }>): void {
    this.#transaction(() => {
      for (const cid of models) {
        this.#run('DELETE FROM models WHERE cid = ?', cid)
        this.#run('DELETE FROM metadata WHERE cid = ?', cid)
      }
      for (const { id, key } of files) {
        this.#run('DELETE FROM files WHERE id = ?', id)
        this.#run('DELETE FROM places WHERE file = ?', id)
        this.#run('DELETE FROM metadata WHERE cid = ?', key)
      }
      if (files.length > 0) this.#run('DELETE FROM blocks WHERE file NOT IN (SELECT id FROM files)')
    }, { durable: true })
  }

  [Symbol.dispose] (): void {
    this.#statements.clear()
    this.#database.close()
  }

  #setPresence ({ id, key, ...presence }: PresenceChange): void {
    this.#run('UPDATE files SET present = ?, present_bytes = ?, rescan = ?, crc = ? WHERE id = ?',
      presence.present, presence.presentBytes, presence.rescan ?? null, presenceCrc(key, presence), id)
  }

  #setGuard (id: number, guard: FileGuard | undefined): void {
    this.#run('UPDATE files SET place_path = ?, place_size = ?, place_mtime = ?, place_ino = ? WHERE id = ?',
      guard?.path ?? null, guard?.size ?? null, guard?.mtimeMs ?? null, guard === undefined ? null : String(guard.ino), id)
  }

  #addPlaces (id: number, places: readonly FileGuard[]): void {
    for (const [position, { path, size, mtimeMs, ino }] of places.entries()) {
      this.#run('INSERT INTO places (file, position, path, size, mtime, ino) VALUES (?, ?, ?, ?, ?, ?)', id, position, path, size, mtimeMs, String(ino))
    }
  }

  #transaction<T> (changes: () => T, { durable }: { durable: boolean } = { durable: false }): T {
    const full = durable && this.#durable
    if (full) this.#database.exec('PRAGMA synchronous = FULL')
    try {
      this.#database.exec('BEGIN IMMEDIATE')
      const result = changes()
      this.#database.exec('COMMIT')
      return result
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK')
      throw error
    } finally {
      if (full) this.#database.exec('PRAGMA synchronous = NORMAL')
    }
  }

  #check (): void {
    const result = this.#get('PRAGMA quick_check(1)').quick_check
    if (result !== 'ok') throw new UnknownSchemaError(`SQLite finds it damaged: ${String(result)}`)
  }

  #prepared (sql: string): StatementSync {
    let statement = this.#statements.get(sql)
    if (statement === undefined) this.#statements.set(sql, statement = this.#database.prepare(sql))
    return statement
  }

  #run (sql: string, ...values: Array<string | number | null | Uint8Array>): void { this.#prepared(sql).run(...values) }
  #all (sql: string): Row[] { return this.#prepared(sql).all() }
  #find (sql: string, ...values: Array<string | number>): Row | undefined { return this.#prepared(sql).get(...values) }

  #get (sql: string): Row {
    const row = this.#find(sql)
    if (row === undefined) throw new UnknownSchemaError(`"${sql}" found nothing`)
    return row
  }
}

/** The catalog cannot be read as one; it is set aside and rebuilt. */
export class UnknownSchemaError extends DiskError {}

function presenceCrc (key: string, { present, presentBytes, rescan }: Presence): number {
  return crc32(present, crc32(`${key} ${presentBytes} ${rescan ?? ''}`))
}

function integer (row: Row, column: string): number {
  const value = row[column]
  if (typeof value !== 'number') throw new UnknownSchemaError(`its column ${column} holds no number`)
  return value
}

function text (row: Row, column: string): string {
  const value = row[column]
  if (typeof value !== 'string') throw new UnknownSchemaError(`its column ${column} holds no text`)
  return value
}

function blob (row: Row, column: string): Uint8Array {
  const value = row[column]
  if (!(value instanceof Uint8Array)) throw new UnknownSchemaError(`its column ${column} holds no bytes`)
  return value
}
