import { MiB, sleep, type Clock } from '../base/index.ts'
import { TokenBucket, rateAt, type RateWindow } from '../transfer/index.ts'

/** What is asked for at a time: a cap of some MiB a second is kept to within a few seconds, and a fast link stays full. */
export const PACE_BYTES = 16 * MiB

/** The hour may end a cap while somebody waits under it. */
const LOOK_MS = 60_000

/** Keeps a sum of bytes a second over all who take. A promise settles when the bytes may be asked for. */
export class Pace {
  readonly #clock: Clock
  readonly #bucket: TokenBucket
  readonly #bytesPerSecond: number
  readonly #windows: readonly RateWindow[]

  /** `windows`: what is less at some times of the day. */
  constructor (clock: Clock, bytesPerSecond: number, windows: readonly RateWindow[] = []) {
    this.#clock = clock
    this.#bytesPerSecond = bytesPerSecond
    this.#windows = windows
    this.#bucket = new TokenBucket(Math.max(1, bytesPerSecond), Math.max(1, bytesPerSecond), clock.monotonic())
  }

  async take (bytes: number, signal: AbortSignal): Promise<void> {
    for (let waitMs = this.#waitMs(); waitMs > 0; waitMs = this.#waitMs()) await sleep(this.#clock, Math.min(waitMs, LOOK_MS), signal)
    this.#bucket.take(bytes, this.#clock.monotonic())
  }

  /** Counted, and not waited for. */
  spend (bytes: number): void {
    this.#bucket.take(bytes, this.#clock.monotonic())
  }

  #waitMs (): number {
    const now = this.#clock.monotonic()
    if (this.#windows.length > 0) this.#bucket.setRate(Math.max(1, Math.min(this.#bytesPerSecond, rateAt(this.#windows, this.#clock.now()) ?? Infinity)), now)
    return this.#bucket.waitMs(now)
  }
}
