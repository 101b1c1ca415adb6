import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import { NodeStoppedError, NoProviderError, systemClock } from '../base/index.ts'
import type { ShoalNode } from '../node/types.ts'

/** A small model on a fast network takes a second, a large one over a slow one hours. */
const LOAD_SECONDS = [0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 14_400]
/** Loads whose start is remembered; a node runs far fewer at once. */
const STARTED_MAX = 10_000

const RESULTS = ['complete', 'left', 'no-provider', 'failed'] as const
type Result = typeof RESULTS[number]

export interface LoadMetrics {
  update: () => void
  stop: () => void
}

/** What becomes of loads, from the node's events, and those that run now. */
export function createLoadMetrics (registry: Registry, node: ShoalNode): LoadMetrics {
  const registers = [registry]
  const ended = new Counter({ name: 'shoal_loads_total', help: 'Loads that fetched something and ended: complete, left by all who waited, without a provider, or failed', labelNames: ['result'], registers })
  const seconds = new Histogram({ name: 'shoal_load_seconds', help: 'From the first look at a model to its last block, of loads that completed', buckets: LOAD_SECONDS, registers })
  const added = new Counter({ name: 'shoal_models_added_total', help: 'Models published here', registers })
  const removed = new Counter({ name: 'shoal_models_removed_total', help: 'Models removed here, by users or eviction', registers })
  const running = new Gauge({ name: 'shoal_loads_running', help: 'Loads that run now, by what they wait for', labelNames: ['phase'], registers })
  const waiting = new Gauge({ name: 'shoal_load_callers', help: 'Clients that wait for a load', registers })
  const left = new Gauge({ name: 'shoal_load_remaining_bytes', help: 'Bytes that running loads still lack', registers })
  for (const result of RESULTS) ended.inc({ result }, 0)

  const started = new Map<string, number>()
  const end = (cid: string, result: Result): void => {
    ended.inc({ result })
    const at = started.get(cid)
    if (at !== undefined && result === 'complete') seconds.observe((systemClock.monotonic() - at) / 1000)
    started.delete(cid)
  }
  const offs = [
    node.events.on('load:started', ({ cid }) => { if (started.size < STARTED_MAX) started.set(cid, systemClock.monotonic()) }),
    node.events.on('model:loaded', ({ cid }) => { end(cid, 'complete') }),
    node.events.on('load:failed', ({ cid, error }) => { end(cid, resultOf(error)) }),
    node.events.on('model:added', () => { added.inc() }),
    node.events.on('model:removed', () => { removed.inc() })
  ]
  return {
    stop: () => { for (const off of offs) off() },
    update: () => {
      const open = node.transfers()
      const transfers = open.filter(({ resting }) => !resting)
      for (const phase of ['finding', 'loading'] as const) running.set({ phase }, transfers.filter(({ progress }) => progress.phase === phase).length)
      waiting.set(open.reduce((sum, { callers }) => sum + callers, 0))
      left.set(transfers.reduce((sum, { progress: { bytesTotal, bytesDone } }) => sum + Math.max(0, bytesTotal - bytesDone), 0))
    }
  }
}

function resultOf (error: Error): Result {
  if (error instanceof NodeStoppedError) return 'left'
  return error instanceof NoProviderError ? 'no-provider' : 'failed'
}
