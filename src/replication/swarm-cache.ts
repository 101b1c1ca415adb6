import { OutOfSpaceError, asError, type Logger } from '../base/index.ts'
import type { FilePart, ModelStore, StoredModel } from '../storage/store.ts'
import type { Ledger } from './ledger.ts'
import { missingBytes, type PlacedShard, type ShardsByModel } from './model-shards.ts'
import type { Replicator } from './replicator.ts'

export interface SwarmCacheComponents {
  store: ModelStore
  shards: ShardsByModel
  ledger: Pick<Ledger, 'pulled' | 'setPulled' | 'touchPulled' | 'forgetPulled'>
  logger: Logger
  replicator: Pick<Replicator, 'spare' | 'promisedBytes'>
}

interface Released { model: string, part: FilePart, bytes: number, at: number }

/**
 * Shards that came here for the swarm and are promised to nobody any more. They stay as cached data while there is room: within
 * storage.donate, in which they count until they are gone, and within what the store may hold. What a user loads belongs
 * to the user: a model that was opened since its last shard was pulled is not counted any more.
 */
export class SwarmCache {
  readonly #components: SwarmCacheComponents
  readonly #donateBytes: number
  /** When its model was used last as far as pulls go, milliseconds since 1970, the same for all of a model; by model and shard. */
  readonly #pulled: Map<string, Map<number, number>>
  /** What the store was told. */
  readonly #told = new Map<string, string>()
  #turn: Promise<void> = Promise.resolve()

  constructor (components: SwarmCacheComponents, donateBytes: number) {
    this.#components = components
    this.#donateBytes = donateBytes
    this.#pulled = components.ledger.pulled()
  }

  /** Bytes that are here for the swarm and promised to nobody. */
  releasedBytes (): number { return this.#released().reduce((sum, { bytes }) => sum + bytes, 0) }

  /** Bytes of these whose model is kept: of the others the store evicts all by itself. */
  spareBytes (isKept: (model: string) => boolean): number {
    return this.#released().reduce((sum, { model, bytes }) => sum + (isKept(model) ? bytes : 0), 0)
  }

  /** Bytes of a shard that are here. */
  presentBytes (model: string, shard: number): number {
    const stored = this.#components.store.model(model)
    const placed = stored === undefined ? undefined : this.#placed(stored, shard)
    return placed === undefined ? 0 : placed.bytes - missingBytes(placed)
  }

  /** A pull ended, well or not; `bytesBefore`: what was here of the shard before it. Never throws. */
  ended (model: string, shard: number, bytesBefore: number): void {
    const { store, ledger, logger } = this.#components
    const usedAt = store.model(model)?.usedAt
    if (usedAt === undefined) return
    const came = this.presentBytes(model, shard) > bytesBefore
    let pulled = this.#pulled.get(model)
    if (came && pulled === undefined) this.#pulled.set(model, pulled = new Map())
    if (came) pulled?.set(shard, usedAt)
    // It was this pull that opened the model.
    for (const number of pulled?.keys() ?? []) pulled?.set(number, usedAt)
    try {
      if (came) ledger.setPulled(model, shard, usedAt)
      ledger.touchPulled(model, usedAt)
    } catch (error) {
      logger.warn({ model, shard, error: asError(error).message }, 'it could not be recorded that a shard was fetched for the swarm')
    }
  }

  /** Tells the store what may go although its model is kept. Call it after anything that may have changed that. */
  look (isPulling: (model: string) => boolean): void {
    const { store, replicator, ledger } = this.#components
    for (const [cid, pulled] of this.#pulled) {
      const model = store.model(cid)
      if (model === undefined || model.pinned || model.published || (!isPulling(cid) && model.usedAt > (pulled.values().next().value ?? Infinity))) {
        this.#pulled.delete(cid)
        this.#tell(cid, [])
        ledger.forgetPulled(cid)
        continue
      }
      const spare = [...pulled.keys()].filter(shard => replicator.spare(cid, shard))
      if (this.#told.get(cid) === spare.join()) continue
      this.#tell(cid, spare, model)
    }
  }

  /** Evicts until what is promised and what is released fit into the donation. Throws OutOfSpaceError when what would have to go is in use. */
  async fit (): Promise<void> {
    const fitting = this.#turn.then(async () => {
      const { store } = this.#components
      const over = (): number => this.#components.replicator.promisedBytes + this.releasedBytes() - this.#donateBytes
      if (over() <= 0) return
      const released = oldestFirst(this.#released())
      if (released.length === 0) return // less is given now than was promised before: that stays
      await store.evictParts(released.map(({ part }) => part), over())
      if (over() > 0 && this.releasedBytes() > 0) throw new OutOfSpaceError(`storage.donate is full by ${over()} bytes of shards that were let go and are in use, or needed`)
    })
    this.#turn = fitting.catch(() => undefined) // told to whoever asked for it
    await fitting
  }

  #released (): Released[] {
    const { store, replicator } = this.#components
    const released: Released[] = []
    for (const [cid, pulled] of this.#pulled) {
      const model = store.model(cid)
      if (model === undefined) continue
      for (const [number, at] of pulled) {
        const shard = this.#placed(model, number)
        if (shard === undefined || !replicator.spare(cid, number)) continue
        const bytes = shard.bytes - missingBytes(shard)
        if (bytes > 0) released.push({ model: cid, part: partOf(shard), bytes, at })
      }
    }
    return released
  }

  #tell (cid: string, spare: readonly number[], model?: StoredModel): void {
    const parts = model === undefined ? [] : spare.map(number => this.#placed(model, number)).filter(shard => shard !== undefined).map(partOf)
    this.#components.store.spareParts(cid, parts)
    if (spare.length === 0) this.#told.delete(cid)
    else this.#told.set(cid, spare.join())
  }

  #placed (model: StoredModel, shard: number): PlacedShard | undefined { return this.#components.shards.of(model).all[shard] }
}

/** In which order what was let go of is evicted. */
export function oldestFirst<T extends { at: number }> (released: readonly T[]): T[] { return [...released].sort((a, b) => a.at - b.at) }

function partOf ({ file, first, count }: PlacedShard): FilePart { return { file, first, count } }
