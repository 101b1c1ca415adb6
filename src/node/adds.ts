import type { AbortOptions, Clock, Emitter } from '../base/index.ts'
import type { Replication } from '../replication/service.ts'
import type { ModelStore } from '../storage/store.ts'
import type { Announcer } from './announcer.ts'
import { combine, publish, type PublishOptions } from './publish.ts'
import { policyFor } from './replicate.ts'
import type { AddResult, NodeEvents, NodeSettings } from './types.ts'

export interface AddComponents {
  store: ModelStore
  announcer: Announcer
  replication: Replication
  clock: Clock
  events: Emitter<NodeEvents>
}

const DRAINING = 'this node is draining: its copy of what was added counts as no replica and goes with it; add on a node that stays, or start this daemon again'

/** All adds of this node: what is published, and what becomes of it among the swarm. */
export class Adds {
  readonly #components: AddComponents
  readonly #settings: NodeSettings['replication']
  readonly #ownDirectory: string | undefined
  readonly #running = new Set<Promise<unknown>>()

  constructor (components: AddComponents, { settings, ownDirectory }: { settings: NodeSettings['replication'], ownDirectory: string | undefined }) {
    this.#components = components
    this.#settings = settings
    this.#ownDirectory = ownDirectory
  }

  /** Throws UsageError, and what publishing throws. */
  async add (path: string, options: PublishOptions = {}): Promise<AddResult> {
    policyFor(options.replicas, this.#settings) // before anything is read
    const result = await this.#run(publish(this.#components, path, { ...options, ownDirectory: this.#ownDirectory }))
    await this.#added(result.cid, options.replicas)
    return this.#components.replication.draining ? { ...result, warnings: [...result.warnings, DRAINING] } : result
  }

  /**
   * Adds a model that is no user's: it may be evicted, or removed, as soon as the caller lets go. It may lie in the data directory, and its files
   * are the store's from now on. Throws as add().
   */
  async addInstalment (path: string, options: PublishOptions): Promise<{ cid: string, letGo: () => void }> {
    let letGo = (): void => undefined
    try {
      const onNamed = async (cid: string): Promise<void> => {
        letGo = this.#components.store.holdModel(cid)
        await options.onNamed?.(cid)
      }
      const { cid } = await this.#run(publish(this.#components, path, { ...options, isGiven: true, published: false, onNamed }))
      this.#announce(cid)
      return { cid, letGo }
    } catch (error) {
      letGo()
      throw error
    }
  }

  /** Adds the model of all files of these, which are here. Throws ModelNotFoundError, and as add(). */
  async combine (cids: readonly string[], options: AbortOptions = {}): Promise<{ cid: string }> {
    const cid = await this.#run(combine(this.#components, cids, options))
    await this.#added(cid)
    return { cid }
  }

  /** Resolves when those that run now have ended. */
  async settled (): Promise<void> {
    await Promise.allSettled(this.#running)
  }

  async #run<T> (work: Promise<T>): Promise<T> {
    this.#running.add(work)
    try {
      return await work
    } finally {
      this.#running.delete(work)
    }
  }

  #announce (cid: string): void {
    const { store, announcer } = this.#components
    const model = store.model(cid)
    if (model === undefined) return // removed just now
    announcer.model(model)
    announcer.files(model)
  }

  async #added (cid: string, replicas?: number): Promise<void> {
    const { replication, events } = this.#components
    this.#announce(cid)
    const policy = policyFor(replicas, this.#settings)
    // Added once more without a word of replicas: what was said before stands.
    const stands = replicas === undefined && (replication.policyOf(cid)?.target ?? 0) > 0
    if (policy !== undefined && !stands) await replication.setPolicy(cid, policy)
    events.emit('model:added', { cid })
  }
}
