import { KiB, REPLICA_PROOFS_PEERS_MAX, REPLICA_PROOFS_PER_PEER_MAX, REPLICA_PROOFS_WAITING_MAX, asError, type Logger } from '../base/index.ts'
import { createBlockHasher, type BlockHasher } from '../model/index.ts'
import type { ModelStore } from '../storage/store.ts'
import { isComplete, type PlacedShard, type ShardsByModel } from './model-shards.ts'

const RANGES = 4
const RANGE_BYTES = 16 * KiB
/** Keeps drawing a range apart from the answer itself. */
const RANGE_DOMAIN = Buffer.from('shoal-challenge-1\0')
const NOTHING = new Uint8Array(0)

export interface Challenge { model: string, shards: number[], seed: Uint8Array, done: (digests: Uint8Array[]) => void }
interface Begun { challenge: Challenge, digests: Uint8Array[] }

export interface Range { offset: number, length: number }

/** The ranges of a shard of `bytes` bytes that a seed asks for, in the order they are hashed. They may overlap. */
export function challengedRanges (hasher: BlockHasher, seed: Uint8Array, shard: number, bytes: number): Range[] {
  if (bytes <= RANGE_BYTES) return [{ offset: 0, length: bytes }]
  return Array.from({ length: RANGES }, (_, at) => {
    hasher.update(RANGE_DOMAIN)
    hasher.update(seed)
    hasher.update(uint32s(shard, at))
    const drawn = Buffer.from(hasher.digest())
    // 48 bits over at most 28: the bias is 2^-20 of a place, which nobody can use.
    return { offset: drawn.readUIntLE(0, 6) % (bytes - RANGE_BYTES + 1), length: RANGE_BYTES }
  })
}

/**
 * Answers challenges: BLAKE3-256(seed || number || ranges) of each shard, read from the disk, where the seed is the nonce, who asks and
 * who answers. Whoever asks has the same shard and computes the same.
 *
 * What an answer shows: that the peer could get at these bytes after the nonce was drawn, since the nonce comes first
 * and earlier answers help nothing. It reads 64 KiB of up to 256 MiB: a peer that lost a tenth of a shard passes two
 * times of three, and one that lost half of it one of sixteen, so it is the repetition (every half proof lifetime, from each of the
 * other holders) that finds rot, and the scrub that finds it for sure. What it cannot show: that the bytes lie on that
 * peer's own disk. One that fetches them from others within the timeout, or three identities over one disk, pass; the
 * swarm key decides who may be here at all.
 */
export class Prover {
  readonly #store: ModelStore
  readonly #shards: ShardsByModel
  readonly #logger: Logger
  readonly #hasher = createBlockHasher()
  /** One shard after the other: reading for others must not crowd out a load. Peers take turns, each with its oldest challenge. */
  readonly #waiting = new Map<string, Begun[]>()
  #others: Promise<void> = Promise.resolve()
  #taking = false
  /** What this node checks itself does not wait for others. */
  #own: Promise<void> = Promise.resolve()
  #ownWaiting = 0
  #stopped = false

  constructor (components: { store: ModelStore, shards: ShardsByModel, logger: Logger }) {
    this.#store = components.store
    this.#shards = components.shards
    this.#logger = components.logger
  }

  /** For a peer, or for this node itself. Not answered when too much of its waits already: to who asks that is a lost message. */
  prove (challenge: Challenge, asker?: string): void {
    if (this.#stopped) return
    if (asker === undefined) this.#check(challenge)
    else this.#answer(challenge, asker)
  }

  async stop (): Promise<void> {
    this.#stopped = true
    await this.#own
    await this.#others
  }

  #check (challenge: Challenge): void {
    if (this.#ownWaiting >= REPLICA_PROOFS_WAITING_MAX) return
    this.#ownWaiting++
    const begun = { challenge, digests: [] }
    this.#own = this.#own.then(async () => {
      while (!this.#stopped && !await this.#step(begun)) continue
    }).finally(() => { this.#ownWaiting-- })
  }

  #answer (challenge: Challenge, asker: string): void {
    const queue = this.#waiting.get(asker) ?? []
    if (queue.length >= REPLICA_PROOFS_PER_PEER_MAX || (queue.length === 0 && this.#waiting.size >= REPLICA_PROOFS_PEERS_MAX)) return
    queue.push({ challenge, digests: [] })
    this.#waiting.set(asker, queue)
    if (!this.#taking) this.#others = this.#takeTurns()
  }

  async #takeTurns (): Promise<void> {
    this.#taking = true
    for (let next = this.#next(); next !== undefined && !this.#stopped; next = this.#next()) {
      const { asker, queue, begun } = next
      if (await this.#step(begun)) queue.shift()
      this.#waiting.delete(asker)
      if (queue.length > 0) this.#waiting.set(asker, queue)
    }
    this.#taking = false
  }

  #next (): { asker: string, queue: Begun[], begun: Begun } | undefined {
    for (const [asker, queue] of this.#waiting) {
      const [begun] = queue
      if (begun !== undefined) return { asker, queue, begun }
    }
    return undefined
  }

  /** One shard of it; true: it is over. */
  async #step ({ challenge: { model, shards, seed, done }, digests }: Begun): Promise<boolean> {
    const number = shards[digests.length]
    if (number !== undefined) digests.push(await this.#digest(model, number, seed))
    if (digests.length < shards.length) return false
    if (this.#stopped) return true
    try {
      done(digests)
    } catch (error) {
      this.#logger.error({ model, error: asError(error).message }, 'a challenge could not be answered')
    }
    return true
  }

  async #digest (cid: string, number: number, seed: Uint8Array): Promise<Uint8Array> {
    const model = this.#store.model(cid)
    const shard = model === undefined ? undefined : this.#shards.of(model).all[number]
    if (shard === undefined || !isComplete(shard)) return NOTHING
    try {
      return await digestOf(this.#store, this.#hasher, shard, seed)
    } catch (error) {
      this.#logger.warn({ model: cid, shard: number, error: asError(error).message }, 'a shard that was asked for could not be read')
      return NOTHING
    }
  }
}

async function digestOf (store: ModelStore, hasher: BlockHasher, { file, number, offset, bytes }: PlacedShard, seed: Uint8Array): Promise<Uint8Array> {
  const pieces: Uint8Array[] = []
  for (const range of challengedRanges(hasher, seed, number, bytes)) pieces.push(await store.readRange(file, offset + range.offset, range.length))
  // Hashed in one go: the hasher is shared, and nothing may come in between.
  hasher.update(seed)
  hasher.update(uint32s(number))
  for (const piece of pieces) hasher.update(piece)
  return Uint8Array.from(hasher.digest())
}

function uint32s (...values: number[]): Uint8Array {
  const bytes = Buffer.alloc(4 * values.length)
  for (const [at, value] of values.entries()) bytes.writeUInt32LE(value, at * 4)
  return bytes
}
