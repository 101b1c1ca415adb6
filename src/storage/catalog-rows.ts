import type { SQLOutputValue } from 'node:sqlite'
import { crc32 } from 'node:zlib'
import { DiskError } from '../base/index.ts'
import type { Encoded, FileIndex } from '../model/types.ts'
import type { FileGuard } from './store.ts'

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

export type Row = Record<string, SQLOutputValue>

/** The catalog cannot be read as one; it is set aside and rebuilt. */
export class UnknownSchemaError extends DiskError {}

/** Throws UnknownSchemaError for a row that is not what was written: SQLite itself would not notice a flipped bit. */
export function fileOf (row: Row): FileRow {
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
  return { id: integer(row, 'id'), key, size: integer(row, 'size'), blocks: integer(row, 'blocks'), ...presence, guard }
}

export function presenceCrc (key: string, { present, presentBytes, rescan }: Presence): number {
  return crc32(present, crc32(`${key} ${presentBytes} ${rescan ?? ''}`))
}

export function integer (row: Row, column: string): number {
  const value = row[column]
  if (typeof value !== 'number') throw new UnknownSchemaError(`its column ${column} holds no number`)
  return value
}

export function text (row: Row, column: string): string {
  const value = row[column]
  if (typeof value !== 'string') throw new UnknownSchemaError(`its column ${column} holds no text`)
  return value
}

export function blob (row: Row, column: string): Uint8Array {
  const value = row[column]
  if (!(value instanceof Uint8Array)) throw new UnknownSchemaError(`its column ${column} holds no bytes`)
  return value
}
