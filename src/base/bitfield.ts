/**
 * A set of small whole numbers as packed bits, least significant bit of byte 0 first.
 * The wire and the catalog hold exactly `ceil(length / 8)` bytes; spare bits are zero.
 */
export class Bitfield {
  readonly length: number
  readonly bytes: Uint8Array
  #count: number

  constructor (length: number, bytes?: Uint8Array) {
    const need = Math.ceil(length / 8)
    if (bytes !== undefined && bytes.length !== need) throw new RangeError(`a bitfield of ${length} needs ${need} bytes, got ${bytes.length}`)
    this.length = length
    this.bytes = bytes ?? new Uint8Array(need)
    if (bytes !== undefined && (length & 7) !== 0 && need > 0) {
      if (((bytes[need - 1] ?? 0) >> (length & 7)) !== 0) throw new RangeError('spare bits of a bitfield must be zero')
    }
    this.#count = 0
    for (const byte of this.bytes) this.#count += popcount(byte)
  }

  static full (length: number): Bitfield {
    const bytes = new Uint8Array(Math.ceil(length / 8)).fill(0xff)
    if ((length & 7) !== 0) bytes[bytes.length - 1] = (1 << (length & 7)) - 1
    return new Bitfield(length, bytes)
  }

  /** How many bits are set. */
  get count (): number { return this.#count }
  get full (): boolean { return this.#count === this.length }

  has (i: number): boolean {
    return ((this.bytes[i >> 3] ?? 0) & (1 << (i & 7))) !== 0
  }

  /** Sets or clears bit `i`; says whether that changed anything. Throws RangeError outside [0, length). */
  set (i: number, value = true): boolean {
    if (!Number.isInteger(i) || i < 0 || i >= this.length) throw new RangeError(`bit ${i} is outside 0..${this.length - 1}`)
    if (this.has(i) === value) return false
    const at = i >> 3
    if (value) this.bytes[at] = (this.bytes[at] ?? 0) | (1 << (i & 7))
    else this.bytes[at] = (this.bytes[at] ?? 0) & ~(1 << (i & 7))
    this.#count += value ? 1 : -1
    return true
  }

  /** The set bits in rising order. */
  * [Symbol.iterator] (): Generator<number> {
    for (let at = 0; at < this.bytes.length; at++) {
      const byte = this.bytes[at] ?? 0
      if (byte === 0) continue
      for (let bit = 0; bit < 8; bit++) if ((byte & (1 << bit)) !== 0) yield at * 8 + bit
    }
  }

  /** Whether it is packed into the same bytes. */
  hasBytes (bytes: Uint8Array): boolean { return this.bytes.length === bytes.length && this.bytes.every((byte, at) => byte === bytes[at]) }

  clone (): Bitfield { return new Bitfield(this.length, this.bytes.slice()) }
}

function popcount (byte: number): number {
  let n = byte
  n -= (n >> 1) & 0x55
  n = (n & 0x33) + ((n >> 2) & 0x33)
  return (n + (n >> 4)) & 0x0f
}
