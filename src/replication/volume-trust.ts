/**
 * Whether the data volume is to be trusted. With several bad places in one scrub pass it is suspect, and stays so over restarts: only the
 * first whole pass of a life clears it, when that finds nothing bad. Pure; who scrubs saves what it says.
 */
export class VolumeTrust {
  readonly #placesMax: number
  #suspectSince: number | undefined
  #onProbation: boolean

  /** `suspectSince`: as a former life left it. */
  constructor (suspectSince: number | undefined, placesMax: number) {
    this.#placesMax = placesMax
    this.#suspectSince = suspectSince
    this.#onProbation = suspectSince !== undefined
  }

  get suspectSince (): number | undefined { return this.#suspectSince }
  get suspect (): boolean { return this.#suspectSince !== undefined }
  /** It was suspect when this life began, and has not been looked at in full since. */
  get onProbation (): boolean { return this.#onProbation }

  /** So many bad places have been found in this pass. Says whether that made it suspect. */
  found (places: number, now: number): boolean {
    if (this.suspect || places < this.#placesMax) return false
    this.#suspectSince = now
    return true
  }

  /** A pass has looked at all there is, and found so many. Says whether that cleared the volume. */
  passed (places: number): boolean {
    if (!this.#onProbation) return false
    this.#onProbation = false
    if (places > 0) return false
    this.#suspectSince = undefined
    return true
  }
}
