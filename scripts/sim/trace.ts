import { MINUTE, HOUR, SECOND, type Key } from './types.ts'

interface Line { at: number, key: Key | undefined, text: string }

/**
 * A hash over everything that happens, always; the text of it only in the second run of a seed that failed, where it
 * costs nobody anything.
 */
export class Trace {
  readonly #lines: Line[] | undefined
  #a = 0x811c9dc5
  #b = 0x9e3779b9

  constructor (keep: boolean) { this.#lines = keep ? [] : undefined }

  get keeps (): boolean { return this.#lines !== undefined }

  mix (value: number): void {
    this.#a = Math.imul(this.#a ^ (value | 0), 0x01000193)
    this.#b = Math.imul((this.#b << 5 | this.#b >>> 27) ^ this.#a, 0x85ebca6b)
  }

  mixBytes (bytes: Uint8Array): void {
    for (const byte of bytes) this.mix(byte)
  }

  mixText (text: string): void {
    for (let i = 0; i < text.length; i++) this.mix(text.charCodeAt(i))
  }

  /** Only when `keeps`: callers build the text only then. */
  line (at: number, key: Key | undefined, text: string): void { this.#lines?.push({ at, key, text }) }

  get hash (): string {
    return [this.#a, this.#b].map(word => (word >>> 0).toString(16).padStart(8, '0')).join('')
  }

  /** The last lines about one shard, and about no shard in particular. */
  text (key: Key | undefined, lines: number, until = Infinity): string[] {
    return (this.#lines ?? [])
      .filter(line => (key === undefined || line.key === undefined || line.key === key) && line.at <= until)
      .slice(-lines)
      .map(line => `${clock(line.at)}  ${line.text}`)
  }
}

export function clock (ms: number): string {
  const part = (value: number, digits = 2): string => String(Math.floor(value)).padStart(digits, '0')
  return `${part(ms / HOUR)}:${part(ms % HOUR / MINUTE)}:${part(ms % MINUTE / SECOND)}.${part(ms % SECOND, 3)}`
}
