import { MiB, sleep, type Clock } from '../base/index.ts'
import { TokenBucket } from '../transfer/index.ts'

/** What is asked for at a time: a cap of some MiB a second is kept to within a few seconds, and a fast link stays full. */
export const PACE_BYTES = 16 * MiB

/** Keeps a sum of bytes a second over all who take. A promise settles when the bytes may be asked for. */
export class Pace {
  readonly #clock: Clock
  readonly #bucket: TokenBucket

  constructor (clock: Clock, bytesPerSecond: number) {
    this.#clock = clock
    this.#bucket = new TokenBucket(Math.max(1, bytesPerSecond), Math.max(1, bytesPerSecond), clock.monotonic())
  }

  async take (bytes: number, signal: AbortSignal): Promise<void> {
    for (let waitMs = this.#waitMs(); waitMs > 0; waitMs = this.#waitMs()) await sleep(this.#clock, waitMs, signal)
    this.#bucket.take(bytes, this.#clock.monotonic())
  }

  /** Counted, and not waited for. */
  spend (bytes: number): void {
    this.#bucket.take(bytes, this.#clock.monotonic())
  }

  #waitMs (): number { return this.#bucket.waitMs(this.#clock.monotonic()) }
}
