import { KiB, REPLICA_PROOFS_WAITING_MAX, asError, type Logger } from '../base/index.ts'
import { createBlockHasher, type BlockHasher } from '../model/index.ts'
import type { ModelStore } from '../storage/store.ts'
import { isComplete, type PlacedShard, type ShardsByModel } from './model-shards.ts'

const RANGES = 4
const RANGE_BYTES = 16 * KiB
/** Keeps drawing a range apart from the answer itself. */
const RANGE_DOMAIN = Buffer.from('shoal-challenge-1\0')
const NOTHING = new Uint8Array(0)

interface Challenge { model: string, shards: number[], nonce: Uint8Array, done: (digests: Uint8Array[]) => void }

export interface Range { offset: number, length: number }

/** The ranges of a shard of `bytes` bytes that a nonce asks for, in the order they are hashed. They may overlap. */
export function challengedRanges (hasher: BlockHasher, nonce: Uint8Array, shard: number, bytes: number): Range[] {
  if (bytes <= RANGE_BYTES) return [{ offset: 0, length: bytes }]
  return Array.from({ length: RANGES }, (_, at) => {
    hasher.update(RANGE_DOMAIN)
    hasher.update(nonce)
    hasher.update(uint32s(shard, at))
    const drawn = Buffer.from(hasher.digest())
    // 48 bits over at most 28: the bias is 2^-20 of a place, which nobody can use.
    return { offset: drawn.readUIntLE(0, 6) % (bytes - RANGE_BYTES + 1), length: RANGE_BYTES }
  })
}

/**
 * Answers challenges: BLAKE3-256(nonce || number || ranges) of each shard, read from the disk. Whoever asks has the same
 * shard and computes the same.
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
  /** One after the other: reading for others must not crowd out a load. */
  #last: Promise<void> = Promise.resolve()
  #waiting = 0
  #stopped = false

  constructor (components: { store: ModelStore, shards: ShardsByModel, logger: Logger }) {
    this.#store = components.store
    this.#shards = components.shards
    this.#logger = components.logger
  }

  /** Not answered when too many wait already: to the asker that is a lost message. */
  prove (model: string, shards: number[], nonce: Uint8Array, done: (digests: Uint8Array[]) => void): void {
    if (this.#stopped || this.#waiting >= REPLICA_PROOFS_WAITING_MAX) return
    this.#waiting++
    this.#last = this.#answer(this.#last, { model, shards, nonce, done }).catch(error => {
      this.#logger.error({ model, error: asError(error).message }, 'a challenge could not be answered')
    }).finally(() => { this.#waiting-- })
  }

  async stop (): Promise<void> {
    this.#stopped = true
    await this.#last
  }

  async #answer (turn: Promise<void>, { model, shards, nonce, done }: Challenge): Promise<void> {
    await turn
    const digests: Uint8Array[] = []
    for (const number of shards) digests.push(this.#stopped ? NOTHING : await this.#digest(model, number, nonce))
    if (!this.#stopped) done(digests)
  }

  async #digest (cid: string, number: number, nonce: Uint8Array): Promise<Uint8Array> {
    const model = this.#store.model(cid)
    const shard = model === undefined ? undefined : this.#shards.of(model).all[number]
    if (shard === undefined || !isComplete(shard)) return NOTHING
    try {
      return await digestOf(this.#store, this.#hasher, shard, nonce)
    } catch (error) {
      this.#logger.warn({ model: cid, shard: number, error: asError(error).message }, 'a shard that was asked for could not be read')
      return NOTHING
    }
  }
}

async function digestOf (store: ModelStore, hasher: BlockHasher, { file, number, offset, bytes }: PlacedShard, nonce: Uint8Array): Promise<Uint8Array> {
  const pieces: Uint8Array[] = []
  for (const range of challengedRanges(hasher, nonce, number, bytes)) pieces.push(await store.readRange(file, offset + range.offset, range.length))
  // Hashed in one go: the hasher is shared, and nothing may come in between.
  hasher.update(nonce)
  hasher.update(uint32s(number))
  for (const piece of pieces) hasher.update(piece)
  return Uint8Array.from(hasher.digest())
}

function uint32s (...values: number[]): Uint8Array {
  const bytes = Buffer.alloc(4 * values.length)
  for (const [at, value] of values.entries()) bytes.writeUInt32LE(value, at * 4)
  return bytes
}
