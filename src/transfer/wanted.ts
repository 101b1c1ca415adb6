import type { StoredFile } from '../storage/store.ts'
import type { BlockMap } from './block-map.ts'

const UNWANTED = 0
const MISSING = 1
const RECORDED = 2

/** Which places of a model a fetch is to fill, and which of them are recorded. */
export class WantedPlaces {
  readonly #map: BlockMap
  readonly #state: Uint8Array
  #missing = 0

  constructor (map: BlockMap) {
    this.#map = map
    this.#state = new Uint8Array(map.placeCount)
  }

  /** Wanted places that are not recorded. */
  get missing (): number { return this.#missing }

  isWanted (place: number): boolean { return this.#state[place] !== UNWANTED }

  /** Wants blocks `first` to `last` of a file (a position in `map.files`), and yields the places that are new and missing. */
  * want (file: number, first: number, last: number): Generator<number> {
    const { present } = this.#map.files[file] as StoredFile
    for (let block = first; block <= last; block++) {
      const place = this.#map.placeAt(file, block)
      if (this.#state[place] !== UNWANTED) continue
      this.#state[place] = present.has(block) ? RECORDED : MISSING
      if (this.#state[place] === RECORDED) continue
      this.#missing++
      yield place
    }
  }

  /** Says whether that changed anything. */
  record (place: number): boolean { return this.#turn(place, MISSING, RECORDED) }
  lose (place: number): boolean { return this.#turn(place, RECORDED, MISSING) }

  #turn (place: number, from: number, to: number): boolean {
    if (this.#state[place] !== from) return false
    this.#state[place] = to
    this.#missing += to === MISSING ? 1 : -1
    return true
  }
}
