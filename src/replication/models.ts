import { REPLICA_FOREIGN_MODELS_MAX, REPLICA_FOREIGN_MODELS_PER_PEER_MAX, REPLICA_FORMER_MODELS_MAX } from '../base/index.ts'
import type { Context } from './context.ts'
import type { Holding } from './holding.ts'
import { ModelView, Own } from './model-view.ts'
import type { LocalModel, PolicyRecord } from './types.ts'

/** Before a model that did not come makes room for another: its pull may be offered again. */
const IDLE_MS = 10_000

/**
 * Which models this node has to do with, and what outlives that: promises of former lives whose models were not told yet, and policies of
 * models that went.
 */
export class Models {
  readonly #context: Context
  readonly #holding: Holding
  readonly #commitments = new Map<string, Set<number>>()
  readonly #policies = new Map<string, PolicyRecord[]>()

  constructor (context: Context, holding: Holding, { commitments, policies }: { commitments: Iterable<{ model: string, shard: number }>, policies: Iterable<PolicyRecord> }) {
    this.#context = context
    this.#holding = holding
    for (const { model, shard } of commitments) {
      const shards = this.#commitments.get(model)
      if (shards === undefined) this.#commitments.set(model, new Set([shard]))
      else shards.add(shard)
    }
    for (const record of policies) this.#policies.set(record.model, [...this.#policies.get(record.model) ?? [], record])
  }

  /** All models that are here were told: of what the store does not know nothing can be kept. Says whether something was promised of it. */
  start (): boolean {
    const promised = this.#commitments.size > 0
    // A user removed it, and the ledger could not be told before the end of that life.
    for (const [model, shards] of this.#commitments) for (const shard of shards) this.#holding.removed(model, shard)
    this.#commitments.clear()
    this.#forgetOldest()
    return promised
  }

  /** Promised in a former life, and not told yet. */
  awaits (cid: string): boolean { return this.#commitments.has(cid) }

  /** What publishers said of a model that is not here. */
  remembered (cid: string): readonly PolicyRecord[] { return this.#policies.get(cid) ?? [] }

  /** For one more model that is not in the store. One that was offered and did not come goes for it, but not at once: each costs writes. */
  hasRoom (from: string): boolean {
    const { views, now } = this.#context
    const foreign = [...views.values()].filter(view => view.isForeign)
    const ofThis = foreign.filter(view => view.offeredBy === from)
    const full = ofThis.length >= REPLICA_FOREIGN_MODELS_PER_PEER_MAX ? ofThis : foreign.length >= REPLICA_FOREIGN_MODELS_MAX ? foreign : []
    if (full.length === 0) return true
    const idle = full.find(view => view.idleSince !== undefined && now - view.idleSince >= IDLE_MS)
    if (idle === undefined) return false
    this.drop(idle)
    return true
  }

  view (cid: string, shards: number): ModelView {
    const { views } = this.#context
    let view = views.get(cid)
    if (view === undefined) {
      view = new ModelView(cid, shards, this.#context.self.id)
      view.adopt(view.merge(this.#policies.get(cid) ?? []))
      this.#policies.delete(cid)
      views.set(cid, view)
    }
    return view
  }

  /** A model that nobody here knew of until it was offered. */
  offered (from: string, { model, shards }: { model: string, shards: number }): ModelView {
    this.#ofOtherSize(model, shards)
    const view = this.view(model, shards)
    view.isForeign = true
    view.offeredBy = from
    return view
  }

  /** Whoever offered it lied about how many shards it has. */
  #ofOtherSize (cid: string, shards: number): void {
    const view = this.#context.views.get(cid)
    if (view === undefined || view.shards === shards) return
    this.#holding.forget(view)
    view.isForeign = false // what publishers said holds for whatever size it has
    this.drop(view)
  }

  /** What was said of how many there shall be is still so when the model comes back; of one that never was here only what this node said itself. */
  drop (view: ModelView): void {
    this.#context.views.delete(view.cid)
    if (view.policies.size === 0) return
    this.#policies.set(view.cid, [...view.policies.values()])
    if (view.isForeign) this.#forget([view.cid])
    else this.#forgetOldest()
  }

  #forgetOldest (): void {
    const others = [...this.#policies].filter(([, records]) => records.some(({ publisher }) => publisher !== this.#context.self.id)).map(([cid]) => cid)
    // Some at a time: each time is a sync.
    if (others.length > REPLICA_FORMER_MODELS_MAX) this.#forget(others.slice(0, others.length - REPLICA_FORMER_MODELS_MAX * 7 / 8))
  }

  /** Who holds such a model can tell it again. */
  #forget (cids: readonly string[]): void {
    const { ports, self } = this.#context
    const dropped: PolicyRecord[] = []
    for (const cid of cids) {
      const [own, others] = [true, false].map(isOwn => this.remembered(cid).filter(({ publisher }) => (publisher === self.id) === isOwn)) as [PolicyRecord[], PolicyRecord[]]
      dropped.push(...others)
      if (own.length > 0) this.#policies.set(cid, own)
      else this.#policies.delete(cid)
    }
    try {
      if (dropped.length > 0) ports.savePolicies({ saved: [], dropped })
    } catch {
      // The disk's trouble is told by who has the disk; the next start finds them, and bounds them as well.
    }
  }

  /** A model is in the store. */
  told (local: LocalModel): void {
    this.#ofOtherSize(local.cid, local.shardBytes.length)
    const view = this.view(local.cid, local.shardBytes.length)
    view.learn(local)
    const held = new Set(local.held)
    const promised = this.#commitments.get(local.cid)
    this.#commitments.delete(local.cid)
    for (let shard = 0; shard < view.shards; shard++) {
      if (promised?.has(shard) === true && view.own[shard] === Own.None) {
        view.own[shard] = held.has(shard) ? Own.Committed : Own.Broken
        this.#context.changed(view)
      } else if (held.has(shard)) {
        this.#holding.held(view, shard)
      }
    }
  }

  /**
   * For what this node says next of how many there shall be: higher than all it said before, also by a ledger that was lost; so not lower than
   * `seconds` since 1970.
   */
  nextSequence (cid: string, seconds: number): number {
    return Math.max(seconds - 1, this.saidOf(cid)?.sequence ?? 0) + 1
  }

  /** What this node itself said last of how many there shall be, also of a model that is not here any more. */
  saidOf (cid: string): PolicyRecord | undefined {
    const own = this.#context.self.id
    return this.#context.views.get(cid)?.policies.get(own) ?? this.#policies.get(cid)?.find(({ publisher }) => publisher === own)
  }
}
