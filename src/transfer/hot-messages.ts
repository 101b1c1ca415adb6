import type { CID } from 'multiformats/cid'
import { CID_BYTES, decodeCid } from '../model/index.ts'

/**
 * HEAD and REQUEST, of which each block has one, written and read by hand: the DAG-CBOR library takes as long for the two as
 * hashing 100 KiB (it reads maps into objects, and encodes what it read once more to see that it was canonical). The bytes are
 * the library's to the last one, and whatever does not look like them to the last one is left to it. Used by messages.ts alone.
 */

export interface BlockHead { id: number, size: number }
export interface BlockRequest { id: number, cid: CID }

/** A map of two, and its first key: keys go by length, so this is always the first. */
const MAP_WITH_ID = [0xa2, 0x62, 0x69, 0x64]
const KEY_SIZE = [0x64, 0x73, 0x69, 0x7a, 0x65]
/** Key, tag 42, a byte string that begins with 0: a link of our only length. */
const KEY_CID = [0x63, 0x63, 0x69, 0x64, 0xd8, 0x2a, 0x58, CID_BYTES + 1, 0x00]
const ARRAY = 4
const UINT_BYTES_MAX = 5
const REQUEST_BYTES_MAX = MAP_WITH_ID.length + UINT_BYTES_MAX + KEY_CID.length + CID_BYTES

/** Undefined where the library has to do it: numbers beyond 32 bits. */
export function packHead ({ id, size }: BlockHead): Uint8Array | undefined {
  if (!isUint32(id) || !isUint32(size)) return undefined
  const writer = new Writer(MAP_WITH_ID.length + KEY_SIZE.length + 2 * UINT_BYTES_MAX)
  writer.raw(MAP_WITH_ID)
  writer.head(0, id)
  writer.raw(KEY_SIZE)
  writer.head(0, size)
  return writer.done()
}

export function packRequests (requests: readonly BlockRequest[]): Uint8Array | undefined {
  if (!requests.every(({ id, cid }) => isUint32(id) && cid.bytes.length === CID_BYTES)) return undefined
  const writer = new Writer(UINT_BYTES_MAX + requests.length * REQUEST_BYTES_MAX)
  writer.head(ARRAY, requests.length)
  for (const { id, cid } of requests) {
    writer.raw(MAP_WITH_ID)
    writer.head(0, id)
    writer.raw(KEY_CID)
    writer.raw(cid.bytes)
  }
  return writer.done()
}

/** Undefined where the library has to look, and mostly to say what is wrong. */
export function unpackHead (body: Uint8Array): BlockHead | undefined {
  const reader = new Reader(body)
  if (!reader.raw(MAP_WITH_ID)) return undefined
  const id = reader.head(0)
  if (id === undefined || !reader.raw(KEY_SIZE)) return undefined
  const size = reader.head(0)
  return size === undefined || !reader.over ? undefined : { id, size }
}

/** As above. Throws InvalidCidError for a link to what is no block and no metadata. */
export function unpackRequests (body: Uint8Array): BlockRequest[] | undefined {
  const reader = new Reader(body)
  const count = reader.head(ARRAY)
  if (count === undefined || count === 0) return undefined
  const requests: BlockRequest[] = []
  for (let i = 0; i < count; i++) {
    if (!reader.raw(MAP_WITH_ID)) return undefined
    const id = reader.head(0)
    if (id === undefined || !reader.raw(KEY_CID)) return undefined
    const cid = reader.take(CID_BYTES)
    if (cid === undefined) return undefined
    requests.push({ id, cid: decodeCid(cid) })
  }
  return reader.over ? requests : undefined
}

function isUint32 (value: number): boolean { return Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff }

class Writer {
  readonly #bytes: Uint8Array
  #at = 0

  constructor (bytesMax: number) { this.#bytes = new Uint8Array(bytesMax) }

  raw (bytes: ArrayLike<number>): void {
    this.#bytes.set(bytes, this.#at)
    this.#at += bytes.length
  }

  /** A head of CBOR in its shortest form (RFC 8949, section 4.2.1). `value` has 32 bits. */
  head (major: number, value: number): void {
    const bytes = value < 24 ? 0 : value < 0x100 ? 1 : value < 0x1_0000 ? 2 : 4
    this.#bytes[this.#at++] = (major << 5) | (bytes === 0 ? value : bytes === 1 ? 24 : bytes === 2 ? 25 : 26)
    for (let i = bytes - 1; i >= 0; i--) this.#bytes[this.#at++] = (value >>> (8 * i)) & 0xff
  }

  done (): Uint8Array { return this.#bytes.subarray(0, this.#at) }
}

class Reader {
  readonly #bytes: Uint8Array
  #at = 0

  constructor (bytes: Uint8Array) { this.#bytes = bytes }

  get over (): boolean { return this.#at === this.#bytes.length }

  /** Are these the next bytes? */
  raw (bytes: readonly number[]): boolean {
    for (const byte of bytes) if (this.#bytes[this.#at++] !== byte) return false
    return true
  }

  take (length: number): Uint8Array | undefined {
    const start = this.#at
    this.#at += length
    return this.#at > this.#bytes.length ? undefined : this.#bytes.subarray(start, this.#at)
  }

  /** The number of a head of this kind; undefined for another kind, more than 32 bits, or a longer form than need be. */
  head (major: number): number | undefined {
    const first = this.#bytes[this.#at++] ?? 0xff
    if (first >> 5 !== major) return undefined
    const info = first & 31
    if (info < 24) return info
    if (info > 26) return undefined
    const bytes = info === 24 ? 1 : info === 25 ? 2 : 4
    let value = 0
    for (let i = 0; i < bytes; i++) value = value * 256 + (this.#bytes[this.#at++] ?? NaN)
    const least = bytes === 1 ? 24 : bytes === 2 ? 0x100 : 0x1_0000
    return value >= least ? value : undefined // NaN, where the bytes end too soon, is neither
  }
}
