import { setImmediate as turn } from 'node:timers/promises'
import type { CID } from 'multiformats/cid'
import { Bitfield } from '../base/index.ts'
import type { ContentRouter } from '../discovery/router.ts'
import { shardsOf, type Shard } from '../model/index.ts'
import { fileAnnouncements, fileKeys, type AnnounceMode } from '../replication/announce-plan.ts'
import type { ModelStore, StoredFile, StoredModel } from '../storage/store.ts'
import type { Exchange } from '../transfer/types.ts'

export interface AnnouncerComponents { store: ModelStore, router: ContentRouter, exchange: Exchange }

/** Told in one turn of the event loop: that takes some milliseconds, and the router's queue takes it in as fast. */
const KEYS_PER_TURN = 512

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
  /** The models that each file is part of, of those that were announced. */
  readonly #modelsOf = new WeakMap<StoredFile, Set<StoredModel>>()
  #off: Array<() => void> = []
  #stopped = false
  #announcing: Promise<void> | undefined

  constructor (components: AnnouncerComponents, mode: AnnounceMode) {
    this.#components = components
    this.#mode = mode
  }

  /** Announces all that is held, some at a time: the router's queue is durable, but the store is the truth. */
  start (): void {
    const { store } = this.#components
    this.#stopped = false
    this.#announcing = this.#announceAll(store.models())
    this.#off = [
      store.events.on('blocks:lost', ({ file, blocks }) => { this.#lost(file, blocks) }),
      // Evicted to make room for another: nobody told withdraw() before, and its records say what is no longer true.
      store.events.on('model:removed', ({ cid }) => { this.#removed(cid) }),
      store.events.on('file:complete', ({ file }) => { this.#components.router.announce(this.#keysOf(file, this.#fullHolders(file))) })
    ]
  }

  async stop (): Promise<void> {
    this.#stopped = true
    for (const off of this.#off.splice(0)) off()
    await this.#announcing
  }

  /** The model itself, at once: a node that is still loading is a provider too. */
  model (model: StoredModel): void {
    this.#forget(model.cid)
    this.#announced.set(model.cid, model)
    for (const file of model.files) {
      const models = this.#modelsOf.get(file)
      if (models === undefined) this.#modelsOf.set(file, new Set([model]))
      else models.add(model)
    }
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
    this.#forget(model.cid)
    const going = new Set(model.files)
    for (const other of store.models()) if (other.cid !== model.cid) for (const file of other.files) going.delete(file)
    router.withdraw([model.manifest.cid])
    for (const file of going) router.withdraw(fileKeys(file.index, this.#shardsOf(file)).filter(cid => store.findBlock(cid, going) === undefined))
  }

  async #announceAll (models: readonly StoredModel[]): Promise<void> {
    const { store, router } = this.#components
    const isHere = (model: StoredModel): boolean => !this.#stopped && store.model(model.cid) === model
    let told = 0
    const room = async (): Promise<void> => {
      if (told < KEYS_PER_TURN) return
      told = 0
      await turn()
    }
    // Who looks for a model finds this node before it finds each block.
    for (const model of models) {
      if (isHere(model)) this.model(model)
      told += 1 + model.files.length
      await room()
    }
    for (const model of models) {
      for (const file of new Set(model.files)) {
        for (const part of partsOf(this.#shardsOf(file))) {
          if (!isHere(model)) break
          const keys = this.#keysOf(file, this.#fullHolders(file), part)
          router.announce(keys)
          told += 1 + keys.length
          await room()
        }
      }
    }
  }

  #forget (cid: string): void {
    const model = this.#announced.get(cid)
    if (model === undefined) return
    this.#announced.delete(cid)
    for (const file of model.files) this.#modelsOf.get(file)?.delete(model)
  }

  #removed (cid: string): void {
    const model = this.#announced.get(cid)
    if (model !== undefined) this.withdraw(model)
  }

  /** `part`: only of these shards of it. */
  #keysOf (file: StoredFile, otherFullHolders: number, part?: Shard[]): CID[] {
    const { index } = file
    const present = part === undefined ? file.present : within(file.present, part)
    return fileAnnouncements({ index, present, shards: () => part ?? this.#shardsOf(file) }, this.#mode, otherFullHolders)
  }

  #fullHolders (file: StoredFile): number {
    const { exchange } = this.#components
    let most = 0
    for (const { cid } of this.#modelsOf.get(file) ?? []) most = Math.max(most, exchange.holders(cid).filter(holder => holder.complete).length)
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

/** Runs of shards of so many blocks that they are told in one turn. */
function partsOf (shards: readonly Shard[]): Shard[][] {
  const parts: Shard[][] = []
  let blocks = Infinity
  for (const shard of shards) {
    if (blocks + shard.count >= KEYS_PER_TURN) {
      parts.push([])
      blocks = 0
    }
    parts.at(-1)?.push(shard)
    blocks += shard.count + 1
  }
  return parts
}

function within (present: Bitfield, shards: readonly Shard[]): Bitfield {
  const some = new Bitfield(present.length)
  for (const { first, count } of shards) for (let block = first; block < first + count; block++) if (present.has(block)) some.set(block)
  return some
}
