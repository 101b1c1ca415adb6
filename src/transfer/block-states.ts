import { DOUBLE_ZERO, type Random } from '../base/index.ts'
import { RarityMap } from './rarity.ts'

const UNWANTED = 0
const FREE = 1
const BUSY = 2
const HERE = 3

/** What each block of a fetch is: unwanted, free to ask for, busy (asked for), or here; with the sums that follow from it. */
export class BlockStates {
  /** The free blocks, by rarity. */
  readonly free: RarityMap
  readonly #sizes: Uint32Array
  readonly #states: Uint8Array
  #missing = 0
  #wantedBytes = DOUBLE_ZERO
  #freeBytes = DOUBLE_ZERO

  constructor (sizes: Uint32Array, random: Random) {
    this.#sizes = sizes
    this.free = new RarityMap(sizes.length, random)
    this.#states = new Uint8Array(sizes.length)
  }

  /** Wanted blocks that are not here. */
  get missing (): number { return this.#missing }
  get wantedBytes (): number { return this.#wantedBytes }
  get freeBytes (): number { return this.#freeBytes }

  size (block: number): number { return this.#sizes[block] ?? 0 }
  isFree (block: number): boolean { return this.#states[block] === FREE }
  isBusy (block: number): boolean { return this.#states[block] === BUSY }
  isHere (block: number): boolean { return this.#states[block] === HERE }

  /** Adds an unwanted block to the free ones. */
  want (block: number): void {
    if (this.#states[block] !== UNWANTED) return
    this.#wantedBytes += this.size(block)
    this.#missing++
    this.#setFree(block)
  }

  makeBusy (block: number): void {
    if (this.isFree(block)) this.#unsetFree(block)
    this.#states[block] = BUSY
  }

  /** Back from busy. */
  makeFree (block: number): void {
    if (this.isBusy(block)) this.#setFree(block)
  }

  makeHere (block: number): void {
    if (this.isHere(block)) return
    if (this.#states[block] === UNWANTED) this.#wantedBytes += this.size(block)
    else this.#missing--
    if (this.isFree(block)) this.#unsetFree(block)
    this.#states[block] = HERE
  }

  /** Back from here. */
  lose (block: number): void {
    if (!this.isHere(block)) return
    this.#missing++
    this.#setFree(block)
  }

  #setFree (block: number): void {
    this.#states[block] = FREE
    this.free.add(block)
    this.#freeBytes += this.size(block)
  }

  #unsetFree (block: number): void {
    this.free.delete(block)
    this.#freeBytes -= this.size(block)
  }
}
