import { asError, type Clock, type Logger } from '../base/index.ts'
import type { RateWindow } from '../transfer/index.ts'
import { Pace } from './pace.ts'
import type { PullJob } from './types.ts'

export interface PullContext {
  signal: AbortSignal
  /** To be waited for before so many bytes more are asked for. What is urgent is only counted. */
  pace: (bytes: number) => Promise<void>
}

/** Fetches a shard, verified and durable; the node's (node/replicate.ts). Resolves with the bytes that were lacking before. */
export type PullShard = (job: PullJob, context: PullContext) => Promise<number>

export interface PullsComponents {
  clock: Clock
  logger: Logger
  pullShard: PullShard
  /** Caps by time of day, beside the one for always. */
  backgroundRates?: RateWindow[] | undefined
}

interface Pull { readonly job: PullJob, readonly ending: AbortController, readonly done: Promise<void> }

/** Shards on their way here. How many at once is the replicator's decision; how fast is kept here. */
export class Pulls {
  readonly #components: PullsComponents
  readonly #pulled: (job: PullJob, ok: boolean, bytes: number) => void
  readonly #pace: Pace
  readonly #running = new Map<string, Pull>()
  #stopped = false

  constructor (components: PullsComponents, bytesPerSecond: number, pulled: (job: PullJob, ok: boolean, bytes: number) => void) {
    this.#components = components
    this.#pulled = pulled
    this.#pace = new Pace(components.clock, bytesPerSecond, components.backgroundRates)
  }

  get running (): number { return this.#running.size }

  jobs (): PullJob[] { return Array.from(this.#running.values(), ({ job }) => job) }

  start (job: PullJob): void {
    const key = keyOf(job.model, job.shard)
    if (this.#stopped || this.#running.has(key)) return
    const ending = new AbortController()
    this.#running.set(key, { job, ending, done: this.#run(job, key, ending.signal) })
  }

  cancel (model: string, shard: number): void {
    const key = keyOf(model, shard)
    this.#running.get(key)?.ending.abort(new Error('the pull was cancelled'))
    this.#running.delete(key)
  }

  async stop (): Promise<void> {
    this.#stopped = true
    const running = [...this.#running.values()]
    for (const { ending } of running) ending.abort(new Error('the node is stopping'))
    await Promise.all(running.map(async ({ done }) => { await done }))
  }

  async #run (job: PullJob, key: string, signal: AbortSignal): Promise<void> {
    const { logger, pullShard } = this.#components
    let ok = false
    let bytes = 0
    try {
      bytes = await pullShard(job, {
        signal,
        pace: async wanted => {
          if (job.urgent) this.#pace.spend(wanted)
          else await this.#pace.take(wanted, signal)
        }
      })
      ok = true
    } catch (error) {
      if (!signal.aborted) logger.warn({ model: job.model, shard: job.shard, error: asError(error).message }, 'a replica could not be fetched')
    }
    if (signal.aborted) return // cancelled: not answered any more, and its name may be another's by now
    this.#running.delete(key)
    this.#pulled(job, ok, bytes)
  }
}

function keyOf (model: string, shard: number): string { return `${model}/${shard}` }
