import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { inTurns, type Turns } from '../base/index.ts'
import type { Encoded, FileIndex, Manifest } from '../model/types.ts'
import { blockRows, type AddedFile, type BlockValues } from './block-rows.ts'
import {
  UnknownSchemaError, blob, fileOf, integer, presenceCrc, text,
  type BlockRow, type FileRow, type ModelRow, type NewFile, type PlacesChange, type PresenceChange, type Row
} from './catalog-rows.ts'
import type { FileGuard } from './store.ts'

export { UnknownSchemaError } from './catalog-rows.ts'
export type * from './catalog-rows.ts'

/** Of the tables below. Another number means another program wrote it: it is rebuilt from the files. */
const SCHEMA_VERSION = 1
/** Some 20 ms of rows. */
const PLACES_PER_BLOCK_MAX = 16_384
/** Places of a file that are skipped one by one, before the next file is looked up: that costs as much as a few of them. */
const SKIPPED_IN_LINE = 8
/**
 * Rows of blocks written in one transaction, before others get a turn: each is in a page of its own where many are held, so these are a
 * few ms of an empty catalog and some 25 ms of one with 400,000.
 */
const ROWS_PER_TURN = 250
/** Rows looked at in one go when those of files that are gone are looked for: a ms or two where none is. */
const SWEPT_PER_TURN = 1_000
/** Sorts behind every multihash. */
const LAST_HASH = new Uint8Array([0xff])
/** Files read in one go. */
const FILES_PER_PAGE = 256
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

type Bound = [hash: Uint8Array, file: number, block: number]

/**
 * What is here, in SQLite. Synchronous: every call is one small transaction, microseconds to a few milliseconds. But the rows of a large file's
 * blocks are written and taken away in turns. They say nothing without their file, which is recorded last and forgotten first; `unswept` stands
 * in the catalog as long as there may be rows of no file.
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

  /** Read page by page, as they are asked for. Throws UnknownSchemaError for a row that is not what was written: SQLite itself would not notice a flipped bit. */
  * files (): Generator<FileRow> {
    const others = this.#otherPlaces()
    const page = `SELECT id, key, size, blocks, present, present_bytes, rescan, crc, place_path, place_size, place_mtime, place_ino FROM files WHERE id > ? ORDER BY id LIMIT ${FILES_PER_PAGE}`
    for (let after = 0, rows = this.#all(page, after); rows.length > 0; rows = this.#all(page, after)) {
      for (const row of rows) {
        const file = fileOf(row)
        after = file.id
        yield { ...file, others: others.get(file.id) ?? [] }
      }
    }
  }

  /** The files of which some block's presence has to be found out by hashing, and from which block on. */
  rescans (): Map<number, number> {
    return new Map(this.#all('SELECT id, rescan FROM files WHERE rescan IS NOT NULL').map(row => [integer(row, 'id'), integer(row, 'rescan')]))
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

  /**
   * All of them or none, with their blocks; returns their ids. One at a time, and not while `sweep` runs: the caller holds `structure`, or
   * is alone.
   */
  async addFiles (files: AddedFile[]): Promise<number[]> { return await inTurns(this.#addFiles(files)) }

  * #addFiles (files: AddedFile[]): Turns<number[]> {
    const firstId = 1 + this.#lastId()
    const ids = files.map((_, at) => firstId + at)
    const rows = blockRows(files, firstId)
    let left = files.reduce((sum, { file }) => sum + file.index.value.blocks.length, 0)
    const isLarge = left > ROWS_PER_TURN
    if (isLarge) {
      if (this.#unswept) yield * this.#sweep()
      this.#transaction(() => {
        this.#unswept = true
        this.#useIds(firstId + files.length - 1)
      })
    }
    for (; left > ROWS_PER_TURN; left -= ROWS_PER_TURN) {
      this.#transaction(() => { this.#insertRows(rows, ROWS_PER_TURN) })
      yield
    }
    this.#transaction(() => {
      this.#insertRows(rows, left)
      for (const [at, { file }] of files.entries()) this.#addFile(firstId + at, file)
      if (isLarge) this.#unswept = false
    })
    return ids
  }

  #addFile (id: number, { index, guard, others = [], ...presence }: NewFile): void {
    const { value, cid, bytes } = index
    const key = cid.toString()
    this.#run('INSERT OR IGNORE INTO metadata (cid, bytes) VALUES (?, ?)', key, bytes)
    this.#run('INSERT INTO files (id, key, size, blocks, present, present_bytes, rescan, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
      id, key, value.size, value.blocks.length, presence.present, presence.presentBytes, presence.rescan ?? null, presenceCrc(key, presence))
    if (guard !== undefined) this.#setGuard(id, guard)
    this.#addPlaces(id, others)
  }

  #insertRows (rows: Iterator<BlockValues>, count: number): void {
    const insert = this.#prepared('INSERT INTO blocks (hash, file, block, offset, size) VALUES (?, ?, ?, ?, ?)')
    for (let i = 0; i < count; i++) {
      const row = rows.next()
      if (row.done !== true) insert.run(...row.value)
    }
  }

  /** No id is ever used again, also none of a file that was not recorded in the end. */
  #lastId (): number {
    const row = this.#find('SELECT seq FROM sqlite_sequence WHERE name = \'files\'')
    return row === undefined ? 0 : integer(row, 'seq')
  }

  #useIds (last: number): void {
    if (this.#prepared('UPDATE sqlite_sequence SET seq = ? WHERE name = \'files\'').run(last).changes === 0) this.#run('INSERT INTO sqlite_sequence (name, seq) VALUES (\'files\', ?)', last)
  }

  get #unswept (): boolean { return this.#find('SELECT value FROM state WHERE name = \'unswept\'') !== undefined }
  set #unswept (value: boolean) {
    if (value) this.#run('INSERT OR IGNORE INTO state (name, value) VALUES (\'unswept\', 1)')
    else this.#run('DELETE FROM state WHERE name = \'unswept\'')
  }

  /** Takes away the rows of blocks whose file is gone, where there may be any: walks them all, in turns. The caller holds `structure`, or is alone. */
  async sweep (): Promise<void> {
    if (this.#unswept) await inTurns(this.#sweep())
  }

  * #sweep (): Turns<void> {
    let after: Bound = [new Uint8Array(0), 0, 0]
    for (let isEnd = false; !isEnd;) {
      const row = this.#find(`SELECT hash, file, block FROM blocks WHERE (hash, file, block) > (?, ?, ?) ORDER BY hash, file, block LIMIT 1 OFFSET ${SWEPT_PER_TURN - 1}`, ...after)
      isEnd = row === undefined
      const to: Bound = row === undefined ? [LAST_HASH, 0, 0] : [blob(row, 'hash'), integer(row, 'file'), integer(row, 'block')]
      this.#run('DELETE FROM blocks WHERE (hash, file, block) > (?, ?, ?) AND (hash, file, block) <= (?, ?, ?) AND file NOT IN (SELECT id FROM files)', ...after, ...to)
      after = to
      yield
    }
    this.#unswept = false
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

  /** Forgets models and files at once. The rows of their blocks, which say nothing any more, are left to `sweep` where they are many. */
  remove (models: string[], files: Array<{ id: number, key: string, index: FileIndex }>): void {
    const isLarge = files.reduce((sum, { index }) => sum + index.blocks.length, 0) > ROWS_PER_TURN
    this.#transaction(() => {
      for (const cid of models) {
        this.#run('DELETE FROM models WHERE cid = ?', cid)
        this.#run('DELETE FROM metadata WHERE cid = ?', cid)
      }
      if (isLarge) this.#unswept = true
      for (const { id, key, index } of files) {
        if (!isLarge) for (const { multihash } of index.blocks) this.#run('DELETE FROM blocks WHERE hash = ? AND file = ?', multihash.bytes, id)
        this.#run('DELETE FROM files WHERE id = ?', id)
        this.#run('DELETE FROM places WHERE file = ?', id)
        this.#run('DELETE FROM metadata WHERE cid = ?', key)
      }
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
  #all (sql: string, ...values: number[]): Row[] { return this.#prepared(sql).all(...values) }
  #find (sql: string, ...values: Array<string | number | Uint8Array>): Row | undefined { return this.#prepared(sql).get(...values) }

  #get (sql: string): Row {
    const row = this.#find(sql)
    if (row === undefined) throw new UnknownSchemaError(`"${sql}" found nothing`)
    return row
  }
}
