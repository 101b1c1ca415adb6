import type { CID } from 'multiformats/cid'
import type { ContentRouter } from '../discovery/router.ts'
import { shardsOf, type Shard } from '../model/index.ts'
import { fileAnnouncements, fileKeys, type AnnounceMode } from '../replication/announce-plan.ts'
import type { ModelStore, StoredFile, StoredModel } from '../storage/store.ts'
import type { Exchange } from '../transfer/types.ts'

export interface AnnouncerComponents { store: ModelStore, router: ContentRouter, exchange: Exchange }

/**
 * Tells the swarm what the store holds, and stops telling what it no longer does. Follows the order of effects: a
 * block is announced after it is recorded, and withdrawn before it is deleted.
 */
export class Announcer {
  readonly #components: AnnouncerComponents
  readonly #mode: AnnounceMode
  readonly #shards = new WeakMap<StoredFile, Shard[]>()
  /** What is announced, by CID: the store tells of an eviction when the model is gone. */
  readonly #announced = new Map<string, StoredModel>()
  #off: Array<() => void> = []

  constructor (components: AnnouncerComponents, mode: AnnounceMode) {
    this.#components = components
    this.#mode = mode
  }

  /** Announces all that is held: the router's queue is durable, but the store is the truth. */
  start (): void {
    const { store } = this.#components
    for (const model of store.models()) {
      this.model(model)
      this.files(model)
    }
    this.#off = [
      store.events.on('blocks:lost', ({ file, blocks }) => { this.#lost(file, blocks) }),
      // Evicted to make room for another: nobody told withdraw() before, and its records say what is no longer true.
      store.events.on('model:removed', ({ cid }) => { this.#removed(cid) }),
      store.events.on('file:complete', ({ file }) => { this.#components.router.announce(this.#keysOf(file, this.#fullHolders(file))) })
    ]
  }

  stop (): void {
    for (const off of this.#off.splice(0)) off()
  }

  /** The model itself, at once: a node that is still loading is a provider too. */
  model (model: StoredModel): void {
    this.#announced.set(model.cid, model)
    this.#components.router.announce([model.manifest.cid], { urgent: true })
  }

  /** The shards and blocks of a model, or of some of its files, that are here now. */
  files (model: StoredModel, files: Iterable<StoredFile> = new Set(model.files)): void {
    const others = this.#components.exchange.holders(model.cid).filter(holder => holder.complete).length
    this.#components.router.announce([...files].flatMap(file => this.#keysOf(file, others)))
  }

  /** Before a model is removed: what no other model here shares. */
  withdraw (model: StoredModel): void {
    const { store, router } = this.#components
    this.#announced.delete(model.cid)
    const going = new Set(model.files)
    for (const other of store.models()) if (other.cid !== model.cid) for (const file of other.files) going.delete(file)
    router.withdraw([model.manifest.cid])
    for (const file of going) router.withdraw(fileKeys(file.index, this.#shardsOf(file)).filter(cid => store.findBlock(cid, going) === undefined))
  }

  #removed (cid: string): void {
    const model = this.#announced.get(cid)
    if (model !== undefined) this.withdraw(model)
  }

  #keysOf (file: StoredFile, otherFullHolders: number): CID[] {
    return fileAnnouncements({ index: file.index, present: file.present, shards: () => this.#shardsOf(file) }, this.#mode, otherFullHolders)
  }

  #fullHolders (file: StoredFile): number {
    const { store, exchange } = this.#components
    let most = 0
    for (const model of store.models()) {
      if (model.files.includes(file)) most = Math.max(most, exchange.holders(model.cid).filter(holder => holder.complete).length)
    }
    return most
  }

  #lost (file: StoredFile, blocks: number[]): void {
    const { store, router } = this.#components
    const gone: CID[] = []
    for (const block of blocks) {
      const cid = file.index.blocks.at(block)
      if (cid !== undefined && store.findBlock(cid) === undefined) gone.push(cid)
    }
    const broken = this.#shardsOf(file).filter(shard => blocks.some(block => block >= shard.first && block < shard.first + shard.count))
    router.withdraw([...gone, ...broken.map(shard => shard.cid)])
  }

  #shardsOf (file: StoredFile): Shard[] {
    let shards = this.#shards.get(file)
    if (shards === undefined) this.#shards.set(file, shards = shardsOf(file.index))
    return shards
  }
}
