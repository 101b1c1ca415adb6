import type { ModelStore, StoredFile, StoredModel } from '../storage/store.ts'
import { isComplete, type ShardsByModel } from './model-shards.ts'
import type { Replicator } from './replicator.ts'

interface KnownModel { model: StoredModel, kept: boolean, held: Set<number> }

/**
 * Tells the replicator what the store has: models that came, went or are kept otherwise than before, shards that are
 * whole or no longer. The store's events only leave a note; look() compares. And tells the store what was promised, so
 * that it is not evicted.
 */
export class StoreWatch {
  readonly #store: ModelStore
  readonly #shards: ShardsByModel
  readonly #replicator: Replicator
  readonly #known = new Map<string, KnownModel>()
  /** Whose names the store was told to keep. */
  readonly #kept = new Set<string>()
  readonly #touched = new Set<StoredFile>()
  #removed: string[] = []
  #off: Array<() => void> = []

  constructor (components: { store: ModelStore, shards: ShardsByModel, replicator: Replicator }) {
    this.#store = components.store
    this.#shards = components.shards
    this.#replicator = components.replicator
  }

  start (changed: () => void): void {
    const { events } = this.#store
    const touch = ({ file }: { file: StoredFile }): void => { this.#touched.add(file); changed() }
    this.#off = [
      events.on('blocks:present', touch),
      events.on('blocks:lost', touch),
      events.on('model:removed', ({ cid }) => { this.#removed.push(cid); changed() })
    ]
  }

  stop (): void {
    for (const off of this.#off.splice(0)) off()
  }

  isKept (cid: string): boolean { return this.#kept.has(cid) }

  look (now: number): void {
    for (const cid of this.#removed.splice(0)) if (this.#known.delete(cid)) this.#replicator.forget(cid, now)
    const touched = new Set(this.#touched)
    this.#touched.clear()
    for (const model of this.#store.models()) {
      const known = this.#known.get(model.cid)
      const kept = model.pinned || model.published
      if (known === undefined || known.model !== model || known.kept !== kept) this.#tell(model, kept, now)
      else this.#compare(known, touched, now)
    }
  }

  /** After anything that may have changed what is promised. */
  keepPromised (): void {
    for (const cid of this.#kept) if (!this.#replicator.keeps(cid)) this.keep(cid, false)
    for (const cid of this.#known.keys()) if (!this.#kept.has(cid) && this.#replicator.keeps(cid)) this.keep(cid, true)
  }

  keep (cid: string, keep: boolean): void {
    this.#store.keepModel(cid, keep)
    if (keep) this.#kept.add(cid)
    else this.#kept.delete(cid)
  }

  #tell (model: StoredModel, kept: boolean, now: number): void {
    const shards = this.#shards.of(model)
    const held = new Set(shards.held())
    this.#known.set(model.cid, { model, kept, held })
    this.#replicator.model({ cid: model.cid, shardBytes: shards.bytes, held, kept }, now)
  }

  #compare ({ model, held }: KnownModel, touched: ReadonlySet<StoredFile>, now: number): void {
    const shards = this.#shards.of(model)
    for (const shard of [...touched].flatMap(file => shards.ofFile(file))) {
      const { number } = shard
      const complete = isComplete(shard)
      if (complete === held.has(number)) continue
      if (complete) {
        held.add(number)
        this.#replicator.held(model.cid, number, now)
      } else {
        held.delete(number)
        this.#replicator.lost(model.cid, number, now)
      }
    }
  }
}
