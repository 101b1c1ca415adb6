/** What was measured counts half as much after this long: a link that has become slow shows within a minute. */
const HALF_LIFE_MS = 10_000
/** An older measure says nothing about the repair that runs now. */
const STALE_MS = 60 * 60_000
/** Told less often than that, nothing was on its way in between. */
const GAP_MS = 5_000
/** Of a repair elsewhere only the end is heard: one that is late takes a tenth of its age more, at least. */
const LATE_SHARE = 0.1

/** How fast replicas of a model come to one holder, as measured: bytes over the time in which any were on their way. Pure. */
export class RepairPace {
  #bytes = 0
  #ms = 0
  #at = -Infinity

  /** `bytes` came within the last `ms`; 0: nothing did. */
  came (bytes: number, ms: number, now: number): void {
    const kept = now - this.#at > STALE_MS ? 0 : 2 ** (-(now - this.#at) / HALF_LIFE_MS)
    this.#bytes = this.#bytes * kept + bytes
    this.#ms = this.#ms * kept + ms
    this.#at = now
  }

  /** `bytes` came since the last call; called again and again while something is on its way. */
  cameSince (bytes: number, now: number): void {
    if (now - this.#at <= GAP_MS) this.came(bytes, now - this.#at, now)
    // How long the first ones took is not known: they start the watch.
    else if (bytes > 0) this.came(0, 0, now)
  }

  /** Undefined while nothing was measured. */
  bytesPerMs (now: number): number | undefined {
    return now - this.#at > STALE_MS || this.#bytes <= 0 || this.#ms <= 0 ? undefined : this.#bytes / this.#ms
  }
}

/** What a model lacks, as far as this node knows. */
export interface RepairWork {
  /** Bytes that are left of what is on its way here; undefined: nothing is. */
  here: number | undefined
  /** What is on its way to each other holder: bytes, and how long ago it began or the last of it came. */
  elsewhere: Array<{ bytes: number, ms: number }>
  /** Bytes of the copies that nobody fetches yet. */
  waitingBytes: number
  /** Until the last of these may begin, because their holders may come back. */
  waitMs: number
}

/**
 * Seconds until all of it is there, when what runs goes on as it does; rates in bytes per millisecond. Undefined when
 * nothing runs, or what runs was not measured yet: it is not guessed.
 */
export function secondsLeft ({ here, elsewhere, waitingBytes, waitMs }: RepairWork, rates: { here: number | undefined, elsewhere: number | undefined }): number | undefined {
  const each: number[] = []
  let work = waitingBytes
  let together = 0
  for (const { bytes, ms, rate } of [...here === undefined ? [] : [{ bytes: here, ms: 0, rate: rates.here }], ...elsewhere.map(one => ({ ...one, rate: rates.elsewhere }))]) {
    if (rate === undefined) return undefined
    const leftMs = Math.max(bytes / rate - ms, ms * LATE_SHARE)
    each.push(leftMs)
    work += leftMs * rate
    together += rate
  }
  if (each.length === 0) return undefined
  return Math.max(...each, work / together, waitingBytes > 0 ? waitMs : 0) / 1_000
}
