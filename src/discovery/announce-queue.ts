import { rmSync } from 'node:fs'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { asError, type Logger } from '../base/index.ts'
import { kadIdOfDigest } from './dht-key.ts'

/** Of the table below; another one is thrown away, for what is announced follows from what is held. */
const FORMAT = 1
const COUNT_USES_MAX = 64
/** KiB of the file in memory at most: keys come in random order, so adding to a large file touches pages everywhere. */
const CACHE_KIB = 32 * 1024

export interface QueuedKey {
  /** The digest of the DHT key. */
  digest: Uint8Array
  /** Its place in the key space, by which the queue is sorted. */
  kadId: Uint8Array
}

export interface QueueCounts {
  keys: number
  /** Keys that are due. */
  backlog: number
  /** When the earliest is or was due. */
  earliestDue: number | undefined
}

/**
 * What is kept announced, and when each is due again: a SQLite file, so that a million keys need no memory and
 * survive a restart. Times are whole milliseconds since 1970, because they outlive the process.
 *
 * Not synced at each change: after a power cut the last seconds may be missing, and the node announces all it holds
 * when it starts. For the same reason a damaged file is simply begun anew.
 */
export class AnnounceQueue {
  readonly #database: DatabaseSync
  readonly #statements: Record<'insert' | 'remove' | 'has' | 'done' | 'count' | 'backlog' | 'earliest' | 'clamp' | 'nextByPlace' | 'nextByDue' | 'pageByPlace' | 'pageByDue', StatementSync>
  #keys: number
  #counted = { horizon: Number.NaN, most: false, uses: 0 }

  /** Without a file the queue is in memory. */
  constructor (file: string | undefined, logger: Logger) {
    this.#database = open(file, logger)
    const prepare = (sql: string): StatementSync => this.#database.prepare(sql)
    this.#statements = {
      insert: prepare('INSERT INTO announced (place, digest, due) VALUES (?, ?, ?) ON CONFLICT DO NOTHING'),
      remove: prepare('DELETE FROM announced WHERE place = ?'),
      has: prepare('SELECT 1 FROM announced WHERE place = ?'),
      done: prepare('UPDATE announced SET due = ? WHERE place = ?'),
      count: prepare('SELECT count(*) AS n FROM announced'),
      backlog: prepare('SELECT count(*) AS n FROM announced WHERE due <= ?'),
      earliest: prepare('SELECT min(due) AS due FROM announced'),
      clamp: prepare('UPDATE announced SET due = ? WHERE due > ?'),
      // The same question two ways: along the key space when most are due, along the time when few are.
      nextByPlace: prepare('SELECT place, digest FROM announced NOT INDEXED WHERE place > ? AND due <= ? ORDER BY place LIMIT 1'),
      nextByDue: prepare('SELECT min(place) AS place, digest FROM announced INDEXED BY announced_due WHERE due <= ? AND place > ?'),
      pageByPlace: prepare('SELECT place, digest FROM announced NOT INDEXED WHERE place >= ? AND place <= ? AND due <= ? ORDER BY place LIMIT ?'),
      pageByDue: prepare('SELECT place, digest FROM announced INDEXED BY announced_due WHERE due <= ? AND place >= ? AND place <= ? ORDER BY place LIMIT ?')
    }
    this.#keys = numberIn(this.#statements.count.get(), 'n') ?? 0
  }

  get keys (): number { return this.#keys }

  /** Adds those that are not there; the others keep their time. */
  add (digests: readonly Uint8Array[], due: number): void {
    this.#transaction(() => {
      // Neighbours in the key space share pages of the file.
      const keys = digests.map(digest => ({ digest, kadId: kadIdOfDigest(digest) })).sort((a, b) => Buffer.compare(a.kadId, b.kadId))
      for (const { digest, kadId } of keys) this.#keys += Number(this.#statements.insert.run(kadId, digest, due).changes)
    })
  }

  remove (digests: readonly Uint8Array[]): void {
    this.#transaction(() => {
      for (const digest of digests) this.#keys -= Number(this.#statements.remove.run(kadIdOfDigest(digest)).changes)
    })
  }

  has (digest: Uint8Array): boolean {
    return this.#statements.has.get(kadIdOfDigest(digest)) !== undefined
  }

  /** Sets when each of these is due again. Those removed meanwhile stay removed. */
  done (keys: readonly QueuedKey[], dueAgain: (kadId: Uint8Array) => number): void {
    this.#transaction(() => {
      for (const { kadId } of keys) this.#statements.done.run(dueAgain(kadId), kadId)
    })
  }

  /** Makes due at `due` what is due later than `latest`: nothing is, unless the clock was set back. */
  clamp (latest: number, due: number): void {
    this.#statements.clamp.run(due, latest)
  }

  /** The first key beyond `after` in the key space (undefined: from the start) that is due by `horizon`. */
  next (after: Uint8Array | undefined, horizon: number): QueuedKey | undefined {
    const from = after ?? new Uint8Array(0)
    return keyIn(this.#mostAreDue(horizon) ? this.#statements.nextByPlace.get(from, horizon) : this.#statements.nextByDue.get(horizon, from))
  }

  /** Up to `limit` keys from `low` to `high`, both included, that are due by `horizon`, in order of place. */
  page (low: Uint8Array, high: Uint8Array, horizon: number, limit: number): QueuedKey[] {
    const rows = this.#mostAreDue(horizon) ? this.#statements.pageByPlace.all(low, high, horizon, limit) : this.#statements.pageByDue.all(horizon, low, high, limit)
    return rows.map(keyIn).filter(key => key !== undefined)
  }

  /** Keys due by `horizon`. */
  backlog (horizon: number): number {
    return numberIn(this.#statements.backlog.get(horizon), 'n') ?? 0
  }

  earliestDue (): number | undefined {
    return numberIn(this.#statements.earliest.get(), 'due')
  }

  counts (now: number): QueueCounts {
    return { keys: this.#keys, backlog: this.backlog(now), earliestDue: this.earliestDue() }
  }

  close (): void {
    this.#database.close()
  }

  /** Counting is the dearest part of a question, and a rough answer does. */
  #mostAreDue (horizon: number): boolean {
    if (horizon !== this.#counted.horizon || this.#counted.uses++ >= COUNT_USES_MAX) {
      this.#counted = { horizon, most: this.backlog(horizon) * 8 > this.#keys, uses: 0 }
    }
    return this.#counted.most
  }

  #transaction (work: () => void): void {
    const keys = this.#keys
    this.#database.exec('BEGIN IMMEDIATE')
    try {
      work()
      this.#database.exec('COMMIT')
    } catch (error) {
      this.#keys = keys
      // SQLite has rolled back by itself where the volume failed.
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK')
      throw error
    }
  }
}

function open (file: string | undefined, logger: Logger): DatabaseSync {
  if (file === undefined) return prepareDatabase(new DatabaseSync(':memory:'))
  try {
    return prepareDatabase(new DatabaseSync(file))
  } catch (error) {
    logger.warn({ file, error: asError(error).message }, 'the announce queue could not be read and is begun anew; what is held will be announced again')
    for (const suffix of ['', '-wal', '-shm']) rmSync(file + suffix, { force: true })
    return prepareDatabase(new DatabaseSync(file))
  }
}

function prepareDatabase (database: DatabaseSync): DatabaseSync {
  try {
    database.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -${CACHE_KIB}`)
    const format = numberIn(database.prepare('PRAGMA user_version').get(), 'user_version')
    if (format !== FORMAT) database.exec('DROP TABLE IF EXISTS announced')
    database.exec(`
      CREATE TABLE IF NOT EXISTS announced (place BLOB PRIMARY KEY, digest BLOB NOT NULL, due INTEGER NOT NULL) STRICT, WITHOUT ROWID;
      CREATE INDEX IF NOT EXISTS announced_due ON announced (due);
      PRAGMA user_version = ${FORMAT}`)
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

function keyIn (row: Record<string, unknown> | undefined): QueuedKey | undefined {
  if (row === undefined || !(row.place instanceof Uint8Array) || !(row.digest instanceof Uint8Array)) return undefined
  return { kadId: row.place, digest: row.digest }
}

function numberIn (row: Record<string, unknown> | undefined, name: string): number | undefined {
  const value = row?.[name]
  return typeof value === 'number' ? value : undefined
}
