import { LEDGER_REBUILD_MS_MAX } from '../base/index.ts'
import type { Context } from './context.ts'
import type { Holding } from './holding.ts'
import { Own, type ModelView } from './model-view.ts'

/**
 * After the ledger was lost: what was promised is not known any more, and may be anything that is here. So nothing of it goes before the
 * others have told what is wanted of it. What is, is promised anew, as far as the donation allows; the surplus is let go as any other. The
 * others see replicas that are not promised for a moment, and offer them to this node first: no bytes move.
 */
export class Rebuild {
  readonly #context: Context
  readonly #holding: Holding
  readonly #unsure = new Set<ModelView>()
  #until = Infinity

  constructor (context: Context, holding: Holding) {
    this.#context = context
    this.#holding = holding
  }

  /** Models of which is not known yet whether something was promised. */
  get left (): number { return this.#unsure.size }

  /** All models that are here were told; `lostMs`: how long ago the ledger was lost. */
  start (lostMs: number): void {
    const { views, now } = this.#context
    this.#until = now + LEDGER_REBUILD_MS_MAX - lostMs
    for (const view of views.values()) if (view.local && view.own.includes(Own.Held)) this.#unsure.add(view)
  }

  awaits (view: ModelView): boolean { return this.#unsure.has(view) }

  tick (): void {
    const { now, wake } = this.#context
    for (const view of this.#unsure) {
      const isOver = !view.local || now >= this.#until || this.#isUnwanted(view) || (view.policy.target > 0 && this.#promise(view))
      if (isOver) this.#unsure.delete(view)
    }
    if (this.#unsure.size > 0) wake(this.#until)
  }

  /** All who are said to have to do with it have been heard, one of them has it, and nobody wants it kept. */
  #isUnwanted ({ policy, policyRefused, searched, members, claims }: ModelView): boolean {
    return policy.target === 0 && !policyRefused && searched && members.size === 0 && claims.size > 0
  }

  /** False: that could not be recorded; the next tick tries again. */
  #promise (view: ModelView): boolean {
    let left = view.kept ? Infinity : this.#context.settings.donateBytes - this.#holding.bytes(Own.Committed, Own.Pulling, Own.Broken)
    const fitting = rarestFirst(view).filter(shard => {
      const bytes = view.bytes[shard] ?? 0
      if (bytes > left) return false
      left -= bytes
      return true
    })
    return this.#holding.commitAll(view, fitting)
  }
}

/** Of what is here and not promised, first what the fewest others promise. */
function rarestFirst (view: ModelView): number[] {
  const held: Array<{ shard: number, others: number }> = []
  for (let shard = 0; shard < view.shards; shard++) {
    if (view.own[shard] !== Own.Held) continue
    let others = 0
    for (const claim of view.claims.values()) if (claim.committed.has(shard)) others++
    held.push({ shard, others })
  }
  return held.sort((a, b) => a.others - b.others).map(({ shard }) => shard)
}
