import { KiB, LANE_FRAME_PAYLOAD_BYTES_MAX, LANE_SEND_BUFFERS_MAX } from '../../base/index.ts'
import { DATA_HEAD_BYTES } from '../wire.ts'

/** One data frame. */
export const SEND_BUFFER_BYTES = DATA_HEAD_BYTES + LANE_FRAME_PAYLOAD_BYTES_MAX
/** Less than this is not worth a pooled buffer. */
const SMALL_BYTES = 8 * KiB

/**
 * Buffers for what is being sent, used again as soon as the kernel has taken their bytes: first-touch memory costs more
 * than encrypting it. The last one given back goes out first, because it is still in the cache. All lanes share a pool;
 * what it keeps is bounded, what is out is bounded by each lane's own queue.
 */
export class BufferPool {
  readonly #free: Uint8Array[] = []
  readonly #isShared: boolean

  /** `shared`: other threads are given what is sent, without a copy. */
  constructor (options: { shared?: boolean } = {}) { this.#isShared = options.shared ?? false }

  get free (): number { return this.#free.length }

  take (bytes: number): Uint8Array {
    if (bytes <= SMALL_BYTES || bytes > SEND_BUFFER_BYTES) return new Uint8Array(bytes)
    const buffer = this.#free.pop() ?? (this.#isShared ? new Uint8Array(new SharedArrayBuffer(SEND_BUFFER_BYTES)) : Buffer.allocUnsafeSlow(SEND_BUFFER_BYTES))
    return bytes === SEND_BUFFER_BYTES ? buffer : buffer.subarray(0, bytes)
  }

  /** For what take() gave, or any other buffer, which is then left to the collector. */
  give (bytes: Uint8Array): void {
    if (bytes.buffer.byteLength !== SEND_BUFFER_BYTES || this.#free.length >= LANE_SEND_BUFFERS_MAX) return
    this.#free.push(new Uint8Array(bytes.buffer))
  }
}
