import { randomInt, type Random } from '../base/index.ts'

/** A set of block numbers, with "all of them" for free: what a peer has, or what is free to fetch. */
export class BlockSet {
  readonly length: number
  #words: Uint32Array | undefined
  #full = false
  #count = 0

  constructor (length: number) { this.length = length }

  get full (): boolean { return this.#full || this.#count === this.length }
  /** It was filled, and nothing was taken out of it since. */
  get filled (): boolean { return this.#full }
  get count (): number { return this.#full ? this.length : this.#count }

  has (block: number): boolean {
    return this.#full || (this.#words !== undefined && ((this.#words[block >>> 5] ?? 0) & (1 << (block & 31))) !== 0)
  }

  /** Says whether that changed anything. */
  set (block: number, present: boolean): boolean {
    if (this.has(block) === present) return false
    const words = this.#spellOut()
    const bit = 1 << (block & 31)
    words[block >>> 5] = present ? (words[block >>> 5] ?? 0) | bit : (words[block >>> 5] ?? 0) & ~bit
    this.#count += present ? 1 : -1
    return true
  }

  fill (): void {
    this.#full = true
    this.#words = undefined
    this.#count = this.length
  }

  clear (): void {
    this.#full = false
    this.#words = undefined
    this.#count = 0
  }

  * [Symbol.iterator] (): Generator<number> {
    for (let word = 0; word < Math.ceil(this.length / 32); word++) {
      for (let bits = this.word(word); bits !== 0; bits &= bits - 1) {
        const block = word * 32 + (31 - Math.clz32(bits & -bits))
        if (block < this.length) yield block
      }
    }
  }

  /** 32 blocks from `word` × 32 on, as bits. */
  word (word: number): number {
    return this.#full ? 0xffff_ffff : this.#words?.[word] ?? 0
  }

  #spellOut (): Uint32Array {
    if (this.#words !== undefined) return this.#words
    this.#words = new Uint32Array(Math.ceil(this.length / 32))
    if (this.#full) {
      this.#words.fill(0xffff_ffff)
      this.#full = false
    }
    return this.#words
  }
}

/** Looks into a bucket before one is taken for good. More find the better tie and the block that few in a bucket have. */
const SAMPLES = 48

/**
 * The blocks that are free to fetch, in buckets by how many peers have them. A pick looks at a bounded number of
 * blocks however many there are: it samples each bucket, rarest first, and only when none of the samples fits does it
 * scan the bits, 32 blocks a step.
 */
export class RarityMap {
  readonly #random: Random
  readonly #free: BlockSet
  /** Peers that have a block, not counting those that have all. */
  readonly #holders: Uint16Array
  readonly #buckets: number[][] = [[]]
  /** Where a free block stands in its bucket. */
  readonly #position: Uint32Array
  /** No free block lies in a word before this one. */
  #lowestWord = 0

  constructor (count: number, random: Random) {
    this.#random = random
    this.#free = new BlockSet(count)
    this.#holders = new Uint16Array(count)
    this.#position = new Uint32Array(count)
  }

  get size (): number { return this.#free.count }
  has (block: number): boolean { return this.#free.has(block) }
  holders (block: number): number { return this.#holders[block] ?? 0 }
  /** Free blocks that some peer with less than everything has. */
  get held (): number { return this.#free.count - (this.#buckets[0]?.length ?? 0) }

  add (block: number): void {
    if (!this.#free.set(block, true)) return
    this.#lowestWord = Math.min(this.#lowestWord, block >>> 5)
    this.#insert(block)
  }

  delete (block: number): void {
    if (this.#free.set(block, false)) this.#extract(block)
  }

  /** One peer more, or one fewer, has it. */
  change (block: number, by: 1 | -1): void {
    const isFree = this.#free.has(block)
    if (isFree) this.#extract(block)
    this.#holders[block] = (this.#holders[block] ?? 0) + by
    if (isFree) this.#insert(block)
  }

  /**
   * One of the rarest free blocks in `of`: among equally rare ones the one with the lowest rank of some that were drawn,
   * or just any one. Returns -1 if there is none.
   */
  rarest (of: BlockSet, rank?: (block: number) => number): number {
    if (of.count === 0) return -1
    for (const bucket of this.#buckets) {
      const found = this.#sample(bucket, of, rank)
      if (found >= 0) return found
    }
    const words = Math.ceil(this.#free.length / 32)
    return words === 0 ? -1 : this.#scan(of, randomInt(this.#random, words))
  }

  /** The first free block in `of`. */
  first (of: BlockSet): number {
    const words = Math.ceil(this.#free.length / 32)
    while (this.#lowestWord < words && this.#free.word(this.#lowestWord) === 0) this.#lowestWord++
    for (let word = this.#lowestWord; word < words; word++) {
      const found = this.#inWord(of, word)
      if (found >= 0) return found
    }
    return -1
  }

  #sample (bucket: number[], of: BlockSet, rank: ((block: number) => number) | undefined): number {
    const { length } = bucket
    const all = length <= SAMPLES
    const start = all && length > 0 ? randomInt(this.#random, length) : 0
    let best = -1
    let bestRank = Infinity
    for (let i = 0; i < Math.min(length, SAMPLES); i++) {
      const block = bucket[all ? (start + i) % length : randomInt(this.#random, length)] ?? 0
      if (!of.has(block)) continue
      if (rank === undefined) return block
      const ranked = rank(block)
      if (ranked >= bestRank) continue
      best = block
      bestRank = ranked
    }
    return best
  }

  #scan (of: BlockSet, start: number): number {
    const words = Math.ceil(this.#free.length / 32)
    for (let i = 0; i < words; i++) {
      const found = this.#inWord(of, (start + i) % words)
      if (found >= 0) return found
    }
    return -1
  }

  #inWord (of: BlockSet, word: number): number {
    const bits = this.#free.word(word) & of.word(word)
    return bits === 0 ? -1 : word * 32 + (31 - Math.clz32(bits & -bits))
  }

  #insert (block: number): void {
    const rarity = this.#holders[block] ?? 0
    while (this.#buckets.length <= rarity) this.#buckets.push([])
    const bucket = this.#buckets[rarity] as number[]
    this.#position[block] = bucket.push(block) - 1
  }

  #extract (block: number): void {
    const bucket = this.#buckets[this.#holders[block] ?? 0] as number[]
    const last = bucket.pop() ?? block
    if (last === block) return
    const at = this.#position[block] ?? 0
    bucket[at] = last
    this.#position[last] = at
  }
}
