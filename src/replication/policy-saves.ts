import { REPLICA_POLICY_SAVES_BURST, REPLICA_POLICY_SAVES_PER_SECOND } from '../base/index.ts'
import { TokenBucket } from '../transfer/index.ts'
import type { Context } from './context.ts'
import type { ModelView } from './model-view.ts'
import type { PolicyRecord } from './types.ts'

/** What others tell of how many replicas there shall be: it is in force when it is durable, and each write is a sync. */
export class PolicySaves {
  readonly #context: Context
  /** Records that are wanted and not saved yet, by model: the newest of each publisher. */
  readonly #unsaved = new Map<ModelView, PolicyRecord[]>()
  readonly #saves = new TokenBucket(REPLICA_POLICY_SAVES_PER_SECOND, REPLICA_POLICY_SAVES_BURST, 0)

  constructor (context: Context) {
    this.#context = context
  }

  /** The true ones among them. */
  read (model: string, given: readonly Uint8Array[]): PolicyRecord[] {
    return given.map(bytes => this.#context.ports.readPolicy(bytes)).filter(record => record !== undefined).filter(record => record.model === model)
  }

  /** Takes in records that are not known; a false one is ignored. They are in force before it returns, or at the next tick when there were many lately. */
  take (view: ModelView, given: readonly Uint8Array[]): void {
    this.heard(view, given)
    this.saveIfFew()
  }

  /** Takes them in with the next ones that are saved. */
  heard (view: ModelView, given: readonly Uint8Array[]): void {
    const waiting = this.#unsaved.get(view) ?? []
    const known = [...view.policies.values(), ...waiting]
    const { saved } = view.merge([...waiting, ...this.read(view.cid, given.filter(bytes => !known.some(record => equal(record.bytes, bytes))))])
    if (saved.length > 0) this.#unsaved.set(view, saved)
  }

  /** Unless there were many lately. */
  saveIfFew (): void {
    const { now, touch } = this.#context
    if (this.#unsaved.size === 0) return
    touch()
    if (this.#saves.waitMs(now) > 0) return
    this.#saves.take(1, now)
    this.save()
  }

  /** What was heard, in one write. It is not in force before it is durable; where that fails the next state brings it again. */
  save (): void {
    const { views, ports, now } = this.#context
    const merged = [...this.#unsaved].filter(([view]) => views.get(view.cid) === view).map(([view, records]) => ({ view, merged: view.merge(records) })).filter(one => one.merged.saved.length > 0)
    this.#unsaved.clear()
    if (merged.length === 0) return
    try {
      ports.savePolicies({ saved: merged.flatMap(one => one.merged.saved), dropped: merged.flatMap(one => one.merged.dropped) })
    } catch {
      for (const { view } of merged) view.policyRefused = true
      return
    }
    for (const one of merged) {
      one.view.adopt(one.merged)
      one.view.policyRefused = false
      one.view.metAt = now
      this.#context.changed(one.view)
    }
  }
}

function equal (a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}
