import { CID_BYTES } from './block.ts'

const TEXT = new TextDecoder('utf-8', { fatal: true })
const UINT = 0
const BYTES = 2
const STRING = 3
const ARRAY = 4
const MAP = 5
const TAG = 6
const NAMES = ['a whole number', 'a negative number', 'bytes', 'text', 'an array', 'a map', 'a tag', 'a special value']
/** DAG-CBOR links are tag 42 over the CID's bytes behind a zero (ipld.io/specs/codecs/dag-cbor). */
const LINK_TAG = 42

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
    const found = this.text(name.length, 'the key')
    if (found !== name) throw this.#error(`the key "${found}" where "${name}" belongs`)
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
    const tag = this.#head(TAG)
    if (tag !== LINK_TAG) throw this.#error(`${what} is the tag ${tag}, not a link`)
    const bytes = this.bytes(1 + CID_BYTES, what)
    if (bytes[0] !== 0) throw this.#error(`${what} is not a link in binary form`)
    return bytes.subarray(1)
  }

  end (): void {
    if (this.#at !== this.#bytes.length) throw this.#error(`${this.#bytes.length - this.#at} bytes after the end`)
  }

  #head (major: number): number {
    const at = this.#at
    const first = this.#take(1)[0] ?? 0
    const found = first >> 5
    if (found !== major) throw this.#error(`${NAMES[found] ?? found} where ${NAMES[major] ?? major} belongs`, at)
    const minor = first & 31
    if (minor < 24) return minor
    if (minor > 27) throw this.#error('an indefinite or reserved length', at)
    const width = 1 << (minor - 24)
    this.#take(width)
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
    const start = this.#at
    if (start + length > this.#bytes.length) throw this.#error('the bytes end too early')
    this.#at = start + length
    return this.#bytes.subarray(start, start + length)
  }

  #error (why: string, at = this.#at): NotCanonicalError {
    return new NotCanonicalError(`at byte ${at}: ${why}`)
  }
}
