import { SAFETENSORS_NAME_BYTES_MAX, type Turns } from '../base/index.ts'

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const COLON = 0x3a
const LETTER_U = 0x75
/** What may stand behind a backslash. */
const ESCAPES = new Set([QUOTE, BACKSLASH, ...Buffer.from('/bfnrtu')])
const HEX = new Set(Buffer.from('0123456789abcdefABCDEF'))
/** Of 2^53 - 1. */
const DIGITS_MAX = 16

/**
 * Reads JSON whose shape is known beforehand, from bytes that are UTF-8. Unlike JSON.parse it tells of repeated keys,
 * builds nothing the caller does not ask for, and nests no deeper than the caller does, so that a hostile header costs
 * no more than its length.
 */
export class JsonReader {
  readonly #bytes: Buffer
  readonly #fail: (why: string) => Error
  #at = 0

  constructor (bytes: Uint8Array, fail: (why: string) => Error) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#fail = fail
  }

  /** Bytes that were read. */
  get position (): number { return this.#at }

  /** An object: `entry` is called for each key and has to read its value. */
  object (entry: (key: string) => void): void {
    if (!this.begin()) return
    do {
      entry(this.key())
    } while (this.more())
  }

  /** The same for who wants to pause in between: `begin`, then `key` and its value as long as there is one `more`. */
  begin (): boolean {
    this.#expect(0x7b, '{')
    return !this.#accept(0x7d)
  }

  key (): string {
    const key = this.string()
    this.#expect(COLON, ':')
    return key
  }

  more (): boolean {
    if (this.#accept(COMMA)) return true
    this.#expect(0x7d, '}')
    return false
  }

  string (): string {
    this.#expect(QUOTE, 'a string')
    const start = this.#at
    let plain = true
    for (let byte = this.#bytes[this.#at]; byte !== QUOTE; byte = this.#bytes[this.#at]) {
      if (byte === undefined || byte < 0x20) throw this.#error('a string that does not end')
      if (byte === BACKSLASH) {
        plain = false
        this.#at++
      }
      this.#at++
      if (this.#at - start > SAFETENSORS_NAME_BYTES_MAX) throw this.#error(`a string of more than ${SAFETENSORS_NAME_BYTES_MAX} bytes`)
    }
    this.#at++
    if (plain) return this.#bytes.toString('utf8', start, this.#at - 1)
    try {
      return JSON.parse(this.#bytes.toString('utf8', start - 1, this.#at)) as string
    } catch {
      throw this.#error('a string with a bad escape')
    }
  }

  /** Passes a string that nobody wants, however long it is: yields each time it has passed that many bytes. */
  * skipString (bytesPerTurn: number): Turns<void> {
    this.#expect(QUOTE, 'a string')
    let turnEnd = this.#at + bytesPerTurn
    for (let byte = this.#bytes[this.#at]; byte !== QUOTE; byte = this.#bytes[this.#at]) {
      if (byte === undefined || byte < 0x20) throw this.#error('a string that does not end')
      if (byte === BACKSLASH) this.#checkEscape()
      this.#at += byte === BACKSLASH ? 2 : 1
      if (this.#at < turnEnd) continue
      turnEnd = this.#at + bytesPerTurn
      yield
    }
    this.#at++
  }

  #checkEscape (): void {
    const kind = this.#bytes[this.#at + 1] ?? 0
    let isRight = ESCAPES.has(kind)
    if (kind === LETTER_U) for (let at = this.#at + 2; at < this.#at + 6; at++) isRight &&= HEX.has(this.#bytes[at] ?? 0)
    if (!isRight) throw this.#error('a string with a bad escape')
  }

  /** An array of at most `most` whole numbers, none negative, none beyond 2^53 - 1. */
  integers (most: number): number[] {
    const numbers: number[] = []
    this.#expect(0x5b, '[')
    if (this.#accept(0x5d)) return numbers
    do {
      if (numbers.length === most) throw this.#error(`more than ${most} numbers`)
      numbers.push(this.#integer())
    } while (this.#accept(COMMA))
    this.#expect(0x5d, ']')
    return numbers
  }

  /** Nothing comes but blanks, however many: a header is padded with them. Yields as `skipString` does. */
  * end (bytesPerTurn: number): Turns<void> {
    let turnEnd = this.#at + bytesPerTurn
    for (; this.#isSpace(); this.#at++) {
      if (this.#at < turnEnd) continue
      turnEnd = this.#at + bytesPerTurn
      yield
    }
    if (this.#at !== this.#bytes.length) throw this.#error('something after the end')
  }

  #integer (): number {
    this.#skipSpace()
    const start = this.#at
    let value = 0
    for (let digit = this.#digit(); digit !== undefined; digit = this.#digit()) {
      value = value * 10 + digit
      if (!Number.isSafeInteger(value) || this.#at - start === DIGITS_MAX) throw this.#error('a number beyond 2^53 - 1')
      this.#at++
    }
    const length = this.#at - start
    if (length === 0 || (length > 1 && this.#bytes[start] === 0x30)) throw this.#error('something other than a whole number')
    return value
  }

  #digit (): number | undefined {
    const byte = this.#bytes[this.#at] ?? 0
    return byte >= 0x30 && byte <= 0x39 ? byte - 0x30 : undefined
  }

  #expect (byte: number, what: string): void {
    if (!this.#accept(byte)) throw this.#error(`something other than ${what}`)
  }

  #accept (byte: number): boolean {
    this.#skipSpace()
    if (this.#bytes[this.#at] !== byte) return false
    this.#at++
    return true
  }

  #skipSpace (): void {
    for (const start = this.#at; this.#isSpace(); this.#at++) {
      if (this.#at - start === SAFETENSORS_NAME_BYTES_MAX) throw this.#error(`more than ${SAFETENSORS_NAME_BYTES_MAX} blanks`)
    }
  }

  #isSpace (): boolean {
    const byte = this.#bytes[this.#at]
    return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
  }

  #error (what: string): Error {
    return this.#fail(`${what} at byte ${this.#at} of the header`)
  }
}
