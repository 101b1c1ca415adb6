import { DiskError, OutOfSpaceError, ShoalError, asError, systemCode } from '../base/index.ts'

/** SQLite's primary result codes that matter here (sqlite.org/rescode.html). */
const SQLITE_BUSY = 5
const SQLITE_CORRUPT = 11
const SQLITE_FULL = 13
const SQLITE_NOTADB = 26

const NO_SPACE = new Set(['ENOSPC', 'EDQUOT'])
/** What says that the volume, not this one call, is at fault. */
const VOLUME_CODES = new Set(['ENOSPC', 'EDQUOT', 'EIO', 'EROFS'])
/**
 * What a write around the page cache hands on of the block layer, word for word, where a buffered one says EIO: medium, link, device and
 * the like (blk_errors in Linux's block/blk-core.c). libuv has no names for ENOLINK and EBADE.
 */
const DEVICE_CODES = new Set(['ENODATA', 'ETIMEDOUT', 'EREMOTEIO', 'EILSEQ', 'ENODEV', 'Unknown system error -67', 'Unknown system error -52'])
const SYNCS = new Set(['fsync', 'fdatasync'])

/** The extended result code's low byte, for an error of node:sqlite. */
function sqliteCode (error: unknown): number | undefined {
  if (!(error instanceof Error) || !('errcode' in error) || typeof error.errcode !== 'number') return undefined
  return error.errcode & 0xff
}

export function isCatalogBusy (error: unknown): boolean { return sqliteCode(error) === SQLITE_BUSY }
export function isCatalogCorrupt (error: unknown): boolean {
  const code = sqliteCode(error)
  return code === SQLITE_CORRUPT || code === SQLITE_NOTADB
}

/** The error of ours for whatever a disk operation threw. `what` reads like "cannot write block 3 of ...". */
export function diskError (error: unknown, what: string): ShoalError {
  if (error instanceof ShoalError) return error
  const code = systemCode(error)
  if ((code !== undefined && NO_SPACE.has(code)) || sqliteCode(error) === SQLITE_FULL) {
    return new OutOfSpaceError(`${what}: the disk is full. Nothing recorded is lost; free some space and it goes on`, { cause: error })
  }
  return new DiskError(`${what}: ${asError(error).message}`, { cause: error })
}

/** True when the disk could not give what lies in an open file. Any other error says something about this call or this process. */
export function isUnreadable (error: unknown): boolean {
  const cause = error instanceof DiskError ? error.cause : error
  if (systemCode(cause) !== 'EIO') return false
  const syscall = syscallOf(cause)
  return syscall === undefined || syscall === 'read'
}

function syscallOf (error: unknown): unknown {
  return error instanceof Error && 'syscall' in error ? error.syscall : undefined
}

/** True when nothing more should be written to the volume until it has been looked at. */
export function volumeAtFault (error: unknown): boolean {
  if (error instanceof OutOfSpaceError) return true
  const cause = error instanceof DiskError ? error.cause : error
  const code = systemCode(cause)
  const sqlite = sqliteCode(cause)
  const syscall = syscallOf(cause)
  // A sync has nothing to be wrong but what it writes to.
  if (SYNCS.has(String(syscall)) || (syscall === 'write' && code !== undefined && DEVICE_CODES.has(code))) return true
  return (code !== undefined && VOLUME_CODES.has(code)) || (sqlite !== undefined && sqlite !== SQLITE_BUSY)
}
