import { CID_BYTES } from './block.ts'
import { ARRAY, BYTES, LINK_TAG, MAP, STRING, TAG, UINT } from './cbor.ts'

const TEXT = new TextDecoder('utf-8', { fatal: true })
const NAMES = ['a whole number', 'a negative number', 'bytes', 'text', 'an array', 'a map', 'a tag', 'a special value']

/** What the bytes were instead of what the reader was asked for. */
export class NotCanonicalError extends Error {
  override name = 'NotCanonicalError'
}

/**
 * Reads DAG-CBOR whose shape is known beforehand. The caller asks for each item in its canonical place, and every
 * number must be in its shortest form, so bytes that pass are the only ones for their value: what is non-canonical,
 * nested deeper than asked, indefinite or oversized is refused at its head, before anything is allocated for it.
 */
export class CanonicalReader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  #at = 0

  constructor (bytes: Uint8Array) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  /** The head of a map with exactly this many entries. */
  map (entries: number): void {
    const found = this.#head(MAP)
    if (found !== entries) throw this.#error(`a map of ${found} entries where ${entries} belong`)
  }

  /** The head of a map with one of these numbers of entries, which it returns. */
  mapOf (...entries: number[]): number {
    const found = this.#head(MAP)
    if (!entries.includes(found)) throw this.#error(`a map of ${found} entries where ${entries.join(' or ')} belong`)
    return found
  }

  key (name: string): void {
    if (this.#skipKey(name)) return
    const found = this.text(name.length, 'the key')
    throw this.#error(`the key "${found}" where "${name}" belongs`)
  }

  /** A name in ASCII of at most 23 characters, compared where it lies: making text of each of 100,000 takes longer than all the rest. */
  #skipKey (name: string): boolean {
    const at = this.#at
    if (this.#bytes[at] !== (STRING << 5 | name.length)) return false
    for (let i = 0; i < name.length; i++) if (this.#bytes[at + 1 + i] !== name.charCodeAt(i)) return false
    this.#at = at + 1 + name.length
    return true
  }

  /** The head of an array: how many items follow. */
  array (most: number, what: string): number {
    const length = this.#head(ARRAY)
    if (length > most) throw this.#error(`${length} ${what}; at most ${most} are allowed`)
    return length
  }

  uint (most: number, what: string): number {
    const value = this.#head(UINT)
    if (value > most) throw this.#error(`${what} is ${value}; at most ${most} is allowed`)
    return value
  }

  text (bytesMax: number, what: string): string {
    const length = this.#head(STRING)
    if (length > bytesMax) throw this.#error(`${what} has ${length} bytes; at most ${bytesMax} are allowed`)
    try {
      return TEXT.decode(this.#take(length))
    } catch (error) {
      if (error instanceof NotCanonicalError) throw error
      throw this.#error(`${what} is not UTF-8`)
    }
  }

  /** A view of exactly `length` bytes. */
  bytes (length: number, what: string): Uint8Array {
    const found = this.#head(BYTES)
    if (found !== length) throw this.#error(`${what} has ${found} bytes where ${length} belong`)
    return this.#take(length)
  }

  /** A view of the bytes of a link's CID, which are of the right length and otherwise unchecked. */
  link (what: string): Uint8Array {
    const at = this.#link(what)
    return this.#bytes.subarray(at, at + CID_BYTES)
  }

  /** The same bytes, put to `offset` of `into`. Makes nothing: a file index has 400,000 links. */
  linkInto (into: Uint8Array, offset: number, what: string): void {
    const at = this.#link(what)
    for (let i = 0; i < CID_BYTES; i++) into[offset + i] = this.#bytes[at + i] ?? 0
  }

  /** Where the bytes of a link's CID begin, and are whole. */
  #link (what: string): number {
    const tag = this.#head(TAG)
    if (tag !== LINK_TAG) throw this.#error(`${what} is the tag ${tag}, not a link`)
    const length = this.#head(BYTES)
    if (length !== 1 + CID_BYTES) throw this.#error(`${what} has ${length} bytes where ${1 + CID_BYTES} belong`)
    const at = this.#skip(length)
    if (this.#bytes[at] !== 0) throw this.#error(`${what} is not a link in binary form`)
    return at + 1
  }

  end (): void {
    if (this.#at !== this.#bytes.length) throw this.#error(`${this.#bytes.length - this.#at} bytes after the end`)
  }

  #head (major: number): number {
    const at = this.#at
    const first = this.#bytes[this.#skip(1)] ?? 0
    const found = first >> 5
    if (found !== major) throw this.#error(`${NAMES[found] ?? found} where ${NAMES[major] ?? major} belongs`, at)
    const minor = first & 31
    if (minor < 24) return minor
    if (minor > 27) throw this.#error('an indefinite or reserved length', at)
    const width = 1 << (minor - 24)
    this.#skip(width)
    const value = this.#number(at + 1, width)
    const least = width === 1 ? 24 : 2 ** (width * 4)
    if (value < least) throw this.#error('a number that is not in its shortest form', at)
    return value
  }

  #number (at: number, width: number): number {
    if (width === 1) return this.#view.getUint8(at)
    if (width === 2) return this.#view.getUint16(at)
    if (width === 4) return this.#view.getUint32(at)
    // Beyond 2^53 it may round, never below it: the limits on every number here are at most 2^53 - 1.
    return this.#view.getUint32(at) * 2 ** 32 + this.#view.getUint32(at + 4)
  }

  #take (length: number): Uint8Array {
    const start = this.#skip(length)
    return this.#bytes.subarray(start, start + length)
  }

  /** Where that many bytes begin. */
  #skip (length: number): number {
    const start = this.#at
    if (start + length > this.#bytes.length) throw this.#error('the bytes end too early')
    this.#at = start + length
    return start
  }

  #error (why: string, at = this.#at): NotCanonicalError {
    return new NotCanonicalError(`at byte ${at}: ${why}`)
  }
}
