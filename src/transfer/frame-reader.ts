import { asError } from '../base/index.ts'
import { FrameParser, type FrameRules, type FrameSink } from './wire.ts'

/** Feeds a parser from chunks as they come, and keeps what it did not take because it was held. */
export class FrameReader {
  readonly #parser: FrameParser
  readonly #failed: (error: Error) => void
  #rest: Uint8Array[] = []
  #reading = false
  #closed = false

  /** `failed` is told of what a sink or the parser threw, and nothing is read after that. */
  constructor (rules: FrameRules, sink: FrameSink, failed: (error: Error) => void) {
    this.#parser = new FrameParser(rules, sink)
    this.#failed = failed
  }

  get held (): boolean { return this.#parser.held }
  /** Nothing is read from now on until release(). May be called from within a sink call. */
  hold (): void { this.#parser.held = true }

  release (): void {
    this.#parser.held = false
    this.#read()
  }

  /** Where the next chunk should be put that is lent; undefined: anywhere. */
  place (): Uint8Array | undefined {
    return this.#closed || this.#reading || this.#rest.length > 0 ? undefined : this.#parser.place()
  }

  /** The chunk is the reader's from now on. */
  push (chunk: Uint8Array): void {
    if (this.#closed) return
    this.#rest.push(chunk)
    this.#read()
  }

  /** The chunk is the caller's again when this returns: what cannot be read now is copied. */
  lend (chunk: Uint8Array): void {
    if (this.#closed) return
    if (this.#rest.length > 0 || this.#reading || this.#parser.held) {
      this.push(new Uint8Array(chunk))
      return
    }
    this.#reading = true
    let consumed = chunk.length
    try {
      consumed = this.#parser.push(chunk)
    } catch (error) {
      this.#fail(error)
    } finally {
      this.#reading = false
    }
    if (consumed < chunk.length && !this.#isClosed()) this.#rest.unshift(new Uint8Array(chunk.subarray(consumed)))
    if (this.#rest.length > 0) this.#read()
  }

  close (): void {
    this.#closed = true
    this.#rest = []
  }

  /** Until it is held or has all; calls from within a sink call only leave a note by way of `held`. */
  #read (): void {
    if (this.#reading) return
    this.#reading = true
    try {
      while (this.#rest.length > 0 && !this.#parser.held && !this.#closed) {
        const chunk = this.#rest[0] as Uint8Array
        const consumed = this.#parser.push(chunk)
        if (consumed === chunk.length) this.#rest.shift()
        else if (!this.#closed) this.#rest[0] = chunk.subarray(consumed)
      }
    } catch (error) {
      this.#fail(error)
    } finally {
      this.#reading = false
    }
  }

  // A sink call may have closed it, which control flow analysis cannot see.
  #isClosed (): boolean { return this.#closed }

  #fail (error: unknown): void {
    if (this.#closed) return
    this.close()
    this.#failed(asError(error))
  }
}
