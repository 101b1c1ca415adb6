import type { ReplicationCounters, ReplicationEvent } from './types.ts'

const REPAIRS_REMEMBERED = 32

/** Counts what happens. */
export class Tally {
  readonly #repairMs: number[] = []
  #repairBytes = 0
  #repairs = 0
  #proofsAsked = 0
  #proofsFailed = 0
  #released = 0

  note (event: ReplicationEvent): void {
    if (event.type === 'proof-asked') this.#proofsAsked++
    else if (event.type === 'proof-failed') this.#proofsFailed++
    else if (event.type === 'released') this.#released++
    else if (event.type === 'restored') {
      this.#repairMs.push(event.ms)
      if (this.#repairMs.length > REPAIRS_REMEMBERED) this.#repairMs.shift()
    }
  }

  pulled (bytes: number): void {
    this.#repairs++
    this.#repairBytes += bytes
  }

  /** Median of the last ones. */
  get repairMs (): number | undefined {
    const sorted = [...this.#repairMs].sort((a, b) => a - b)
    return sorted[sorted.length >> 1]
  }

  counters (): Omit<ReplicationCounters, 'messagesSent' | 'messageBytesSent'> {
    return { repairBytes: this.#repairBytes, repairs: this.#repairs, proofsAsked: this.#proofsAsked, proofsFailed: this.#proofsFailed, released: this.#released }
  }
}
