import type { DeclineReason, DrainStatus, ModelReplication, ReplicationEvent } from './types.ts'

/** Repair of a lost peer begins within a minute of its loss and takes another: what lasts longer needs a person. */
const PATIENCE_MS = 2 * 60_000
/** What has enough for now waits for who reboots, ten minutes in all, and then takes its turn. */
const TARGET_PATIENCE_MS = 15 * 60_000
/** Refusals older than that explain nothing: whoever declined is asked again after five minutes. */
const REASON_MEMORY_MS = 8 * 60_000
const REASONS: Record<DeclineReason, string> = {
  held: 'those asked hold it already; more nodes are needed',
  space: 'nobody gives space; start more nodes with --set storage.donate, or raise it',
  busy: 'those asked are busy with other repairs',
  draining: 'those asked are draining',
  'unknown-model': 'those asked cannot find the model',
  leaving: 'those asked are stopping'
}

/** Watches for how long what should mend itself has not, and why. Pure. */
export class Trouble {
  readonly #belowMinSince = new Map<string, number>()
  /** And nothing of it is on its way. */
  readonly #belowTargetSince = new Map<string, number>()
  /** The most replicas that each model had of all its shards: who never had others is alone on purpose. */
  readonly #most = new Map<string, number>()
  readonly #declined = new Map<string, { reason: DeclineReason, at: number }>()
  #drain: { left: number, since: number, waits: boolean } | undefined

  note (event: ReplicationEvent, now: number): void {
    if (event.type === 'declined') this.#declined.set(event.model, { reason: event.reason, at: now })
  }

  /** `drain.waits`: for holders that are away. */
  look (models: readonly ModelReplication[], drain: DrainStatus & { waits: boolean } | undefined, now: number): void {
    since(this.#belowMinSince, models.filter(({ replicasMin, min }) => replicasMin < min), now)
    since(this.#belowTargetSince, models.filter(({ replicasMin, min, target, repairing }) => replicasMin >= min && replicasMin < target && repairing === 0), now)
    const known = new Set(models.map(({ model }) => model))
    for (const model of this.#most.keys()) if (!known.has(model)) this.#most.delete(model)
    for (const { model, replicasMin } of models) this.#most.set(model, Math.max(replicasMin, this.#most.get(model) ?? 0))
    for (const [model, { at }] of this.#declined) if (now - at > REASON_MEMORY_MS) this.#declined.delete(model)
    if (drain === undefined || drain.left.length === 0) this.#drain = undefined
    else if (this.#drain?.left !== drain.left.length) this.#drain = { left: drain.left.length, since: now, waits: drain.waits }
    else this.#drain.waits = drain.waits
  }

  /** In words, each with what to do. */
  problems (state: { models: readonly ModelReplication[], brake: boolean, connected: boolean, reachable: number }, now: number): string[] {
    const problems: string[] = []
    if (state.brake) problems.push('many peers vanished at once: until they are back or a while has passed, only last copies are repaired and nothing is let go; check the network between the nodes')
    for (const { model, replicasMin, min } of state.models) {
      const since = this.#belowMinSince.get(model)
      if (since === undefined || now - since < PATIENCE_MS) continue
      // Of one that is alone: what others had.
      if (!state.connected && (this.#most.get(model) ?? 0) <= Math.max(1, replicasMin)) continue
      problems.push(`${model} has ${replicasMin} of at least ${min} replicas${this.#why(model, min, state.reachable)}; see shoal show ${model}`)
    }
    for (const { model, replicasMin, target } of state.models) {
      const since = this.#belowTargetSince.get(model)
      if (since === undefined || now - since < TARGET_PATIENCE_MS || (!state.connected && (this.#most.get(model) ?? 0) <= replicasMin)) continue
      problems.push(`${model} has ${replicasMin} of the ${target} replicas that it is to have${this.#why(model, target, state.reachable)}; ask for fewer with shoal pin ${model} --replicas ${replicasMin} on the node that added it, or see shoal show ${model}`)
    }
    if (this.#drain !== undefined && now - this.#drain.since >= PATIENCE_MS) {
      const waits = this.#drain.waits ? 'holders that are away are waited for at first; if none is, ' : ''
      problems.push(`the drain does not get on: ${this.#drain.left} shards have too few replicas elsewhere; ${waits}start more nodes with --set storage.donate, or lower the target`)
    }
    return problems
  }

  #why (model: string, wanted: number, reachable: number): string {
    const declined = this.#declined.get(model)
    if (declined !== undefined) return `: ${REASONS[declined.reason]}`
    if (reachable + 1 < wanted) return `: only ${reachable} other ${reachable === 1 ? 'node is' : 'nodes are'} connected`
    return ''
  }
}

/** Since when each of these models has been so. */
function since (times: Map<string, number>, models: readonly ModelReplication[], now: number): void {
  const so = new Set(models.map(({ model }) => model))
  for (const model of times.keys()) if (!so.has(model)) times.delete(model)
  for (const model of so) if (!times.has(model)) times.set(model, now)
}
