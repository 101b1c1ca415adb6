import type { CID } from 'multiformats/cid'
import type { StoredFile, StoredModel } from '../storage/store.ts'

/** Where a block belongs: block `block` of a file. `place` is the number of this place. */
export interface Place { place: number, file: StoredFile, block: number, offset: number, size: number }

/**
 * The blocks of a model as plain numbers. A block that stands in several places (two files share a tensor, a run of
 * zeros) has one number and is fetched once. The numbers depend on the manifest alone, so all nodes count alike.
 *
 * A place is the position of a block in the files laid end to end, each distinct file once.
 */
export class BlockMap {
  /** How many different blocks there are. */
  readonly count: number
  /** Bytes of each. */
  readonly sizes: Uint32Array
  /** How many places there are. */
  readonly placeCount: number
  readonly files: readonly StoredFile[]
  /** Which of `files` stands at a position of the model. */
  readonly #fileAt: number[]
  readonly #byKey = new Map<string, number>()
  /** The place of block 0 of each file, and one past the last place. */
  readonly #firstPlace: number[] = [0]
  readonly #blockAt: Uint32Array
  readonly #placeOf: Uint32Array
  /** The next place of the same block; 0 when there is none (place 0 is never a next one). */
  readonly #nextPlace: Uint32Array

  constructor (model: StoredModel) {
    const files: StoredFile[] = []
    this.#fileAt = model.files.map(file => {
      let at = this.#byKey.get(file.key)
      if (at === undefined) {
        this.#byKey.set(file.key, at = files.length)
        files.push(file)
        this.#firstPlace.push((this.#firstPlace.at(-1) ?? 0) + file.index.blocks.length)
      }
      return at
    })
    this.files = files
    const places = this.placeCount = this.#firstPlace.at(-1) ?? 0
    this.#blockAt = new Uint32Array(places)
    this.#nextPlace = new Uint32Array(places)
    const placeOf = new Uint32Array(places)
    const sizes = new Uint32Array(places)
    const known = new Map<string, number>()
    let place = 0
    for (const { index } of files) {
      for (let block = 0; block < index.blocks.length; block++, place++) {
        const key = index.blocks.keyAt(block) ?? ''
        const number = known.get(key)
        if (number === undefined) {
          this.#blockAt[place] = known.size
          placeOf[known.size] = place
          sizes[known.size] = index.sizes[block] ?? 0
          known.set(key, known.size)
        } else {
          this.#blockAt[place] = number
          const first = placeOf[number] ?? 0
          this.#nextPlace[place] = this.#nextPlace[first] ?? 0
          this.#nextPlace[first] = place
        }
      }
    }
    this.count = known.size
    this.#placeOf = placeOf.slice(0, known.size)
    this.sizes = sizes.slice(0, known.size)
  }

  /** Position in `files` of the file at a position of the model. */
  fileAt (position: number): number | undefined { return this.#fileAt[position] }
  /** The first position of the model at which a file stands. */
  positionOf (file: StoredFile): number { return this.#fileAt.indexOf(this.#byKey.get(file.key) ?? -1) }
  /** Position in `files` of this file; undefined when it is none of the model's. */
  fileOf (file: StoredFile): number | undefined { return this.#byKey.get(file.key) }

  /** The place of a block of a file, given by its position in `files`. */
  placeAt (file: number, block: number): number { return (this.#firstPlace[file] ?? 0) + block }
  /** The number of the block at a place. */
  blockAt (place: number): number { return this.#blockAt[place] ?? 0 }

  cid (number: number): CID {
    const { file, block } = this.place(number)
    return file.index.blocks.at(block) as CID
  }

  /** Its first place: a block is received as if for there. */
  place (number: number): Place { return this.#at(this.#placeOf[number] ?? 0) }

  /** All places where it belongs, the first one first. */
  places (number: number): Place[] {
    const found: Place[] = []
    for (let place = this.#placeOf[number] ?? 0; ; place = this.#nextPlace[place] ?? 0) {
      if (found.length > 0 && place === 0) return found
      found.push(this.#at(place))
    }
  }

  #at (place: number): Place {
    let low = 0
    let high = this.files.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if ((this.#firstPlace[middle] ?? 0) <= place) low = middle
      else high = middle - 1
    }
    const file = this.files[low] as StoredFile
    const block = place - (this.#firstPlace[low] ?? 0)
    return { place, file, block, offset: file.offsets[block] ?? 0, size: file.index.sizes[block] ?? 0 }
  }
}
