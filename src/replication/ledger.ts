import { renameSync, rmSync } from 'node:fs'
import { DatabaseSync, type SQLOutputValue, type StatementSync } from 'node:sqlite'
import { StoreVersionError, asError, type Logger } from '../base/index.ts'

/** Of the tables below. */
const FORMAT = 1
const LOST_AT = 'ledgerLostAt'
/** Nobody has said yet whether there was another before it. */
const NEW = -1
const SCHEMA = `
CREATE TABLE commitments (model TEXT NOT NULL, shard INTEGER NOT NULL, PRIMARY KEY (model, shard)) STRICT, WITHOUT ROWID;
CREATE TABLE policies (
  model TEXT NOT NULL, publisher TEXT NOT NULL, sequence INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (model, publisher)
) STRICT, WITHOUT ROWID;
CREATE TABLE state (name TEXT PRIMARY KEY, value REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE scrubbed (file TEXT PRIMARY KEY, at REAL NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO state (name, value) VALUES ('${LOST_AT}', ${NEW});
PRAGMA user_version = ${FORMAT};
`
/** Came later; an older program does not miss it. */
const ADDED = 'CREATE TABLE IF NOT EXISTS pulled (model TEXT NOT NULL, shard INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (model, shard)) STRICT, WITHOUT ROWID'

/** What SQLite says of a file that is damaged or none of its own (sqlite.org/rescode.html). */
const SQLITE_CORRUPT = 11
const SQLITE_NOTADB = 26

export interface Commitment { model: string, shard: number }
export interface SavedPolicy { model: string, publisher: string, sequence: number, bytes: Uint8Array }

/**
 * What this node promised, and what publishers said: DIR/replication.sqlite. A promise counts for others as soon as they
 * hear of it, so every change is synced before it returns (synchronous = FULL).
 */
export class Ledger implements Disposable {
  readonly #database: DatabaseSync
  readonly #statements: Record<'commit' | 'uncommit' | 'policy' | 'unpolicy' | 'commitments' | 'policies' | 'state' | 'setState' | 'scrubbed' | 'setScrubbed' | 'unscrub' | 'pulled' | 'setPulled' | 'touchPulled' | 'forgetPulled', StatementSync>

  /** Without a file all is in memory. Throws StoreVersionError, and what SQLite throws for a disk that fails. */
  constructor (file: string | undefined, logger: Logger) {
    this.#database = open(file, logger)
    const prepare = (sql: string): StatementSync => this.#database.prepare(sql)
    this.#statements = {
      commit: prepare('INSERT INTO commitments (model, shard) VALUES (?, ?) ON CONFLICT DO NOTHING'),
      uncommit: prepare('DELETE FROM commitments WHERE model = ? AND shard = ?'),
      policy: prepare(`INSERT INTO policies (model, publisher, sequence, bytes) VALUES (?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET sequence = excluded.sequence, bytes = excluded.bytes WHERE excluded.sequence >= sequence`),
      unpolicy: prepare('DELETE FROM policies WHERE model = ? AND publisher = ?'),
      commitments: prepare('SELECT model, shard FROM commitments ORDER BY model, shard'),
      policies: prepare('SELECT model, publisher, sequence, bytes FROM policies ORDER BY model, publisher'),
      state: prepare('SELECT value FROM state WHERE name = ?'),
      setState: prepare('INSERT INTO state (name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value'),
      scrubbed: prepare('SELECT file, at FROM scrubbed'),
      setScrubbed: prepare('INSERT INTO scrubbed (file, at) VALUES (?, ?) ON CONFLICT DO UPDATE SET at = excluded.at'),
      unscrub: prepare('DELETE FROM scrubbed WHERE file = ?'),
      pulled: prepare('SELECT model, shard, at FROM pulled ORDER BY model, shard'),
      setPulled: prepare('INSERT INTO pulled (model, shard, at) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at'),
      touchPulled: prepare('UPDATE pulled SET at = ? WHERE model = ?'),
      forgetPulled: prepare('DELETE FROM pulled WHERE model = ?')
    }
  }

  commitments (): Commitment[] {
    return this.#statements.commitments.all().flatMap(({ model, shard }) => typeof model === 'string' && typeof shard === 'number' ? [{ model, shard }] : [])
  }

  policies (): SavedPolicy[] {
    return this.#statements.policies.all().flatMap(({ model, publisher, sequence, bytes }) => {
      if (typeof model !== 'string' || typeof publisher !== 'string' || typeof sequence !== 'number' || !(bytes instanceof Uint8Array)) return []
      return [{ model, publisher, sequence, bytes }]
    })
  }

  /** All of these shards or none, with one sync. */
  save ({ model, shards, committed }: { model: string, shards: readonly number[], committed: boolean }): void {
    const statement = this.#statements[committed ? 'commit' : 'uncommit']
    this.#atOnce(() => { for (const shard of shards) statement.run(model, shard) })
  }

  /** All of this or nothing, with one sync. An older one than is here is left out. */
  savePolicies ({ saved, dropped }: { saved: readonly SavedPolicy[], dropped: ReadonlyArray<Pick<SavedPolicy, 'model' | 'publisher'>> }): void {
    this.#atOnce(() => {
      for (const { model, publisher } of dropped) this.#statements.unpolicy.run(model, publisher)
      for (const { model, publisher, sequence, bytes } of saved) this.#statements.policy.run(model, publisher, sequence, bytes)
    })
  }

  #atOnce (work: () => void): void {
    this.#database.exec('BEGIN IMMEDIATE')
    try {
      work()
      this.#database.exec('COMMIT')
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK')
      throw error
    }
  }

  /** A number that outlives the process. */
  state (name: string): number | undefined {
    return numberIn(this.#statements.state.get(name), 'value')
  }

  setState (name: string, value: number): void {
    this.#statements.setState.run(name, value)
  }

  /** There was none, or a damaged one; until somebody says in `lostAt` whether anything can have been promised before. */
  get isNew (): boolean { return this.state(LOST_AT) === NEW }

  /** Since when what was promised before is unknown, milliseconds since 1970; undefined: it is known. Outlives the process until it is known again. */
  get lostAt (): number | undefined {
    const at = this.state(LOST_AT)
    return at === undefined || at <= 0 ? undefined : at
  }

  set lostAt (at: number | undefined) { this.setState(LOST_AT, at ?? 0) }

  /** When each file was last re-hashed to its end, milliseconds since 1970. */
  scrubbed (): Map<string, number> {
    return new Map(this.#statements.scrubbed.all().flatMap(({ file, at }): Array<[string, number]> => typeof file === 'string' && typeof at === 'number' ? [[file, at]] : []))
  }

  setScrubbed (file: string, at: number | undefined): void {
    if (at === undefined) this.#statements.unscrub.run(file)
    else this.#statements.setScrubbed.run(file, at)
  }

  /** Shards that were fetched for the swarm, and when their model was last used by that, milliseconds since 1970. */
  pulled (): Map<string, Map<number, number>> {
    const pulled = new Map<string, Map<number, number>>()
    for (const { model, shard, at } of this.#statements.pulled.all()) {
      if (typeof model !== 'string' || typeof shard !== 'number' || typeof at !== 'number') continue
      const shards = pulled.get(model)
      if (shards === undefined) pulled.set(model, new Map([[shard, at]]))
      else shards.set(shard, at)
    }
    return pulled
  }

  setPulled (model: string, shard: number, at: number): void { this.#statements.setPulled.run(model, shard, at) }
  touchPulled (model: string, at: number): void { this.#statements.touchPulled.run(at, model) }
  forgetPulled (model: string): void { this.#statements.forgetPulled.run(model) }

  [Symbol.dispose] (): void {
    if (this.#database.isOpen) this.#database.close()
  }
}

function open (file: string | undefined, logger: Logger): DatabaseSync {
  if (file === undefined) return prepareDatabase(new DatabaseSync(':memory:'))
  try {
    return openFile(file)
  } catch (error) {
    if (!isDamage(error)) throw error
    logger.error({ file, error: asError(error).message }, 'the ledger of replicas is damaged; it is set aside, and nothing of what is here is evicted before others have told what of it is wanted')
    for (const suffix of ['-wal', '-shm']) rmSync(file + suffix, { force: true })
    renameSync(file, `${file}.damaged`)
    return openFile(file)
  }
}

function openFile (file: string): DatabaseSync {
  const database = new DatabaseSync(file, { timeout: 0 })
  try {
    database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -2048')
  } catch (error) {
    database.close()
    throw error
  }
  return prepareDatabase(database)
}

function prepareDatabase (database: DatabaseSync): DatabaseSync {
  try {
    const format = numberIn(database.prepare('PRAGMA user_version').get(), 'user_version') ?? 0
    if (format > FORMAT) throw new StoreVersionError(`replication.sqlite has the format ${format}, written by a newer version of Shoal; this one knows ${FORMAT}. Start the newer one`)
    if (format === 0) {
      database.exec(`BEGIN IMMEDIATE; ${SCHEMA} COMMIT`)
    } else {
      const check = database.prepare('PRAGMA quick_check(1)').get()
      if (check?.quick_check !== 'ok') throw new DamagedError(String(check?.quick_check))
    }
    database.exec(ADDED)
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

class DamagedError extends Error {}

function isDamage (error: unknown): boolean {
  if (error instanceof DamagedError) return true
  const code = error instanceof Error && 'errcode' in error && typeof error.errcode === 'number' ? error.errcode & 0xff : undefined
  return code === SQLITE_CORRUPT || code === SQLITE_NOTADB
}

function numberIn (row: Record<string, SQLOutputValue> | undefined, name: string): number | undefined {
  const value = row?.[name]
  return typeof value === 'number' ? value : undefined
}
