import { ARRAY, BYTES, LINK_TAG, MAP, STRING, TAG, UINT } from './cbor.ts'

/**
 * Writes the DAG-CBOR that CanonicalReader reads: the caller gives each item in its canonical place, numbers take their
 * shortest form. An encoder that is given the value instead makes tokens of all of it first, ten times the time.
 */
export class CanonicalWriter {
  #bytes = new Uint8Array(1024)
  #at = 0

  map (entries: number): void { this.#head(MAP, entries) }
  array (items: number): void { this.#head(ARRAY, items) }
  uint (value: number): void { this.#head(UINT, value) }

  bytes (bytes: Uint8Array): void {
    this.#head(BYTES, bytes.length)
    this.#put(bytes)
  }

  /** ASCII. */
  text (text: string): void {
    this.#head(STRING, text.length)
    this.#room(text.length)
    for (let i = 0; i < text.length; i++) this.#bytes[this.#at++] = text.charCodeAt(i)
  }

  /** The bytes of a CID. */
  link (cid: Uint8Array): void {
    this.#head(TAG, LINK_TAG)
    this.#head(BYTES, 1 + cid.length)
    this.#room(1)
    this.#bytes[this.#at++] = 0
    this.#put(cid)
  }

  /** All that was written. */
  end (): Uint8Array<ArrayBuffer> { return this.#bytes.slice(0, this.#at) }

  #head (major: number, value: number): void {
    this.#room(9)
    const width = value < 24 ? 0 : value < 2 ** 8 ? 1 : value < 2 ** 16 ? 2 : value < 2 ** 32 ? 4 : 8
    this.#bytes[this.#at++] = major << 5 | (width === 0 ? value : 24 + Math.log2(width))
    for (let left = width - 1; left >= 0; left--) this.#bytes[this.#at++] = Math.floor(value / 2 ** (8 * left))
  }

  #put (bytes: Uint8Array): void {
    this.#room(bytes.length)
    this.#bytes.set(bytes, this.#at)
    this.#at += bytes.length
  }

  #room (length: number): void {
    if (this.#at + length <= this.#bytes.length) return
    const larger = new Uint8Array(Math.max(2 * this.#bytes.length, this.#at + length))
    larger.set(this.#bytes)
    this.#bytes = larger
  }
}
