import { HF_BUFFER_BYTES, HF_BUFFERS_MAX, HF_SMALL_BUFFER_BYTES } from '../base/index.ts'

/** Of those that are free: what a busy endpoint uses, and little memory for an idle one. */
const KEPT = 4

/**
 * Buffers that file bytes pass through, used again and again. When too many are out, because many readers are slow, others
 * get small ones, so that neither do they wait for those nor does memory grow with their number.
 */
export class Buffers {
  readonly #free: Buffer[] = []
  #out = 0

  take (): Buffer {
    const free = this.#free.pop()
    if (free === undefined && this.#out >= HF_BUFFERS_MAX) return Buffer.allocUnsafeSlow(HF_SMALL_BUFFER_BYTES)
    this.#out++
    return free ?? Buffer.allocUnsafeSlow(HF_BUFFER_BYTES)
  }

  /** Once, when nobody reads or writes it any more. */
  give (buffer: Buffer): void {
    if (buffer.length !== HF_BUFFER_BYTES) return
    this.#out--
    if (this.#free.length < KEPT) this.#free.push(buffer)
  }
}
