import { accessSync, constants, readFileSync, writeFileSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { DiskError, StoreLockedError, asError, systemCode } from '../base/index.ts'
import { isCatalogBusy } from './disk-errors.ts'
import type { Layout } from './layout.ts'

/**
 * Keeps a data directory to one process. Node has no flock, but SQLite locks its files, and such a lock goes with
 * the process however it ends: an exclusive transaction on an empty database is held open for as long as the store is.
 * Nothing else may open that file: POSIX drops a process's locks when it closes any descriptor of it.
 */
export class ProcessLock implements Disposable {
  readonly #database: DatabaseSync

  /** Throws StoreLockedError, which names the process that has it. */
  constructor (layout: Layout) {
    let database: DatabaseSync | undefined
    try {
      database = new DatabaseSync(layout.lock, { timeout: 0 })
      database.exec('PRAGMA journal_mode = OFF; BEGIN EXCLUSIVE')
    } catch (error) {
      database?.close()
      if (!isCatalogBusy(error)) throw unlockable(layout, error)
      throw new StoreLockedError(`${layout.directory} is in use by ${owner(layout)}; stop that one, or give another --data directory`, { cause: error })
    }
    this.#database = database
    try {
      writeFileSync(layout.lockOwner, `${process.pid}\n`)
    } catch {
      // Only for the message of who comes second; a full disk must not keep us from starting.
    }
  }

  [Symbol.dispose] (): void {
    this.#database.close()
  }
}

/** SQLite says only that it could not; nothing is opened to find out why, as that might drop a lock of this process. */
function unlockable ({ directory, lock }: Layout, error: unknown): DiskError {
  const otherwise = 'or give another --data directory'
  for (const path of [directory, lock]) {
    const code = refusal(path)
    if (code === 'EACCES' || code === 'EPERM') return new DiskError(`cannot lock ${directory}: this user may not write ${path}; run as the user it belongs to, ${otherwise}`, { cause: error })
    if (code === 'EROFS') return new DiskError(`cannot lock ${directory}: its volume is read-only; mount it for writing, ${otherwise}`, { cause: error })
  }
  return new DiskError(`cannot lock ${directory} by ${lock}: ${asError(error).message}; look at that file and its volume, ${otherwise}`, { cause: error })
}

function refusal (path: string): string | undefined {
  try {
    accessSync(path, constants.R_OK | constants.W_OK)
    return undefined
  } catch (error) {
    return systemCode(error)
  }
}

function owner (layout: Layout): string {
  try {
    const pid = readFileSync(layout.lockOwner, 'utf8').trim()
    if (/^[0-9]{1,10}$/.test(pid)) return pid === String(process.pid) ? `this process (pid ${pid})` : `the process with pid ${pid}`
  } catch {
    // It has the lock and has not written its pid yet.
  }
  return 'another process'
}
